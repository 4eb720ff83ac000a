"""Which GPUs ranks and actors get: how they are divided, and that Ray does so, on GPUs that it only counts."""

import subprocess
import sys
from pathlib import Path

import pytest

from agapo.placement import Bundles, divide

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("ranks", "per_rank", "actors", "per_actor", "expected"),
    [
        (2, 0, 3, 0, Bundles((), (), ())),
        (2, 0.5, 2, 0.5, Bundles((1, 1), (0, 1), (0, 1))),
        (2, 0.3, 4, 0.3, Bundles((1, 1), (0, 1), (0, 1, 0, 1))),
        (2, 0.3, 1, 0.3, Bundles((1, 1), (0, 1), (0,))),
        # More actors than there is room beside ranks: they share GPUs of their own.
        (1, 0.5, 4, 0.5, Bundles((1, 1, 1), (0,), (0, 1, 1, 2))),
        # Ranks never share a GPU, whatever their share.
        (2, 0.5, 1, 1, Bundles((1, 1, 1), (0, 1), (2,))),
        (2, 1, 2, 2, Bundles((1, 1, 2, 2), (0, 1), (2, 3))),
        (2, 0, 2, 1, Bundles((1, 1), (), (0, 1))),
        (1, 1, 2, 0, Bundles((1,), (0,), ())),
    ],
)
def test_gpus_are_divided(ranks: int, per_rank: float, actors: int, per_actor: float, expected: Bundles) -> None:
    assert divide(ranks, per_rank, actors, per_actor) == expected


CODE = """
import ray
from agapo.errors import UserError
from agapo import placement
from agapo.placement import Placement

@ray.remote
class Process:
    def gpus(self):
        return ray.get_gpu_ids()

def asked(options):
    actors = [Process.options(**item).remote() for item in options]
    found = ray.get([actor.gpus.remote() for actor in actors])
    for actor in actors:
        ray.kill(actor)
    return found

ray.init(num_cpus=2, num_gpus=4, include_dashboard=False, logging_level="ERROR")
shared = Placement(ranks=2, gpus_per_rank=0.5, actors=2, gpus_per_actor=0.5)
ranks, actors = asked([shared.rank(0), shared.rank(1)]), asked([shared.actor(0), shared.actor(1)])
assert ranks == actors and ranks[0] != ranks[1], (ranks, actors)
# One that is started in another's place is on the same GPU.
assert asked([shared.actor(1)]) == [actors[1]]
shared.close()
apart = Placement(ranks=2, gpus_per_rank=1, actors=1, gpus_per_actor=2)
found = asked([apart.rank(0), apart.rank(1), apart.actor(0)])
assert sorted(gpu for gpus in found for gpu in gpus) == [0, 1, 2, 3], found
placement.PATIENCE_S = 1
try:
    Placement(ranks=1, gpus_per_rank=1)
except UserError as error:
    print(error)
placement.PATIENCE_S = 60
apart.close()
# What was given back can be had again.
Placement(actors=1, gpus_per_actor=4).close()
none = Placement(ranks=1, actors=1)
assert asked([none.rank(0), none.actor(0)]) == [[], []]
"""


def test_ray_gives_what_was_divided() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "no room for 1 × 1 GPU together on hosts with 4 GPUs" in done.stdout
