"""Tokens a second of each sampling engine, and of transformers' `generate`, on responses of very different lengths.

    .venv-vllm/bin/python -m benchmarks.engines --responses 64 --threads 1

Random weights of the tiny task's size (or `--model FOLDER`); lengths are log-normal, as those of real responses are,
and forced: no end token, a limit each. All in one process, one after the other, in `--rounds` rounds; model loading is
not counted, a first call of each before the rounds neither.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from agapo.model.loading import create_model, export_hf, load_model
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe.rollout import VLLMConfig
from agapo.rollouts.actor import EngineSettings, make_engine
from agapo.rollouts.engine import Engine, Request, ResponseId, SamplingParams

Sampler = Callable[[Sequence[Request]], None]


def main() -> None:
    """Print a table."""
    options = _options()
    torch.set_num_threads(options.threads)
    requests = _requests(options)
    tokens = sum(request.max_new_tokens for request in requests)
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or _random_model(Path(folder) / "model", options)
        samplers = _samplers(model, options)
        for sample in samplers.values():
            sample(requests[:4])
        seconds = {name: [] for name in samplers}
        for _ in range(options.rounds):
            for name, sample in samplers.items():
                started = time.monotonic()
                sample(requests)
                seconds[name].append(time.monotonic() - started)
    lengths = sorted(request.max_new_tokens for request in requests)
    print(f"{len(requests)} responses, {tokens} tokens (median {lengths[len(lengths) // 2]}, longest {lengths[-1]})")
    for name, values in seconds.items():
        speeds = [tokens / value for value in values]
        print(f"{name:14} {median(speeds):9.0f} tokens/s ({min(speeds):.0f}–{max(speeds):.0f})")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Tokens a second of each sampling engine.")
    parser.add_argument("--model", help="a Hugging Face folder; without it random weights")
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--responses", type=int, default=64)
    parser.add_argument("--median", type=float, default=128.0, help="median length of a response")
    parser.add_argument("--longest", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--engines", nargs="+", default=["transformers", "vllm", "generate"])
    return parser.parse_args()


def _requests(options: argparse.Namespace) -> list[Request]:
    """Return responses to prompts of 32 tokens, 8 a prompt."""
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(np.log(options.median), 0.8, options.responses), 1, options.longest).astype(int)
    prompts = [tuple(draw.integers(20, 200, 32).tolist()) for _ in range(-(-options.responses // 8))]
    return [
        Request(ResponseId(f"p{n // 8}", 0, n % 8, n // 8), prompts[n // 8], int(length))
        for n, length in enumerate(lengths)
    ]


def _random_model(folder: Path, options: argparse.Namespace) -> str:
    sizes = {"hidden_size": options.hidden, "intermediate_size": 3 * options.hidden, "layers": options.layers}
    model = create_model(build_tokenizer(), seed=0, **sizes)
    export_hf(model, build_tokenizer(), folder)
    return str(folder)


def _samplers(model: str, options: argparse.Namespace) -> dict[str, Sampler]:
    found: dict[str, Sampler] = {}
    for name in options.engines:
        if name == "generate":
            found[name] = _generate(model)
        else:
            vllm = VLLMConfig(cache_gib=1.0, in_flight=options.responses)
            found[name] = _drive(make_engine(EngineSettings(model, name, threads=options.threads, vllm=vllm)))
    return found


def _drive(engine: Any) -> Sampler:
    # No response ends before its limit.
    engine.end_ids = frozenset()

    def sample(requests: Sequence[Request]) -> None:
        _finish(engine, requests)

    return sample


def _finish(engine: Engine, requests: Sequence[Request]) -> None:
    engine.add(requests, SamplingParams(group_size=8, max_new_tokens=1))
    made = 0
    while engine.busy:
        made += sum(len(part.token_ids) for piece in engine.step() for part in piece.segments)
    assert made == sum(request.max_new_tokens for request in requests)


def _generate(folder: str) -> Sampler:
    model = load_model(folder).eval()
    # A default that would end responses.
    model.generation_config.eos_token_id = None

    def sample(requests: Sequence[Request]) -> None:
        ids = torch.tensor([request.prompt_ids for request in requests])
        longest = max(request.max_new_tokens for request in requests)
        config = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=longest, pad_token_id=0, eos_token_id=None)
        model.generate(inputs=ids, attention_mask=torch.ones_like(ids), generation_config=config)  # pyright: ignore

    return sample


if __name__ == "__main__":
    main()
