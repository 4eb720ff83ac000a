"""Memory that learning and sampling take, as `agapo check` estimates it and as it is, tensor by tensor, on CPU.

    .venv/bin/python -m benchmarks.memory outputs/sft/tiny/hf

A rank of the RL learner under each ZeRO stage and with LoRA, in float32 and in bfloat16, makes an update from
micro-batches that are full; the transformers engine samples responses of full length. What is counted is the most bytes
that tensors hold at once, so no pages of libraries and no losses of an allocator: the estimate is taken without them,
too. Each case has processes of its own. DeepSpeed's bucket for gradients, of a fixed size of a gigabyte or two, would
hide all else of a small model: it is made small on both sides.
"""

import argparse
import gc
import json
import os
import socket
import subprocess
import sys
import weakref
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from agapo.algorithm.objective import Objective
from agapo.learner.rl import rank as rank_module
from agapo.learner.rl.batching import Example, with_reference
from agapo.learner.rl.rank import LearnerRank
from agapo.learner.rl.settings import LearnerSettings
from agapo.model import memory as estimates
from agapo.model import shared_prompts
from agapo.model.loading import load_config
from agapo.model.memory import FineTuningSetup
from agapo.model.rl_memory import engine_memory, learner_memory
from agapo.model.sizes import ModelSizes, config_sizes
from agapo.recipe.learner import LearnerConfig
from agapo.recipe.model import ModelConfig
from agapo.rollouts.actor import EngineSettings, make_engine
from agapo.rollouts.engine import Request, ResponseId, SamplingParams

BUCKET = 100_000
MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """What is measured."""

    what: str
    """`learner` or `engine`."""
    dtype: str = "float32"
    zero_stage: int = 0
    ranks: int = 1
    lora: int = 0
    """The adapters' rank; 0 trains all weights."""
    checkpointing: bool = False
    shared: bool = False
    """Whether responses share their prompt (`learner.shared_prompts`), with attention as on a GPU."""

    @property
    def name(self) -> str:
        """The row's name in the table."""
        if self.what == "engine":
            return f"engine, {self.dtype}"
        trained = f"LoRA {self.lora}" if self.lora else f"ZeRO {self.zero_stage}"
        ranks = f", {self.ranks} ranks" if self.ranks > 1 else ""
        how = [", checkpointing"] * self.checkpointing + [", shared prompts"] * self.shared
        return f"learner, {trained}{ranks}, {self.dtype}{''.join(how)}"


CASES = (
    *(Case("learner", zero_stage=stage, ranks=2 if stage else 1, checkpointing=True) for stage in range(4)),
    Case("learner"),
    *(Case("learner", "bfloat16", zero_stage=stage, ranks=2, checkpointing=True) for stage in (1, 3)),
    Case("learner", shared=True),
    Case("learner", shared=True, checkpointing=True),
    Case("learner", lora=16, checkpointing=True),
    Case("learner", "bfloat16", lora=16, checkpointing=True),
    Case("engine"),
    Case("engine", "bfloat16"),
)


@dataclass(frozen=True)
class Measured:
    """Bytes of a case."""

    estimated: int
    counted: int

    @property
    def ratio(self) -> float:
        """The estimate over what was counted."""
        return self.estimated / self.counted


