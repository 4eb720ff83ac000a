"""The sampling cache holds what lives and what a window still sees, and hands out what a plain one would.

The yardstick keeps every column that was ever written, one concatenation a step.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from agapo.model.tokenizer import build_tokenizer
from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.rollouts.engines.transformers import engine as engine_module
from agapo.rollouts.engines.transformers.cache import SLACK, DecodeCache, LayerSlab
from agapo.rollouts.engines.transformers.engine import TransformersEngine
from agapo.rollouts.groups import sample_groups
from agapo.schema import Prompt
from tests.builders import tiny_exaone, tiny_gpt2, tiny_qwen

HEADS, WIDTH = 2, 4


class PlainLayer(CacheLayerMixin):
    """All columns of the live rows, whatever the window."""

    def __init__(self, window: int | None):
        super().__init__()
        self.window = window

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = torch.cat([self.keys, key_states], dim=2)
        self.values = torch.cat([self.values, value_states], dim=2)
        reach = self.keys.shape[2] if self.window is None else key_states.shape[2] + self.window - 1
        return self.keys[:, :, -reach:], self.values[:, :, -reach:]

    def repeat_rows(self, times: int) -> None:
        self.keys = self.keys.repeat_interleave(times, dim=0)
        self.values = self.values.repeat_interleave(times, dim=0)

    def move_rows(self, holes: Tensor, movers: Tensor, rows: int) -> None:
        order = torch.arange(self.keys.shape[0])
        order[holes] = movers
        self.keys, self.values = self.keys[order[:rows]], self.values[order[:rows]]

    def get_seq_length(self) -> int:
        return self.keys.shape[2] if self.is_initialized else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1


class PlainCache(DecodeCache):
    def __init__(self, windows: list[int | None], most: int):
        super().__init__(windows, most)
        self.layers = self.slabs = [PlainLayer(window) for window in windows]


def states(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, HEADS, columns, WIDTH)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def capacity(slab: LayerSlab) -> tuple[int, int]:
    """(rows, columns) that the slab has memory for."""
    assert slab.keys is not None
    assert slab.values is not None
    assert slab.keys.shape == slab.values.shape
    assert slab.keys.untyped_storage().nbytes() == slab.keys.numel() * slab.keys.element_size()
    return slab.keys.shape[0], slab.keys.shape[2]


def decode(slab: LayerSlab, columns: int) -> tuple[int, int]:
    """Append columns one by one; return the largest (rows, columns) held on the way."""
    rows, widest = capacity(slab)
    for seed in range(columns):
        slab.update(*states(slab.rows, 1, seed))
        rows, widest = max(rows, capacity(slab)[0]), max(widest, capacity(slab)[1])
    return rows, widest


class TestSizes:
    def test_one_row_alive_of_64_grows_alone(self):
        slab = LayerSlab(None, most=4096)
        slab.update(*states(8, 10))
        slab.repeat_rows(8)
        assert capacity(slab) == (64, 11 + SLACK)
        slab.move_rows(torch.tensor([0]), torch.tensor([40]), 1)
        assert capacity(slab) == (1, 11 + SLACK), "half of the rows gone: their memory is given back at once"
        # 75 columns, and each time they are full, twice one more than they are: 152, 306, 614, 1230.
        assert decode(slab, 990) == (1, 1230)
        assert slab.get_seq_length() == 1000

    def test_growing_leaves_dead_rows_behind(self):
        slab = LayerSlab(None, most=4096)
        slab.update(*states(64, 10))
        slab.move_rows(torch.tensor([], dtype=torch.long), torch.tensor([], dtype=torch.long), 40)
        assert capacity(slab) == (64, 10 + SLACK), "too few are gone to move the others"
        decode(slab, SLACK)
        assert capacity(slab)[0] == 64
        decode(slab, 1)
        assert capacity(slab)[0] == 40

    @pytest.mark.parametrize(("window", "most_columns"), [(16, 16 + SLACK), (400, 400 + 100)])
    def test_sliding_layer_keeps_its_window(self, window, most_columns):
        slab = LayerSlab(window, most=8192)
        slab.update(*states(2, 1000))
        slab.repeat_rows(3)
        assert capacity(slab) == (6, most_columns), "the prompt's columns before the window go with the prefill"
        assert decode(slab, 1200) == (6, most_columns)
        assert slab.get_seq_length() == 2200

    def test_never_more_than_the_most(self):
        slab = LayerSlab(None, most=100)
        slab.update(*states(2, 90))
        assert decode(slab, 10) == (2, 100)


@pytest.mark.parametrize("window", [None, 1, 5, 16])
def test_hands_out_what_a_plain_cache_does(window):
    """Pieces of a prompt, copies of its rows, rows that finish, and many steps: equal to the bit."""
    slab, plain = LayerSlab(window, most=1000), PlainLayer(window)
    random = np.random.default_rng(0)
    rows = 3

    def both(columns: int, seed: int) -> None:
        given = states(rows, columns, seed)
        for ours, theirs in zip(slab.update(*given), plain.update(*given), strict=True):
            assert torch.equal(ours, theirs)

    for seed, columns in enumerate((7, 30, 1)):
        both(columns, seed)
    rows *= 4
    slab.repeat_rows(4)
    plain.repeat_rows(4)
    for step in range(400):
        both(1, step)
        if step % 35 == 34 and rows > 1:
            finished = torch.from_numpy(random.permutation(rows) < max(1, rows // 4))
            rows -= int(finished.sum())
            holes = finished[:rows].nonzero().squeeze(1)
            movers = rows + (~finished[rows:]).nonzero().squeeze(1)
            slab.move_rows(holes, movers, rows)
            plain.move_rows(holes, movers, rows)
    assert rows == 1


@pytest.mark.parametrize("build", [tiny_exaone, tiny_qwen, tiny_gpt2])
def test_sampling_is_the_same_to_the_bit(build: Callable, monkeypatch: pytest.MonkeyPatch):
    """Rows end at all lengths, beyond several compactions of the sliding layers."""
    model = build()
    model.generation_config.eos_token_id = [2, 100, 200]
    requests = [PromptRequest(Prompt(id=str(n), messages=()), tuple(range(20, 20 + n))) for n in (2, 11, 30)]
    params = SamplingParams(group_size=6, max_new_tokens=200, seed=3)
    engine = TransformersEngine(model, build_tokenizer())
    ours = sample_groups(engine, requests, params)
    lengths = [len(response.token_ids) for group in ours for response in group.responses]
    assert len(set(lengths)) > 8
    assert max(lengths) > 2 * SLACK
    monkeypatch.setattr(engine_module, "DecodeCache", PlainCache)
    assert sample_groups(engine, requests, params) == ours
