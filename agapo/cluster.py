"""The Ray cluster that every stage runs on: a laptop's, or an existing one."""

import json
import logging
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private import node as ray_node
from ray._private import services as ray_services
from ray._private import state as ray_state
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray.exceptions import LocalRayletDiedError, NodeDiedError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from agapo.errors import TransferFailed, UserError, first_line
from agapo.forking.driver import ENVIRONMENT, start_forks, stop_forks, worker_environment
from agapo.recipe.run import JOB
from agapo.signals import kept_from_ray

LEFT_BEHIND = [".venv", ".venv-vllm", "outputs", ".git", "wandb", "**/*.safetensors", "**/*.jsonl.gz", "**/*.parquet"]
"""What Ray's copy of the working directory goes without, where hosts do not share it."""

NO_TOKEN = "it wants its token: set RAY_AUTH_MODE=token, and bring the head's ~/.ray/auth_token to this host"

JOINING_S = 300.0
"""How long a run waits for the GPUs that it asks for: a cluster's hosts start one after the other, and one that is gone
may come back."""
START_S = 180.0
"""How long Ray's own processes may take to start: on a machine with much other work they take more than the half minute
that Ray gives them."""
LAG_S = 5.0
"""How late a shared file system may show a file to other hosts."""

SAMPLING_RELIEF = "lower rollout.chunk_prompts, evaluation.chunk_prompts or rollout.max_new_tokens"
"""What makes sampling take less memory."""


_real_get_node = ray_services.get_node


def _patient_get_node(*given: Any, **named: Any) -> Any:
    """Return what Ray knows of a host, once it knows of it."""
    until = time.monotonic() + START_S
    while True:
        try:
            return _real_get_node(*given, **named)
        except RuntimeError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _tame_ray() -> None:
    """Keep Ray from what its options do not govern.

    It prints a paragraph for every process that dies, where a run says it in a line; it answers SIGTERM by leaving
    at once, where a run has something to save; and it is impatient with its own start.
    """
    ray_services.get_node = _patient_get_node
    ray_worker.print_to_stdstream = lambda *_, **__: None
    ray_utils.set_sigterm_handler = lambda _: None


def _without_what_clusters_need() -> None:
    """Keep Ray on one machine from starting an autoscaler, a forwarder of logs and a web server: two seconds."""
    for name in ("start_monitor", "start_log_monitor", "start_api_server"):
        setattr(ray_node.Node, name, lambda *_, **__: None)


@contextmanager
def in_cluster(address: str | None) -> Iterator[None]:
    """Join the Ray cluster at `address`, or start one on this machine, and leave it at the end (one's own ends then).

    Where this process is in a cluster already, nothing is joined, started or left. Workers find `agapo`, `rewards` and
    `data` on this machine through PYTHONPATH, and on another cluster through Ray's copy of the working directory.
    Raises UserError when the cluster cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    try:
        _join(address)
        yield
    finally:
        _leave()
        stop_forks()


def _join(address: str | None) -> None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray lowers the priority of its workers; here they are the main work.
    os.environ.setdefault("RAY_worker_niceness", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        forks = start_forks(address)
        python = {"py_executable": forks.executable} if forks else {}
        # `local`, or Ray would join a cluster that it finds running on this machine.
        options |= {"address": "local", "include_dashboard": False}
        options |= {"runtime_env": {"env_vars": worker_environment()} | python}
        _without_what_clusters_need()
    else:
        options |= {"address": address, "runtime_env": _shipped()}
        _require_reachable(address)
    _tame_ray()
    try:
        with kept_from_ray():
            ray.init(**options)
    except Exception as error:  # a start that takes too long is a bare one
        reason = NO_TOKEN if "AuthToken" in str(error) else first_line(error)
        raise UserError(f"cluster.address: cannot start or join Ray ({reason})") from error


def _shipped() -> dict[str, Any]:
    """Return what Ray brings to the workers; of what a Ray job has brought already, Ray takes nothing a second time."""
    job = json.loads(os.environ.get(JOB, "{}")).get("runtime_env") or {}
    known = job.get("env_vars") or {}
    ours: dict[str, Any] = {"env_vars": {name: value for name, value in ENVIRONMENT.items() if name not in known}}
    if "working_dir" not in job:
        ours |= {"working_dir": str(Path.cwd()), "excludes": LEFT_BEHIND}
    return ours


def _require_reachable(address: str) -> None:
    """Ray waits for minutes for a head that is not there."""
    if address.startswith("ray://"):
        raise UserError(
            f"cluster.address: {address} is for Ray's client, which cannot look after a run; start it on a host of the "
            "cluster with cluster.address=auto, or by `ray job submit`"
        )
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(f"cluster.address: nothing answers at {address} ({error}); start Ray there first") from None


def require_gpus(wanted: float, keys: str, address: str | None) -> None:
    """Raise UserError where there are fewer GPUs than a stage asks for: Ray would wait for them for ever.

    Without an `address` this machine's are counted, which needs no cluster; else the cluster's, which must be joined,
    and whose hosts are waited for a while.
    """
    if not wanted:
        return
    found = local_gpus() if address is None else _cluster_gpus(wanted)
    if wanted > found:
        raise UserError(f"{keys}: {wanted:g} GPUs are asked for, and there are {found:g}; lower them")


def local_gpus() -> float:
    """Return the GPUs of this machine."""
    import torch  # the command line imports this module, and needs no torch for most of what it does

    return torch.cuda.device_count()


def _cluster_gpus(wanted: float) -> float:
    """Return the GPUs of the cluster, when there are enough or the wait is over."""
    until, said = time.monotonic() + JOINING_S, False
    while (found := ray.cluster_resources().get("GPU", 0.0)) < wanted and time.monotonic() < until:
        if not said:
            print(f"waiting for hosts: {wanted:g} GPUs are asked for, and there are {found:g} yet", flush=True)
            said = True
        time.sleep(1)
    return found


def require_shared(folder: Path, actors: Sequence[Any]) -> None:
    """Raise UserError where an actor's host does not see what this one writes to a run's `folder`.

    Ranks write their shares of a checkpoint there: each on a disk of its own, they would make no checkpoint, and the
    run would find out hours later. The actors have a method `sees`, which is this module's.
    """
    if len(cluster_nodes()) < 2:
        return
    mark = folder / f".{uuid.uuid4().hex}.seen"
    mark.touch()
    try:
        blind = [address for address in fetch([actor.sees.remote(mark) for actor in actors]) if address]
    finally:
        mark.unlink()
    if blind:
        raise UserError(
            f"run.output: the host {blind[0]}, on which a rank of the learner runs, does not see {folder} "
            f"({len(blind)} of {len(actors)} ranks do not); put it on a file system that all hosts share: "
            "run.output=/shared/outputs"
        )


def sees(mark: Path) -> str | None:
    """Return None where this host sees a file, after a moment perhaps; else its address."""
    until = time.monotonic() + LAG_S
    while not mark.exists():
        if time.monotonic() > until:
            return own_address()
        time.sleep(0.2)
    return None


def cluster_nodes() -> list[str]:
    """Return the ids of the hosts of the cluster that this process is in, its own first; none where it is in none."""
    if not ray.is_initialized():
        return []
    return sorted(
        (node["NodeID"] for node in ray.nodes() if node["Alive"]), key=lambda node: (node != own_node(), node)
    )


def own_node() -> str:
    """Return the id of the host that this process runs on."""
    return ray.get_runtime_context().get_node_id()


def own_address() -> str:
    """Return this host's address in the cluster."""
    return ray.util.get_node_ip_address()


