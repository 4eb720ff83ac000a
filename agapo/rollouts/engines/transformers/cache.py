"""A key-value cache whose memory follows its live rows, and on sliding layers its window.

Rows are sequences, left-padded so that all of them write the same column. When some finish, the last live rows
move into their places (a few rows are copied, not the cache) and the batch becomes shorter; once half of the rows
are gone, their memory is given back. Layers with sliding attention keep and hand out just the window's columns.
"""

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

SLACK = 64
"""Columns allocated beyond those at hand, at least, so that few tokens move what is there."""


class LayerSlab(CacheLayerMixin):
    """One layer's keys and values [rows, heads, capacity, head_dim].

    `length` counts the columns that were ever written; those from `start` on are held, at 0, 1, … of the slab.
    """

    def __init__(self, window: int | None, most: int):
        super().__init__()
        self.window = window
        self.most = most
        self.rows = 0
        self.length = 0
        self.start = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate room for the rows at hand and some columns beyond them."""
        self.rows = key_states.shape[0]
        capacity = min(self.most, key_states.shape[2] + SLACK)
        self.keys = key_states.new_empty(*key_states.shape[:2], capacity, key_states.shape[3])
        self.values = value_states.new_empty(*value_states.shape[:2], capacity, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append columns, and return those that the queries may look at."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        queries = key_states.shape[2]
        if self.length + queries - self.start > self.keys.shape[2]:
            self._move(self._roomy(queries))
        filled, end = self.length - self.start, self.length - self.start + queries
        self.keys[: self.rows, :, filled:end] = key_states
        self.values[: self.rows, :, filled:end] = value_states
        self.length += queries
        first = self.first_column(queries) - self.start
        return self.keys[: self.rows, :, first:end], self.values[: self.rows, :, first:end]

    def first_column(self, queries: int) -> int:
        """Return the first column that the last `queries` columns may look at."""
        if self.window is None:
            return 0
        return max(0, self.length - queries - self.window + 1)

    def _roomy(self, queries: int) -> int:
        """Return a capacity for `queries` columns more: twice what is there, or a quarter more than a window."""
        held = self.length - self.first_column(0)
        spare = held + queries if self.window is None else min(held + queries, self.window // 4)
        return min(self.most, held + queries + max(SLACK, spare))

    def _move(self, capacity: int, times: int = 1) -> None:
        """Hold the live rows, `times` copies of each, and the columns still looked at, in memory of their own."""
        assert self.keys is not None and self.values is not None
        first, end = self.first_column(0) - self.start, self.length - self.start
        self.keys = _moved(self.keys[: self.rows, :, first:end], capacity, times)
        self.values = _moved(self.values[: self.rows, :, first:end], capacity, times)
        self.rows *= times
        self.start += first

    def repeat_rows(self, times: int) -> None:
        """Give each row `times` copies, next to each other: the group shares the prompt's prefill."""
        self._move(self._roomy(1), times)

    def move_rows(self, holes: Tensor, movers: Tensor, rows: int) -> None:
        """Put rows `movers` into `holes`, and keep the first `rows`."""
        assert self.keys is not None and self.values is not None
        if len(holes):
            first, end = self.first_column(0) - self.start, self.length - self.start
            self.keys[holes, :, first:end] = self.keys[movers, :, first:end]
            self.values[holes, :, first:end] = self.values[movers, :, first:end]
        self.rows = rows
        if 0 < 2 * rows <= self.keys.shape[0]:
            self._move(self._roomy(1))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return (columns, offset) as transformers' mask functions want them."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Return the number of columns that were ever written, held or not."""
        return self.length

    def get_max_length(self) -> int:
        """Return the most columns there can be."""
        return self.most


class DecodeCache(Cache):
    """The slabs of all layers."""

    def __init__(self, windows: list[int | None], most: int):
        """`windows`: each layer's sliding window, None for global attention; `most`: the most columns."""
        self.slabs = [LayerSlab(window, most) for window in windows]
        super().__init__(layers=list(self.slabs))

    def repeat_rows(self, times: int) -> None:
        """See `LayerSlab.repeat_rows`."""
        for slab in self.slabs:
            slab.repeat_rows(times)

    def move_rows(self, holes: Tensor, movers: Tensor, rows: int) -> None:
        """See `LayerSlab.move_rows`."""
        for slab in self.slabs:
            slab.move_rows(holes, movers, rows)


def _moved(states: Tensor, capacity: int, times: int) -> Tensor:
    """Return a copy of the states [rows, heads, columns, head_dim] as [rows · times, heads, capacity, head_dim]."""
    rows, heads, columns, width = states.shape
    moved = states.new_empty(rows * times, heads, capacity, width)
    moved.view(rows, times, heads, capacity, width)[:, :, :, :columns] = states[:, None]
    return moved


def layer_windows(config: object) -> list[int | None]:
    """Return each layer's sliding window (None: global) from a transformers config."""
    layers = int(getattr(config, "num_hidden_layers"))  # noqa: B009  the type of a config is not known statically
    types = getattr(config, "layer_types", None) or ["full_attention"] * layers
    window = getattr(config, "sliding_window", None)
    return [window if kind == "sliding_attention" else None for kind in types]
