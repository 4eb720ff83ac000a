"""The GPU check itself, on the CPU at small shapes: every part comes to its end, with much installed or with little."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agapo.model.sizes import ModelSizes
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import correct, memory, sample
from benchmarks.gpu.batches import made_up_examples
from benchmarks.gpu.estimate import estimates
from benchmarks.gpu.learn import operations
from benchmarks.gpu.parts import PARTS, Outcome, Part, run_part
from benchmarks.gpu.records import Record, Recorder, markdown, read_records
from benchmarks.gpu.setting import SMALL, Setting

# Matrices this small lose by a second thread, and lose a lot on a busy machine.
torch.set_num_threads(1)

OURS = "ray deepspeed pydantic math_verify psutil rich trl datasets accelerate peft wandb matplotlib pandas"
"""What a machine with only torch, transformers and numpy lacks."""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(device="cpu", sizes=SMALL, record=Recorder(tmp_path / "part.jsonl"), scratch=tmp_path)


def _records(setting: Setting) -> list[Record]:
    return read_records(setting.scratch / "part.jsonl")


def test_correct_finds_all_ways_alike_in_float32(setting: Setting, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agapo.model.logprobs.CHUNK_ELEMENTS", 2 * 320)  # two of the eight tokens in a chunk
    correct.run(setting)
    exact = [record for record in _records(setting) if ", float32: " in record.case]
    assert len(exact) == 9
    assert all(record.figures["max abs"] < 1e-4 for record in exact)  # pyright: ignore[reportOperatorIssue]
    heads = [record.figures["head's gradient"] for record in exact if "chunked head" in record.case]
    assert len(heads) == 3 and all(0 < apart < 1e-5 for apart in heads)  # pyright: ignore[reportOperatorIssue]


def test_correct_sees_a_packed_row_whose_examples_see_each_other(setting: Setting, monkeypatch: pytest.MonkeyPatch):
    def counting_on(examples: list, device: str) -> list:
        batches = two_a_row(examples, device)
        for micro in batches:
            micro.position_ids.copy_(torch.arange(micro.position_ids.shape[1]).expand_as(micro.position_ids))
        return batches

    two_a_row = correct.two_a_row
    monkeypatch.setattr(correct, "two_a_row", counting_on)
    correct.run(setting)
    packed = [record for record in _records(setting) if "float32: learner packed – learner" in record.case]
    assert len(packed) == 3 and all(record.figures["max abs"] > 0.01 for record in packed)  # pyright: ignore[reportOperatorIssue]


def test_memory_measures_learning_and_sampling(setting: Setting):
    memory.run(setting)
    cases = [record.case for record in _records(setting)]
    assert sum("learn" in case for case in cases) == sum("sample" in case for case in cases) == 4
    sampled = next(record for record in _records(setting) if "sample 4 rows of 12" in record.case)
    # Keys and values in bfloat16, 4 layers, 2 heads of 8, 4 rows of 12 columns.
    assert sampled.figures["keys and values GiB"] == pytest.approx(2 * 2 * 4 * 2 * 8 * 4 * 12 / 2**30)


def test_sample_times_engine_and_generate(setting: Setting):
    sample.run(setting)
    assert len(_records(setting)) == 4
    assert all(record.figures["tokens/s"] > 0 for record in _records(setting))  # pyright: ignore[reportOperatorIssue]


@pytest.mark.slow
@pytest.mark.parametrize("part", [part for part in PARTS if part.name in ("learn", "run")], ids=lambda part: part.name)
def test_the_parts_that_start_ranks_run_in_processes_of_their_own(part: Part, tmp_path: Path):
    # Limits are a GPU's; a busy machine with two cores starts Ray in minutes.
    outcome = run_part(replace(part, limit_s=280), tmp_path, ["--small"])
    assert outcome.problem == ""
    cases = [f"{record.case} {record.note}" for record in read_records(tmp_path / f"{part.name}.jsonl")]
    wanted = {"learn": "16 tokens, DeepSpeed ZeRO-1", "run": "Ray, DeepSpeed, verifiers"}[part.name]
    assert any(wanted in case for case in cases), cases


def test_every_part_runs_where_only_torch_and_transformers_are(tmp_path: Path):
    code = f"""
import sys, pathlib
class Bare:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        absent = name.split(".")[0] in {OURS.split()!r}
        return None if absent else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path = [Bare(finder) for finder in sys.meta_path]
