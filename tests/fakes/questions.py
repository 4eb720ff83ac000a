"""A source of a few questions."""


def prompts(split, size=3):
    for n in range(size):
        yield {"messages": [{"role": "user", "content": f"{split.replace('test', 'other')} {n}?"}]}
