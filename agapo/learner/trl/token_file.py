"""Tokenised examples on disk, read through memory maps: every rank sees all of them, and none holds them.

tokens.bin   every example's token ids, one after another (int32)
mask.bin     1 where a token is trained (uint8)
ends.bin     where each example ends (int64)
"""

from pathlib import Path
from types import TracebackType

import numpy as np

from agapo.learner.trl.packing import Example

PLAN = "plan.npz"
"""Beside them: which examples stand in which packed row."""
_FILES = {"tokens.bin": np.int32, "mask.bin": np.uint8, "ends.bin": np.int64}


class TokenWriter:
    """Writes examples into a folder; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files = [(folder / name).open("wb") for name in _FILES]
        self.count = 0
        self._end = 0

    def __enter__(self) -> "TokenWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()

    def add(self, example: Example) -> None:
        """Append an example."""
        self.count += 1
        self._end += len(example.token_ids)
        for file, kind, values in zip(
            self._files, _FILES.values(), (example.token_ids, example.mask, [self._end]), strict=True
        ):
            file.write(np.asarray(values, dtype=kind).tobytes())


class TokenFile:
    """The examples of a folder, by index."""

    def __init__(self, folder: Path) -> None:
        self._tokens, self._mask, self._ends = (
            np.memmap(folder / name, dtype=kind, mode="r") for name, kind in _FILES.items()
        )

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Example:
        """Return an example. Negative indices are not taken."""
        start, end = (int(self._ends[index - 1]) if index else 0), int(self._ends[index])
        return Example(self._tokens[start:end].tolist(), self._mask[start:end].tolist())