from benchmarks.gpu.parts import BY_NAME, PARTS, run_here
for part in (*PARTS, BY_NAME[0]):
    run_here(part, pathlib.Path({str(tmp_path)!r}), small=True, weights=None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "weights by broadcast" in (tmp_path / "transports.jsonl").read_text()
    assert "plain AdamW" in (tmp_path / "learn.jsonl").read_text()
    assert "in one process: ray, deepspeed" in (tmp_path / "run.jsonl").read_text()


def test_a_part_that_fails_says_why_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    broken = {"correct"}

    def fails(part: Part, out: Path, arguments: list[str], about: str) -> Outcome:
        Recorder(out / f"{part.name}.jsonl").add("a case", {"x": 1})
        return Outcome(part.name, 2.0, "OutOfMemoryError: too large" if part.name in broken else "", about)

    monkeypatch.setattr(gpu, "PARTS", [part for part in PARTS if part.name in ("correct", "memory")])
    monkeypatch.setattr(gpu, "run_part", fails)
    monkeypatch.setattr(sys, "argv", ["gpu", "--small", "--out", str(tmp_path)])
    assert gpu.main() == 1
    results = json.loads((tmp_path / "results.json").read_text())
    assert [part["problem"] for part in results["parts"]] == ["OutOfMemoryError: too large", ""]
    assert results["records"]["correct"] == results["records"]["memory"] != []
    assert "### correct (2 s; OutOfMemoryError: too large; 20" in (tmp_path / "results.md").read_text()
    assert "stopped: OutOfMemoryError: too large" in capsys.readouterr().out

    # Mended, and run again alone: what the other part has measured stays in the table.
    broken.clear()
    monkeypatch.setattr(sys, "argv", ["gpu", "--small", "--out", str(tmp_path), "--only", "correct"])
    assert gpu.main() == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(part["name"], part["problem"]) for part in results["parts"]] == [("correct", ""), ("memory", "")]
    assert results["records"]["memory"]


def test_a_failing_process_is_named_by_its_last_line(tmp_path: Path):
    (tmp_path / "correct.jsonl").mkdir()  # where the part would write
    outcome = run_part(PARTS[0], tmp_path, ["--small"])
    assert "IsADirectoryError" in outcome.problem
    assert "Traceback" in (tmp_path / "correct.stderr").read_text()


def test_weights_that_are_no_model_are_refused_first(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--small", "--weights", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "has no config.json" in done.stderr.splitlines()[-1]
    (tmp_path / "junk.gguf").write_bytes(b"junk")
    done = subprocess.run([*command[:-1], str(tmp_path / "junk.gguf")], capture_output=True, text=True)
    assert "is no GGUF file" in done.stderr.splitlines()[-1]


def test_a_part_that_hangs_is_stopped_at_its_limit(tmp_path: Path):
    outcome = run_part(Part("correct", "benchmarks.gpu.correct", limit_s=1), tmp_path, ["--small"])
    assert outcome.problem == "stopped after its 1 s"
    assert (tmp_path / "correct.stderr").exists()
    assert outcome.seconds < 30


def test_without_a_gpu_it_says_what_to_do():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--small" in done.stderr.splitlines()[-1]


def test_the_whole_should_take_under_nine_minutes():
    found = estimates()
    assert [item.name for item in found] == [part.name for part in PARTS]
    assert sum(item.seconds for item in found) < 9 * 60
    assert all(item.seconds < part.limit_s for item, part in zip(found, PARTS, strict=True))
    assert sum(part.limit_s for part in PARTS) < 10 * 60


def test_operations_of_a_step():
    sizes = ModelSizes(
        hidden=4, layers=2, intermediate=8, heads=2, kv_heads=1, head_dim=2, vocabulary=10, tied=True, context=64
    )
    (item,) = made_up_examples(8, 8, 10)  # 2 prompt tokens, 6 of the response
    linear = 2 * (2 * 4 * 4 + 2 * 4 * 2 + 3 * 4 * 8)
    assert operations(sizes, [item]) == 6 * linear * 8 + 6 * 2 * 4 * 8**2 + 6 * 10 * 4 * 6


def test_a_table_has_a_column_for_each_figure():
    table = markdown("part", [Record("a", {"x": 1.23456}), Record("b", {"y": None}, "no|t")])
    assert table.splitlines()[2:] == [
        "| case | x | y | note |",
        "|---|---|---|---|",
        "| a | 1.235 | – |  |",
        "| b | – | – | no\\|t |",
    ]
