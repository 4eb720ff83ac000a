"""Checkpoints: complete with every rank's files or not there, and read only by ranks that they fit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agapo.errors import UserError
from agapo.learner.checkpoint import (
    Saved,
    deepspeed_files,
    divided_alike,
    latest_checkpoint,
    save_checkpoint,
)
from agapo.learner.trl.callbacks import needed_files

FILES = deepspeed_files(3, 2, bfloat16=True)


def writes(*left_out: str, empty: str = "") -> Callable[[Path], Saved]:
    def save(folder: Path) -> Saved:
        for name in FILES:
            if name not in left_out:
                (folder / name).write_bytes(b"" if name == empty else name.encode())
        return Saved(2, 3, FILES)

    return save


def test_what_was_saved_is_read_again(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"step": step}, writes(), keep=2)
    found = latest_checkpoint(tmp_path)
    assert found and found.state == {"step": 3}
    assert (found.written.ranks, found.written.zero_stage) == (2, 3)
    assert found.written.files == {name: len(name) for name in FILES}
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-000002", "step-000003"]


@pytest.mark.parametrize("name", FILES)
def test_a_share_that_a_rank_has_not_written_leaves_the_checkpoint_before(tmp_path: Path, name: str) -> None:
    save_checkpoint(tmp_path, 1, {"step": 1}, writes(), keep=2)
    for save in (writes(name), writes(empty=name)):
        with pytest.raises(UserError, match=rf"{name} is not there, or empty \(1 of 4 .*hosts of all ranks share"):
            save_checkpoint(tmp_path, 2, {"step": 2}, save, keep=2)
    found = latest_checkpoint(tmp_path)
    assert found and found.state == {"step": 1}
    assert not (tmp_path / "step-000002").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_share_that_is_lost_or_cut_is_named_and_nothing_else_is_taken(tmp_path: Path, name: str) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"step": step}, writes(), keep=2)
    share = tmp_path / "step-000002" / name
    share.write_bytes(b"abc")
    with pytest.raises(UserError, match=rf"step-000002.*{name}: 3 of {len(name)} bytes.*\(step-000001\)"):
        latest_checkpoint(tmp_path)
    share.unlink()
    with pytest.raises(UserError, match=rf"step-000002.*{name} is not there.*\(step-000001\)"):
        latest_checkpoint(tmp_path)
    # What it advises is then accepted.
    (tmp_path / "latest").write_text("step-000001")
    found = latest_checkpoint(tmp_path)
    assert found and found.state == {"step": 1}


def test_one_that_does_not_say_what_belongs_to_it_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"step": 1}, writes(), keep=2)
    (path / "state.json").write_text(json.dumps({"step": 1}))
    with pytest.raises(UserError, match=r"does not say which files.*run\.name="):
        latest_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("then", "now", "alike"),
    [
        ((2, 3), (2, 3), True),
        ((1, 0), (4, 0), True),
        ((2, 3), (1, 3), False),
        ((1, 1), (2, 1), False),
        ((2, 2), (2, 1), False),
        ((2, 3), (2, 2), None),
        ((1, 0), (1, 1), None),
    ],
)
def test_who_can_read_what_which_ranks_wrote(
    tmp_path: Path, then: tuple[int, int], now: tuple[int, int], alike: bool | None
) -> None:
    save_checkpoint(tmp_path, 1, {}, lambda folder: Saved(*then, writes()(folder).files), keep=1)
    found = latest_checkpoint(tmp_path)
    assert found
    if alike is not None:
        assert divided_alike(found, ranks=now[0], zero_stage=now[1], section="learner") is alike
        return
    with pytest.raises(UserError) as problem:
        divided_alike(found, ranks=now[0], zero_stage=now[1], section="learner")
    assert f"learner.zero_stage={then[1]}" in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_trainer_needs_each_ranks_random_state_and_shard(tmp_path: Path) -> None:
    weights = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"}
    for name in weights:
        (tmp_path / name).touch()
    plain = set(needed_files(tmp_path, 7, 2, 0, bfloat16=False))
    random = {"rng_state_0.pth", "rng_state_1.pth"}
    assert plain == {"trainer_state.json", "scheduler.pt", "optimizer.pt"} | random | weights
    sharded = set(needed_files(tmp_path, 7, 2, 3, bfloat16=True))
    assert sharded - plain == {"latest", *(f"global_step7/{name}" for name in FILES)}
    assert plain - sharded == {"optimizer.pt"}
    assert needed_files(tmp_path / "none", 7, 1, 0, bfloat16=False).count("model.safetensors") == 1
