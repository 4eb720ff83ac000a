"""On a GPU: the engine's log-probabilities are the learner's, for models of real shapes."""

import pytest
import torch

from benchmarks.gpu import correct
from benchmarks.gpu.records import Record, Recorder, read_records
from benchmarks.gpu.setting import REAL, Setting

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    folder = tmp_path_factory.mktemp("correct")
    path = folder / "correct.jsonl"
    correct.run(Setting(device="cuda", sizes=REAL, record=Recorder(path), scratch=folder))
    return read_records(path)


def test_in_float32_all_ways_agree(records: list[Record]):
    # TF32 and the order of sums are all that may differ: a wrong mask or position is off by whole nats.
    exact = [record for record in records if ", float32: " in record.case]
    assert len(exact) == 3 * len(REAL.shapes)
    for record in exact:
        assert record.figures["max abs"] < 5e-3, record  # pyright: ignore[reportOperatorIssue]


def test_bfloat16_is_off_by_rounding_alone(records: list[Record]):
    rounded = [record for record in records if ", bfloat16: " in record.case and "several rows" not in record.case]
    assert len(rounded) >= 5 * len(REAL.shapes)
    for record in rounded:
        assert record.figures["mean abs"] < 0.1, record  # pyright: ignore[reportOperatorIssue]
        assert abs(record.figures["bias"]) < 0.02, record  # pyright: ignore[reportArgumentType]
