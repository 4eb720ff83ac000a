"""Samples a second of the verifier pool: math answers beside TRL's accuracy_reward, programs, and a hostile suite.

    python -m benchmarks.rewards [--gsm8k FILE] [--humaneval FILE] [--answers 10000] [--programs 2000] [--workers 2]

Answers are GSM8K's worked solutions with the last number in a box, every second one changed to a wrong number. TRL's
reward is called as its trainer calls it, in this process, on the same answers, by turns with the pool (A B A B …).
"""

import argparse
import gzip
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agapo.rewarding.pool import Sample, Score, VerifierPool
from tests.hostile_math import HOSTILE

CHAT = [{"role": "user", "content": "?"}]


def main() -> None:
    """Run all three and print what they took."""
    options = _parse()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.workers} workers")
    rows = _gsm8k(options.gsm8k, options.answers)
    _math(rows, options.workers, options.pairs)
    _hostile(rows, options.workers)
    if options.humaneval:
        _programs(options.humaneval, options.programs, options.workers)


def _parse() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rewards", description=__doc__.partition("\n")[0])
    data = os.environ.get("AGAPO_TEST_DATA", "")
    parser.add_argument("--gsm8k", type=Path, default=Path(data, "gsm8k/train.jsonl.gz"), help="rows of GSM8K")
    parser.add_argument("--humaneval", type=Path, default=Path(data, "humaneval/HumanEval.jsonl.gz") if data else None)
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=3)
    return parser.parse_args()


def _gsm8k(path: Path, count: int) -> list[tuple[str, str, bool]]:
    """(response, gold answer, whether it is right); generated sums where there is no file."""
    draw = random.Random(0)
    if path.is_file():
        with gzip.open(path, "rt") as lines:
            solved = [json.loads(line)["answer"].rpartition("####") for line in lines]
        pairs = [(text, final.strip().replace(",", "")) for text, _, final in solved]
    else:
        pairs = [("We add the two.", str(draw.randrange(10_000))) for _ in range(count)]
    found = []
    for index in range(count):
        text, gold = pairs[index % len(pairs)]
        is_right = index % 2 == 0
        shown = gold if is_right else str(float(gold) + draw.randint(1, 9))
        found.append((f"{text}\nThe answer is \\boxed{{{shown}}}.", gold, is_right))
    return found


def _math(rows: Sequence[tuple[str, str, bool]], workers: int, pairs: int) -> None:
    from trl.rewards.accuracy_rewards import accuracy_reward

    samples = [Sample(CHAT, text, {"answer": gold, "mode": "non_reasoning"}) for text, gold, _ in rows]
    chats = [[{"role": "assistant", "content": text}] for text, _, _ in rows]
    golds = [f"${gold}$" for _, gold, _ in rows]
    expected = [float(is_right) for _, _, is_right in rows]
    ours, theirs = [], []
    with VerifierPool({"answer": "rewards.math_answer:score"}, workers=workers, deadline_s=10) as pool:
        pool.score(samples[:200])
        for _ in range(pairs):
            theirs.append(_timed("TRL accuracy_reward", lambda: accuracy_reward(chats, golds), expected))
            ours.append(_timed("agapo, verifier pool", lambda: _values(pool.score(samples)), expected))
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(f"{len(rows)} math answers: TRL's time over ours {middle:.1f} ({low:.1f}-{high:.1f})")


def _timed(name: str, score: Callable[[], Sequence[float | None]], expected: Sequence[float]) -> float:
    started = time.perf_counter()
    values = score()
    seconds = time.perf_counter() - started
    agree = sum(value == wanted for value, wanted in zip(values, expected, strict=True))
    print(
        f"  {name}: {len(values) / seconds:,.0f} a second ({seconds:.2f} s), {agree} of {len(values)} as they should be"
    )
    return seconds


def _hostile(rows: Sequence[tuple[str, str, bool]], workers: int) -> None:
    """Throughput before and after every hostile answer has been scored."""
    honest = [Sample(CHAT, text, {"answer": gold, "mode": "non_reasoning"}) for text, gold, _ in rows[:2000]] * 10
    hostile = [Sample(CHAT, f"\\boxed{{{found}}}", {"answer": gold, "mode": None}) for found, gold in HOSTILE]
    expected = [float(is_right) for _, _, is_right in rows[:2000]] * 10
    with VerifierPool({"answer": "rewards.math_answer:score"}, workers=workers, deadline_s=5) as pool:
        pool.score(honest)
        before = _timed("before the hostile suite", lambda: _values(pool.score(honest)), expected)
        started = time.perf_counter()
        scores = [score["answer"] for score in pool.score(hostile)]
        took = time.perf_counter() - started
        timeouts = sum(score.error == "timeout" for score in scores)
        after = _timed("after the hostile suite", lambda: _values(pool.score(honest)), expected)
    print(
        f"{len(hostile)} hostile answers in {took:.1f} s, {timeouts} at the deadline; after/before {before / after:.2f}"
    )


def _programs(path: Path, count: int, workers: int) -> None:
    with gzip.open(path, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    columns = [{name: row[name] for name in ("test", "entry_point", "prompt")} for row in rows]
    samples, expected = [], []
    for index in range(count):
        row, is_right = rows[index % len(rows)], (index // len(rows)) % 2 == 0
        program = row["prompt"] + (row["canonical_solution"] if is_right else "    pass\n")
        samples.append(Sample(CHAT, f"```python\n{program}```", {**columns[index % len(rows)], "mode": None}))
        expected.append(float(is_right))
    with VerifierPool({"tests": "rewards.unit_tests:score"}, workers=workers, deadline_s=20) as pool:
        pool.score(samples[:20])
        _timed(f"{count} HumanEval programs", lambda: _values(pool.score(samples)), expected)


def _values(scores: Sequence[dict[str, Score]]) -> list[Any]:
    return [next(iter(score.values())).value for score in scores]


if __name__ == "__main__":
    main()
