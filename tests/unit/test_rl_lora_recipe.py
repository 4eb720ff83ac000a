"""RL recipes with LoRA: what they refuse, and what `agapo check` says of them."""

from pathlib import Path

import pytest

from agapo.errors import UserError
from agapo.model.adapters import add_adapters
from agapo.model.loading import create_model
from agapo.model.tokenizer import build_tokenizer
from agapo.model.weights import weight_layout
from agapo.preflight import model as model_check
from agapo.preflight.check import check_recipe
from agapo.preflight.model import adapter_row, base_recipe
from agapo.recipe import RLRecipe, load_recipe
from agapo.recipe.lora import LoRAConfig

ROOT = Path(__file__).parents[2]
TINY = ROOT / "recipes/rl/tiny.yaml"
VLLM = ("rollout.engine=vllm", "learner.lora.alpha=32")


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("learner.lora.dropout=0.1",), "learner.lora: dropout 0.1: .* not one policy; set it to 0"),
        ((*VLLM, "learner.lora.rank=513"), "learner.lora.rank: 513 with vLLM, which takes 512 at most"),
        ((*VLLM, "rollout.gpus_per_actor=1"), "model.dtype: float32 with learner.lora and vLLM"),
        (("learner.lora.rnk=8",), "learner.lora.rnk"),
        ((*VLLM, "rollout.weight_transport=ipc"), "weight_transport: ipc, but vLLM takes adapters from the host"),
    ],
)
def test_what_cannot_work_is_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(RLRecipe, TINY, list(overrides))
    assert load_recipe(RLRecipe, TINY, [*VLLM, "learner.lora.rank=512"]).learner.lora


def test_the_check_counts_the_adapters(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    model = create_model(build_tokenizer(), seed=0)
    add_adapters(model, LoRAConfig(rank=8))
    count = sum(weight_layout(model, model.dtype).sizes)
    check_recipe(TINY, ["learner.lora.rank=8"], schema_only=False)
    assert f"{count:,} parameters of rank 8 (all-linear) are trained, and nothing else" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"learner\.lora\.targets: .*q_prj"):
        check_recipe(TINY, ["learner.lora.targets=[q_prj]"], schema_only=False)


def test_the_check_knows_published_sizes_where_the_hub_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, *_: object) -> None:
        raise UserError(f"model.path: cannot load the model '{path}'")

    monkeypatch.setattr(model_check, "load_config", refuse)
    base = base_recipe(load_recipe(RLRecipe, ROOT / "recipes/rl/qwen3_gsm8k.yaml"))
    # 28 layers; (inputs + outputs) of q, k, v, o, gate, up, down.
    sizes = (1024 + 2048) + 2 * (1024 + 1024) + (2048 + 1024) + 3 * (1024 + 3072)
    assert f"{28 * 16 * sizes:,} parameters" in adapter_row(LoRAConfig(rank=16), base)[1]
    with pytest.raises(UserError, match=r"learner\.lora\.targets: 'q_prj' is none of"):
        adapter_row(LoRAConfig(targets=["q_prj"]), base)
