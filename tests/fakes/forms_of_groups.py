"""A reward of groups that reads its completions as messages."""


def lengths(prompt, completions, scores, **columns):
    return [float(len(turns[-1]["content"])) for turns in completions]
