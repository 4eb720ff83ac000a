"""Checkpoints written in the background: what is written is the moment's state, and none appears before it is whole."""

import errno
import threading
from pathlib import Path

import pytest
import torch

from agapo.errors import UserError
from agapo.learner import background
from agapo.learner.background import BackgroundWriter, copied
from agapo.learner.checkpoint import Saved, begin_checkpoint, complete_checkpoint, latest_checkpoint


def test_what_is_written_is_the_state_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, real = threading.Event(), background._write
    monkeypatch.setattr(background, "_write", lambda state, path: (gate.wait(60), real(state, path)))
    writer, weight = BackgroundWriter(), torch.ones(3)
    state = {"module": {"w": weight, "tied": weight}, "groups": [{"lr": 0.1, "exp": (weight[:2], None)}], "step": 7}
    writer.save(state, str(tmp_path / "one.pt"))
    weight.zero_()
    state["groups"][0]["lr"] = 0.2
    assert not writer.written(wait=False) and not (tmp_path / "one.pt").exists()
    gate.set()
    assert writer.written(wait=True) and writer.written(wait=False)
    found = writer.load(str(tmp_path / "one.pt"))
    assert found["module"]["w"].tolist() == found["module"]["tied"].tolist() == [1, 1, 1]
    assert found["groups"][0]["lr"] == 0.1 and found["groups"][0]["exp"][0].tolist() == [1, 1]
    assert found["step"] == 7


def test_a_tensor_of_two_names_is_copied_once_and_a_view_without_the_rest() -> None:
    whole = torch.arange(1000.0)
    found = copied({"a": whole, "b": whole, "part": whole[:2]})
    assert found["a"] is found["b"] and found["a"].data_ptr() != whole.data_ptr()
    assert found["part"].untyped_storage().nbytes() == 8


def test_what_cannot_be_written_is_said_and_the_checkpoint_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = BackgroundWriter()

    def save(folder: Path) -> Saved:
        writer.save({"w": torch.ones(2)}, str(folder / "w.pt"))
        return Saved(1, 0, ["w.pt"])

    def complete(step: int) -> None:
        unfinished = begin_checkpoint(tmp_path, step, {"step": step}, save)
        assert writer.written(wait=True)
        complete_checkpoint(unfinished, keep=2)

    complete(1)

    def full(_: object, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"w\.pt could not be written \(No space left"):
        patch.setattr(background, "_write", full)
        complete(2)
    with pytest.raises(UserError, match="could not be written"):
        writer.written(wait=True)
    writer._writing = []
    found = latest_checkpoint(tmp_path)
    assert found and found.state == {"step": 1}
    # One that nobody completed is gone with the next.
    complete(3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-000001", "step-000003"]
