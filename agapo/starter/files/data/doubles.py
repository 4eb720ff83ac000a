"""An example of a data source: questions with a chat and whatever the reward reads."""


def prompts(split, size=1000):
    """Yield the rows of a split, `train` or `test`, which should have different questions."""
    for n in range(size):
        if (n % 5 == 0) == (split == "test"):
            yield {"messages": [{"role": "user", "content": f"{n}+{n}"}], "answer": str(2 * n)}
