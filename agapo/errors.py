"""The errors that users see as one line."""


class UserError(Exception):
    """Something the user can mend. The message is one line: the place, what is wrong, the mend."""


class Interrupted(Exception):
    """The user asked to stop (Ctrl-C). Raised only where no finished step can be lost."""


INTERRUPTED = 130
"""The exit status of a run that was stopped by Ctrl-C."""
