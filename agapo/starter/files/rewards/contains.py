"""An example of a reward: 1 where the response contains the answer.

It is called with one response at a time, as lists of one; `answer` is a column of the data source. TRL's rewards have
the same signature.
"""

from agapo.chat import completion_text


def score(prompts, completions, answer, **columns):
    """Return 1.0 for each completion that contains its answer, else 0.0; None would be no verdict."""
    return [float(gold in completion_text(text)) for text, gold in zip(completions, answer, strict=True)]
