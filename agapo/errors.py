"""The errors that users see as one line."""


class UserError(Exception):
    """Something the user can mend. The message is one line: the place, what is wrong, the mend."""


class ProcessDied(UserError):
    """A process of the run's is gone, which no new start inside the run mends: the same command goes on."""


class TransferFailed(Exception):
    """Weights did not get from the learner to an engine; they can be sent another way."""


class Interrupted(Exception):
    """The user asked to stop (Ctrl-C, SIGTERM). Raised only where no finished step can be lost."""


INTERRUPTED = (130, 143)
"""The exit statuses of a run that was stopped, by Ctrl-C or by SIGTERM."""


def first_line(error: BaseException) -> str:
    """Return what a library's error says first, to be told in a line of ours; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
