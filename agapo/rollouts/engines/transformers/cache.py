"""A key-value cache that loses finished rows without being copied.

Rows are sequences, left-padded so that all of them write the same column. When some finish, the last live rows
move into their places (a few rows are copied, not the cache) and the batch becomes shorter. Layers with sliding
attention hand out just the window's columns.
"""

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class LayerSlab(CacheLayerMixin):
    """One layer's keys and values [rows, heads, capacity, head_dim], of which `length` columns are filled."""

    def __init__(self, window: int | None, most: int):
        super().__init__()
        self.window = window
        self.most = most
        self.rows = 0
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate room for the rows at hand and some columns beyond them."""
        self.rows = key_states.shape[0]
        capacity = min(self.most, key_states.shape[2] + 64)
        self.keys = key_states.new_zeros(*key_states.shape[:2], capacity, key_states.shape[3])
        self.values = value_states.new_zeros(*value_states.shape[:2], capacity, value_states.shape[3])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append columns, and return those that the queries may look at."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        start, self.length = self.length, self.length + key_states.shape[2]
        self._reserve(self.length)
        self.keys[: self.rows, :, start : self.length] = key_states
        self.values[: self.rows, :, start : self.length] = value_states
        first = self.first_column(key_states.shape[2])
        return self.keys[: self.rows, :, first : self.length], self.values[: self.rows, :, first : self.length]

    def first_column(self, queries: int) -> int:
        """Return the first column that the last `queries` columns may look at."""
        if self.window is None:
            return 0
        return max(0, self.length - queries - self.window + 1)

    def _reserve(self, columns: int) -> None:
        assert self.keys is not None and self.values is not None
        if columns <= self.keys.shape[2]:
            return
        extra = min(self.most, 2 * columns) - self.keys.shape[2]
        self.keys = torch.nn.functional.pad(self.keys, (0, 0, 0, extra))
        self.values = torch.nn.functional.pad(self.values, (0, 0, 0, extra))

    def repeat_rows(self, times: int) -> None:
        """Give each row `times` copies, next to each other: the group shares the prompt's prefill."""
        assert self.keys is not None and self.values is not None
        self.keys = self.keys[: self.rows].repeat_interleave(times, dim=0)
        self.values = self.values[: self.rows].repeat_interleave(times, dim=0)
        self.rows *= times

    def move_rows(self, holes: Tensor, movers: Tensor, rows: int) -> None:
        """Put rows `movers` into `holes`, and keep the first `rows`."""
        assert self.keys is not None and self.values is not None
        if len(holes):
            first = self.first_column(1)
            self.keys[holes, :, first : self.length] = self.keys[movers, :, first : self.length]
            self.values[holes, :, first : self.length] = self.values[movers, :, first : self.length]
        self.rows = rows

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return (columns, offset) as transformers' mask functions want them."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Return the number of filled columns."""
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


def layer_windows(config: object) -> list[int | None]:
    """Return each layer's sliding window (None: global) from a transformers config."""
    layers = int(getattr(config, "num_hidden_layers"))  # noqa: B009  the type of a config is not known statically
    types = getattr(config, "layer_types", None) or ["full_attention"] * layers
    window = getattr(config, "sliding_window", None)
    return [window if kind == "sliding_attention" else None for kind in types]
