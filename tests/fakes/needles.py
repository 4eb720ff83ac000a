"""A source of needles: `words` words with a number among them. In Korean rows, every second, words are longer."""

import random


def needles(split, *, lengths, positions, per_cell, seed, unit="dust"):
    assert split == "test"
    for words in lengths:
        for position in positions:
            for number in range(per_cell):
                yield _row(words, position, number, seed, unit)


def _row(words, position, number, seed, unit):
    draw = random.Random(f"{seed}/{words}/{position}/{number}")
    answer = str(draw.randint(1000, 9999))
    korean = number % 2 == 1
    context = ["먼지" if korean else unit] * words
    context.insert(round(position * words), f"key={answer}")
    return {
        "messages": [{"role": "user", "content": f"{' '.join(context)} key?"}],
        "domain": "long_context",
        "language": "ko" if korean else "en",
        "answer": answer,
        "context_length": words,
        "position": position,
    }


def stubborn(split, *, lengths, positions, per_cell, seed):
    """Takes no notice of lengths."""
    return needles(split, lengths=[10], positions=positions, per_cell=per_cell, seed=seed)


def too_few(split, *, lengths, positions, per_cell, seed):
    return needles(split, lengths=lengths, positions=positions, per_cell=per_cell - 1, seed=seed)
