"""What a part is given: the device, the sizes to measure, and where to write."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu import models
from benchmarks.gpu.models import Shape
from benchmarks.gpu.records import Recorder


@dataclass(frozen=True)
class Sizes:
    """Everything that is large on a GPU and small in a test, by part."""

    shapes: tuple[Shape, ...]
    """Tied and global first; the last one is hybrid and untied."""
    correct_prompts: int
    correct_group: int
    correct_prompt_tokens: int
    correct_new_tokens: int
    head_tokens: int
    memory_tokens: tuple[int, ...]
    """Tokens of a micro-batch."""
    memory_row_tokens: int
    """Prompt and response of each of its examples."""
    sampling_rows: tuple[int, ...]
    sampling_group: int
    sampling_prompt_tokens: int
    sampling_new_tokens: int
    learn_tokens: tuple[int, ...]
    """Tokens of a sequence, one a micro-batch."""
    learn_step_tokens: int
    """Tokens of an update."""
    run_steps: int
    run_prompts: int
    run_new_tokens: int


REAL = Sizes(
    shapes=models.REAL,
    correct_prompts=8,
    correct_group=4,
    correct_prompt_tokens=256,
    correct_new_tokens=128,
    head_tokens=2048,
    memory_tokens=(4096, 8192, 16384, 32768),
    memory_row_tokens=2048,
    sampling_rows=(64, 256),
    sampling_group=8,
    sampling_prompt_tokens=512,
    sampling_new_tokens=64,
    learn_tokens=(2048, 8192, 16384),
    learn_step_tokens=32768,
    run_steps=4,
    run_prompts=16,
    run_new_tokens=96,
)
SMALL = Sizes(
    shapes=models.SMALL,
    correct_prompts=2,
    correct_group=2,
    correct_prompt_tokens=12,
    correct_new_tokens=12,
    head_tokens=8,
    memory_tokens=(32, 64),
    memory_row_tokens=16,
    sampling_rows=(4, 8),
    sampling_group=2,
    sampling_prompt_tokens=8,
    sampling_new_tokens=4,
    learn_tokens=(16, 32),
    learn_step_tokens=64,
    run_steps=2,
    run_prompts=2,
    run_new_tokens=8,
)


@dataclass(frozen=True)
class Setting:
    """A part's surroundings."""

    device: str
    sizes: Sizes
    record: Recorder
    scratch: Path
    """A folder for models and runs, which is removed afterwards."""
    weights: Path | None = None
    """A Hugging Face folder, or a GGUF file, of real weights."""


def missing(packages: Sequence[str]) -> list[str]:
    """Return those of the packages that cannot be imported here."""
    return [name for name in packages if not _importable(name)]


def _importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
