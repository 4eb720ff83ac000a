"""A reward that takes longer to import than its test's deadline."""

import time

time.sleep(0.6)


def score(prompts, completions, **columns):
    time.sleep(float(completions[0]))
    return [1.0]