class TensorMeter(TorchDispatchMode):
    """Bytes of the tensors that are alive, and the most that there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}
        for item in gc.get_objects():
            if isinstance(item, torch.Tensor):
                self._note(item)

    def _note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._known or tensor.device.type == "meta":
            return
        self._known[storage._cdata] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, storage._cdata)

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count what it makes."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf)
        return made


def measure(model: str, case: Case, *, row: int = 128, rows: int = 4) -> Measured:
    """Return the bytes of a case, of the rank that takes most: `rows` sequences of `row` tokens a micro-batch."""
    port = _free_port()
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", model, "--row", f"{row}", "--rows", f"{rows}"]
    processes = [
        subprocess.Popen(
            [*command, "--case", json.dumps(asdict(case)), "--rank", f"{rank}", "--port", f"{port}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(case.ranks)
    ]
    found = [process.communicate(timeout=600)[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"{case.name}: a process ended with an error, above")
    return max((Measured(**json.loads(out.splitlines()[-1])) for out in found), key=lambda item: item.counted)


def main() -> None:
    """Print a line a case; or, as a process of `measure`, a case's bytes."""
    options = _options()
    if options.case:
        case = Case(**json.loads(options.case))
        measured = _engine(options, case) if case.what == "engine" else _learner(options, case)
        print(json.dumps(asdict(measured)), flush=True)
        os._exit(0)  # DeepSpeed's process group would wait for the others
    print(f"{'':52} {'estimated':>9} {'counted':>9}   ratio")
    for case in CASES:
        found = measure(options.model, case, row=options.row, rows=options.rows)
        print(
            f"{case.name:52} {found.estimated / MIB:9.1f} {found.counted / MIB:9.1f} MiB {found.ratio:.2f}", flush=True
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Memory of learning and sampling, estimated and counted.")
    parser.add_argument("model", help="a Hugging Face folder")
    parser.add_argument("--row", type=int, default=128, help="tokens of a sequence")
    parser.add_argument("--rows", type=int, default=4, help="sequences of a micro-batch, or sampled together")
    for name in ("--case", "--rank", "--port"):
        parser.add_argument(name, type=str if name == "--case" else int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _learner(options: argparse.Namespace, case: Case) -> Measured:
    _make_buckets_small()
    section: dict[str, Any] = {"zero_stage": case.zero_stage, "micro_batch_tokens": options.row * options.rows}
    shared = _shared_blocks(options) if case.shared else None
    if shared:
        section |= {"shared_prompts": True, "micro_batch_tokens": shared.slots}
        shared_prompts.MOST_SCORES = 0
    if case.lora:
        section["lora"] = {"rank": case.lora}
    model = ModelConfig.model_validate({"dtype": case.dtype, "gradient_checkpointing": case.checkpointing})
    settings = LearnerSettings(
        options.model, Objective(kl_coefficient=0.1), model=model, learner=LearnerConfig.model_validate(section)
    )
    learner = LearnerRank(settings, rank=options.rank, ranks=case.ranks, address="127.0.0.1", port=options.port)
    learner.load_reference()
    sizes = config_sizes(load_config(options.model, None))
    count = 2 * options.rows * case.ranks
    examples = _groups(sizes, 2, shared) if shared else _examples(sizes, count, options.row)
    how = {"denominator": float(len(examples)), "learning_rate": 1e-4}
    # The first makes what stays: the optimizer's moments.
    learner.update(examples, **how)
    gc.collect()
    with TensorMeter() as meter:
        learner.reference_logprobs(examples)
        learner.update(examples, **how)
    setup = FineTuningSetup(
        row_tokens=options.row,
        micro_rows=options.rows,
        ranks=case.ranks,
        zero_stage=settings.zero_stage,
        bfloat16=settings.bfloat16,
        gradient_checkpointing=case.checkpointing,
        adapters=sizes.adapter_parameters(case.lora, "all-linear") if case.lora else None,
        gpu=False,
        shared=shared,
    )
    return Measured(learner_memory(sizes, setup, reference=True).gpu_bytes, meter.peak)


def _make_buckets_small() -> None:
    estimates.BUCKET = BUCKET
    real = rank_module.deepspeed_config

    def small(**options: Any) -> dict[str, Any]:
        config = real(**options)
        config["zero_optimization"] |= {"reduce_bucket_size": BUCKET}
        return config

    rank_module.deepspeed_config = small


def _examples(sizes: ModelSizes, count: int, tokens: int) -> list[Example]:
    """Return sequences that are all response but for a token, with a reference: the most that the head has to do."""
    draw = np.random.default_rng(0)
    known = np.full(tokens - 1, -5, np.float32)
    examples = [
        Example(ids[:1], ids[1:], known, np.ones(tokens - 1, bool), 1, 1, n)
        for n in range(count)
        for ids in [draw.integers(5, sizes.vocabulary - 1, tokens).astype(np.int32)]
    ]
    reference = [known] * count
    return with_reference(examples, reference, "sequence")


def _shared_blocks(options: argparse.Namespace) -> estimates.SharedBlocks:
    """Return a micro-batch of about the tokens of the others: two prompts, half as long as a row, and what fits."""
    half = options.row // 2
    return estimates.SharedBlocks(blocks=2, prompt=half, responses=max(1, options.rows - 1), response=half)


def _groups(sizes: ModelSizes, micro_batches: int, own: estimates.SharedBlocks) -> list[Example]:
    """Return the groups of so many micro-batches; prompts differ in length, as they do."""
    draw, known = np.random.default_rng(0), np.full(own.response, -5, np.float32)
    examples = []
    for group in range(micro_batches * own.blocks):
        prompt = draw.integers(5, sizes.vocabulary - 1, own.prompt - group % 2).astype(np.int32)
        for _ in range(own.responses):
            tokens = draw.integers(5, sizes.vocabulary - 1, own.response).astype(np.int32)
            examples.append(Example(prompt, tokens, known, np.ones(own.response, bool), 1, 1, group))
    return with_reference(examples, [known] * len(examples), "sequence")


def _engine(options: argparse.Namespace, case: Case) -> Measured:
    engine: Any = make_engine(EngineSettings(options.model, dtype=case.dtype))
    sizes = config_sizes(load_config(options.model, None))
    half = options.row // 2
    prompt = tuple(np.random.default_rng(0).integers(5, sizes.vocabulary - 1, options.row - half).tolist())
    engine.end_ids = frozenset()  # all go to their full length
    with TensorMeter() as meter:
        engine.add(
            [Request(ResponseId("p", 0, index), prompt, half) for index in range(options.rows)],
            SamplingParams(group_size=options.rows, max_new_tokens=half),
        )
        while engine.busy:
            engine.step()
    number = 2 if case.dtype == "bfloat16" else 4
    estimate = engine_memory(sizes, rows=options.rows, columns=options.row, number=number, gpu=False)
    return Measured(estimate.gpu_bytes, meter.peak)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


if __name__ == "__main__":
    main()
