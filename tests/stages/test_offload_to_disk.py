"""What is offloaded to a disk (`offload_folder`) lies there, and gives what offloading to the host's memory gives."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, multiprocessing

from agapo.errors import UserError
from agapo.learner.on_disk import DiskMemory, mapped
from agapo.learner.rl.settings import LearnerSettings
from agapo.model.loading import create_model, export_hf
from agapo.model.tokenizer import build_tokenizer
from agapo.recipe.learner import LearnerConfig
from agapo.recipe.model import ModelConfig
from tests.stages.test_invariance import OBJECTIVE, TEMPERATURE, free_port, make_examples
from tests.stages.test_sharded_loading import HOW, values

CASES = [(1, "float32"), (2, "bfloat16"), (3, "float32"), (3, "bfloat16")]
"""ZeRO stage and type of the weights."""


@pytest.mark.slow
def test_a_disk_gives_what_the_hosts_memory_gives_to_the_bit(tmp_path: Path):
    tokenizer = build_tokenizer()
    model = create_model(tokenizer, seed=0)
    torch.save(make_examples(model), tmp_path / "examples.pt")
    export_hf(model, tokenizer, tmp_path / "policy")
    # Where things lie is decided for a process: one pair of ranks for each.
    for disk in (False, True):
        multiprocessing.spawn(run_rank, args=(free_port(), tmp_path, disk), nprocs=2)
    for case in CASES:
        host, disk = (torch.load(tmp_path / f"{case}-{disk}.pt", weights_only=False) for disk in (False, True))
        for name in ("learned", "resumed"):
            assert all(torch.equal(disk[name][key], value) for key, value in host[name].items()), (case, name)
        assert set(host["on disk"].values()) == {0}, (case, host["on disk"])
        assert set(disk["on disk"].values()) == {1}, (case, disk["on disk"])
    assert not list((tmp_path / "disk").iterdir())


def test_a_disk_without_room_is_one_line(tmp_path: Path):
    disk = DiskMemory(tmp_path)
    with pytest.raises(UserError, match=r"offload_folder: .*; name a folder of a disk with room"):
        disk.zeros([1 << 50], torch.float32)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"offload_folder: .*file: "):
        DiskMemory(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_checkpoints_alone_are_mapped_and_let_go(tmp_path: Path):
    """What else a rank reads may be no file of its own, or an old one, which torch does not map."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    torch.save({}, old := tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    read = mapped(torch.load)
    with pytest.raises(RuntimeError, match="mmap"):
        read(old)
    assert torch.load(old) == {}
    optimizer.load_state_dict(read(tmp_path / "state.pt"))
    DiskMemory(tmp_path).move_moments(optimizer)
    assert "state.pt" not in Path("/proc/self/maps").read_text()
    assert in_file(optimizer.state[parameter]["exp_avg"], tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_copies_hold_the_numbers_and_are_in_a_file(dtype: torch.dtype, tmp_path: Path):
    numbers = torch.randn(3, 70_001).to(dtype)
    copy = DiskMemory(tmp_path).copy(numbers)
    assert torch.equal(copy, numbers)
    assert in_file(copy, tmp_path)
    assert not in_file(numbers, tmp_path)
    assert DiskMemory(tmp_path).copy(torch.zeros(0, 4)).shape == (0, 4)


def run_rank(rank: int, port: int, folder: Path, disk: bool) -> None:
    os.environ["DS_ACCELERATOR"] = "cpu"
    for case in CASES:
        found = run_case(case, rank, port, folder, disk)
        if rank == 0:
            torch.save(found, folder / f"{case}-{disk}.pt")
    torch.distributed.destroy_process_group()


def run_case(case: tuple[int, str], rank: int, port: int, folder: Path, disk: bool) -> dict[str, Any]:
    from agapo.learner.rl.rank import LearnerRank

    stage, dtype = case
    section = {"zero_stage": stage, "ranks": 2, "offload": True, "micro_batch_tokens": 512}
    place = folder / "disk"
    settings = LearnerSettings(
        str(folder / "policy"),
        OBJECTIVE,
        temperature=TEMPERATURE,
        model=ModelConfig.model_validate({"dtype": dtype}),
        learner=LearnerConfig.model_validate(section | ({"offload_folder": place} if disk else {})),
    )
    examples = torch.load(folder / "examples.pt", weights_only=False)
    learner = LearnerRank(settings, rank=rank, ranks=2, address="127.0.0.1", port=port)
    learner.load_reference()
    learner.reference_logprobs(examples)
    learner.update(examples, **HOW)
    learner.save(folder / f"checkpoint-{case}-{disk}")
    torch.distributed.barrier()
    learner.update(examples, **HOW)
    other = LearnerRank(settings, rank=rank, ranks=2, address="127.0.0.1", port=port)
    other.load(folder / f"checkpoint-{case}-{disk}")
    assert f"checkpoint-{case}" not in Path("/proc/self/maps").read_text(), "deleted later, it is to leave the disk"
    other.update(examples, **HOW)
    shares = {
        f"{name} {which}": sum(part.nbytes for part in parts if in_file(part, place))
        / sum(part.nbytes for part in parts)
        for name, one in (("learned", learner), ("resumed", other))
        for which, parts in offloaded(one.engine.optimizer, stage).items()
    }
    return {"learned": values(learner), "resumed": values(other), "on disk": shares}


def offloaded(optimizer: Any, stage: int) -> dict[str, list[Tensor]]:
    """Return what is to lie away from a GPU, by kind."""
    weights = optimizer.fp32_partitioned_groups_flat if stage == 3 else optimizer.single_partition_of_fp32_groups
    states = optimizer.optimizer.state.values()
    found = {
        "optimizer's weights": list(weights),
        "moments": [value for state in states for value in state.values() if value.ndim],
    }
    if stage == 3:
        found["weights"] = list(optimizer.fp16_partitioned_groups_flat)
        found["gradients"] = [optimizer.grad_partitions_flat_buffer]
    return found


def in_file(tensor: Tensor, folder: Path) -> bool:
    """Return whether a tensor's memory is mapped from a file of a folder."""
    address = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(number, 16) for number in line.split()[0].split("-"))
        if start <= address < end:
            return f"{folder}/agapo-" in line
    return False
