"""Rows that several ranks share give what they give on one: log-probabilities, entropies and the gradient."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from agapo.errors import UserError
from agapo.learner.rl.batching import Example, MicroPlan, collate
from agapo.learner.rl.row_check import check_divided_rows, check_shared_prompts
from agapo.model.logprobs import LogProbModel
from agapo.model.sequence_parallel import ATTENTION, DividedRows, SequenceGroup
from agapo.recipe import RLRecipe, load_recipe
from tests.builders import tiny_exaone, tiny_qwen

LENGTHS = (23, 9, 14, 12)
PLANS = {
    "packed": ("packed", MicroPlan(((0,), (1, 3)))),
    "one sequence": ("packed", MicroPlan(((0,),))),
    "right": ("right", MicroPlan(((0,), (2,)))),
    "left": ("left", MicroPlan(((0,), (2,)))),
}
MODELS: dict[str, Callable[[], Any]] = {"windows": tiny_exaone, "tied": tiny_qwen}


def examples() -> list[Example]:
    draw = np.random.default_rng(0)
    made = []
    for number, length in enumerate(LENGTHS):
        prompt, tokens = np.split(draw.integers(3, 200, length).astype(np.int32), [5])
        zeros = np.zeros(len(tokens), np.float32)
        made.append(Example(prompt, tokens, zeros, np.ones(len(tokens), np.bool_), 0.0, 0.0, number))
    return made


def answers(build: Callable[[], Any], plan: str, group: SequenceGroup | None) -> dict[str, Tensor]:
    """Return log-probabilities, entropies and the rank's share of the gradient of a loss that takes whole responses."""
    model = build().to(torch.float64)
    if group:
        model.set_attn_implementation(ATTENTION)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    layout, rows = PLANS[plan]
    micro = collate(examples(), rows, layout)
    logprobs, entropies = LogProbModel(model.train(), group)(
        micro.input_ids, micro.position_ids, micro.attention_mask, micro.predictors, micro.targets, 0.7
    )
    sums = torch.zeros(len(micro.examples), dtype=logprobs.dtype).index_add(0, micro.tokens.response, logprobs)
    (sums.square().sum() + logprobs.exp().sum()).backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return {"logprobs": logprobs.detach(), "entropies": entropies.detach(), **gradients}


def rank_main(rank: int, ranks: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    group = SequenceGroup(ranks, rank)
    found = {(name, plan): answers(build, plan, group) for name, build in MODELS.items() for plan in PLANS}
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 4])
def shares(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Of ranks that share rows, each one's answers; four are more than there are key heads, and do not divide rows."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(rank_main, (request.param, folder), nprocs=request.param)
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("model", MODELS)
def test_ranks_that_share_rows_compute_what_one_does(shares: list[Any], model: str, plan: str) -> None:
    alone = answers(MODELS[model], plan, None)
    for share in shares:
        for name in ("logprobs", "entropies"):
            torch.testing.assert_close(share[model, plan][name], alone[name], rtol=0, atol=1e-6)
    for name in alone.keys() - {"logprobs", "entropies"}:
        whole = sum(share[model, plan].get(name, 0) for share in shares)
        torch.testing.assert_close(whole, alone[name], rtol=1e-6, atol=1e-6 * float(alone[name].abs().max()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["learner.ranks=3", "learner.sequence_parallel=2"], "sequence_parallel: 2 ranks a sequence do not divide 3"),
        (["learner.ranks=2", "learner.sequence_parallel=2", "learner.shared_prompts=true"], "not with shared_prompts"),
        (
            ["learner.ranks=2", "learner.sequence_parallel=2", "model.attention=eager"],
            "model.attention=sdpa, not eager",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(changes: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(RLRecipe, Path(__file__).parents[2] / "recipes/rl/tiny.yaml", changes)


def test_heads_that_cannot_be_divided_are_named() -> None:
    with pytest.raises(UserError, match=r"the sequences of Exaone4ForCausalLM \(its 4 heads are not to be"):
        check_divided_rows(tiny_exaone(), SequenceGroup(3, 0))


def test_what_depends_on_a_sequences_length_or_leaves_sdpa_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    long: Any = tiny_qwen()
    long.config.rope_parameters = {**long.config.rope_parameters, "rope_type": "longrope"}
    with pytest.raises(UserError, match="its RoPE is of type longrope, which depends on a sequence's length"):
        check_divided_rows(long, SequenceGroup(2, 0))
    monkeypatch.setattr(type(long), "_supports_sdpa", False)
    with pytest.raises(UserError, match="has no SDPA in transformers"):
        check_divided_rows(tiny_qwen(), SequenceGroup(2, 0))
    with pytest.raises(UserError, match=r"shared_prompts: .* has no SDPA in transformers"):
        check_shared_prompts(tiny_qwen())


def test_the_mask_of_a_row_is_of_bytes_and_made_once_a_kind() -> None:
    rows = DividedRows(SequenceGroup(2, 0), torch.arange(6)[None])
    assert rows.sees(3) is rows.sees(3) and rows.sees(None) is not rows.sees(3)
    mask = rows.sees(None)
    assert mask is not None and mask.dtype == torch.bool


def test_no_square_is_held_for_a_row_of_one_sequence() -> None:
    one = DividedRows(SequenceGroup(2, 0), torch.arange(6)[None], single=True)
    assert one.sees(None) is None and one.sees(6) is None
    window = one.sees(3)
    assert window is not None and window[0, 0].sum(dim=1).tolist() == [1, 2, 3, 3, 3, 3]
    two = replace(one, positions=torch.tensor([[0, 1, 2, 0, 1, 0]]), single=False).sees(None)
    assert two is not None and two[0, 0].sum(dim=1).tolist() == [1, 2, 3, 1, 2, 1]
