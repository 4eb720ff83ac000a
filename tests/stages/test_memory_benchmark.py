"""`python -m benchmarks.memory` on the tiny shapes: what `agapo check` estimates is there, tensor by tensor."""

from pathlib import Path

import pytest

from agapo.model.loading import create_model, export_hf
from agapo.model.tokenizer import build_tokenizer
from benchmarks.memory import Case, measure

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    sizes = {"hidden_size": 96, "intermediate_size": 288, "layers": 4, "heads": 4, "kv_heads": 2, "head_dim": 32}
    export_hf(
        create_model(tokenizer, seed=0, sliding_window=256, max_position_embeddings=256, **sizes), tokenizer, folder
    )
    return str(folder)


@pytest.mark.parametrize(
    "case",
    [
        Case("learner"),
        Case("learner", shared=True),
        Case("learner", "bfloat16", zero_stage=3, ranks=2, checkpointing=True),
        Case("learner", "bfloat16", lora=16, checkpointing=True),
        Case("engine"),
    ],
    ids=lambda case: case.name,
)
def test_the_estimate_is_what_is_held(model: str, case: Case) -> None:
    assert measure(model, case).ratio == pytest.approx(1, abs=0.1)
