"""A small model as vLLM takes it. `make test-vllm` runs these tests, in .venv-vllm; elsewhere they are skipped."""

import os
from pathlib import Path

import pytest

from agapo.model.loading import export_hf
from agapo.model.tokenizer import build_tokenizer
from agapo.rollouts.engines.vllm.version import installed_version
from tests.builders import tiny_exaone

if installed_version():
    # Before torch's compiler is imported: on CPU it would take half a minute for the sampler.
    os.environ["TORCH_COMPILE_DISABLE"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if installed_version():
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="vLLM is not installed here: make setup-vllm test-vllm"))


@pytest.fixture(scope="session")
def vllm_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a random EXAONE 4, heads of 32."""
    folder = tmp_path_factory.mktemp("model") / "hf"
    model = tiny_exaone(head_dim=32)
    model.generation_config.eos_token_id = [2, *range(10, 270, 20)]
    export_hf(model, build_tokenizer(), folder)
    return folder