def which_host() -> str:
    """Return a few words that tell this host from the others, to end a message with; none where it is alone."""
    return f" (on the host {own_address()})" if len(cluster_nodes()) > 1 else ""


def room_on_nodes(*, cpus: float, gpus: float) -> dict[str, int]:
    """Return how many more processes with so many CPUs and GPUs each host of the cluster has room for."""
    wanted = {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}
    # A little more, as shares of a core do not add up to it exactly.
    return {
        node: min(int(free.get(name, 0.0) / amount + 1e-6) for name, amount in wanted.items())
        for node, free in ray_state.available_resources_per_node().items()
    }


def _leave() -> None:
    if not ray.is_initialized():
        return
    if node := ray_worker._global_node:
        # They were started deaf to SIGTERM (`kept_from_ray`), for which Ray would wait a second each.
        kill = node.kill_all_processes
        node.kill_all_processes = lambda **_: kill(check_alive=False, allow_graceful=False)
    ray.shutdown()


def fetch(reference: Any, *, relief: str = SAMPLING_RELIEF, timeout_s: float | None = None) -> Any:
    """Return the value(s) of object reference(s); a UserError raised in a worker is raised here as itself.

    `relief` says what takes less memory, for a worker that has run out of its GPU's. Raises Ray's GetTimeoutError
    after `timeout_s`.
    """
    with _told_plainly(relief):
        return ray.get(reference, timeout=timeout_s)


def answer_of(call: "Future[Any]", *, relief: str = SAMPLING_RELIEF) -> Any:
    """Return what a call that is done (`ObjectRef.future`) has answered; errors are as `fetch` raises them."""
    with _told_plainly(relief):
        return call.result()


@contextmanager
def _told_plainly(relief: str) -> Iterator[None]:
    try:
        yield
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UserError | TransferFailed):
            raise type(cause)(*cause.args) from None
        if type(cause).__name__ == "OutOfMemoryError":
            raise UserError(f"out of GPU memory; {relief} ({str(cause).splitlines()[0]})") from None
        raise


def death_in(error: BaseException) -> str | None:
    """Return why a process of Ray's is gone, where that is what an error says; None for what a worker's code raised."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return how_it_died(cause) if isinstance(cause, RayError) else None


def how_it_died(error: BaseException) -> str:
    """Return why a process of Ray's is gone, in a few words, from what Ray says about it at length."""
    text = str(error)
    if isinstance(error, OutOfMemoryError) or "low on memory" in text or "OUT_OF_MEMORY" in text:
        return "Ray ended it since the host was out of memory"
    if isinstance(error, LocalRayletDiedError | NodeDiedError) or "node has" in text or "owner has died" in text:
        return "its host, or Ray on it, is gone"
    if exited := re.search(r"exit code (\d+)|exit_code=(\d+)", text):
        return f"it exited with status {exited[1] or exited[2]}"
    return "it was killed, as the system does where memory runs out"


def number_of(error: RayActorError, actors: Sequence[Any]) -> str:
    """Return which of the actors an error of Ray's is about, as a number from 0 on; `?` where it does not say."""
    return next((str(n) for n, actor in enumerate(actors) if actor._actor_id.hex() == error.actor_id), "?")


def free_endpoint() -> tuple[str, int]:
    """Return this host's address in the cluster and a port that is free, for ranks to meet at."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return own_address(), listener.getsockname()[1]


def threads_for(wanted: int, workers: int) -> int:
    """Return the CPU threads of each of `workers` processes: as wanted, or this machine's cores shared out."""
    return wanted or max(1, (os.cpu_count() or 1) // workers)
