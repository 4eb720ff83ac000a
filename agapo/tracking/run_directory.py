"""A run's folder: whose it is, what made it, where its files lie, and that one process at a time uses it.

    outputs/rl/tiny/
      recipe.yaml           the resolved recipe: every key, overrides and presets applied
      provenance.json       versions, git revision, command, seed, fingerprint; `history` has the later starts
      metrics.jsonl         one line of numbers a step
      rollouts.jsonl        one line a sampled response
      reward_errors.jsonl   one line an error met in scoring
      answers.jsonl         one line an answer of an evaluation during RL, `set` naming the questions
      timeline.json         what each process did when (RL; opens in Perfetto)
      summary.json          written at the end, with `"finished": true`
      learning_curve.png report.html
      checkpoints/ best/    what a resumed run needs; the best weights (with LoRA the best adapter)
      hf/ adapter/          the exported model; with LoRA the adapter that is merged in it
      wandb/

A directory belongs to one recipe: another recipe's run is never resumed silently. Which keys may change nevertheless
is in `agapo.recipe.keys`; `recipe.yaml` follows such a change, and `history` tells from which step it counts.
"""

import fcntl
import os
import socket
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

import yaml

from agapo.errors import UserError
from agapo.recipe import Recipe
from agapo.recipe.keys import HOW_LONG, Change, resolved
from agapo.tracking.board import require_board
from agapo.tracking.files import keep_steps_up_to, write_text_atomic
from agapo.tracking.hooks import hooks_of
from agapo.tracking.ownership import describe, is_finished, is_ours, is_over, next_step, stored_recipe, take_over
from agapo.tracking.progress import make_console
from agapo.tracking.provenance import append_history, write_provenance
from agapo.tracking.timeline import keep_timeline_up_to


class RunDirectory:
    """The folder of one run, held by this process until `close`. Make one with `RunDirectory.open`."""

    def __init__(self, path: Path, lock: TextIOWrapper, resumed: bool) -> None:
        self.path = path
        self.resumed = resumed
        """Whether the directory was there before, with a run of the same recipe."""
        self._lock = lock

    @classmethod
    def open(cls, recipe: Recipe, recipe_path: Path) -> "RunDirectory":
        """Make the recipe's run directory, or re-open it when it holds a run of the same recipe, and say what changed.

        Raises UserError when the folder holds something else, a run of another recipe, or when another
        process uses it.
        """
        path = recipe.run_directory
        # What cannot be looked on with is said before anything is loaded.
        hooks_of(recipe)
        require_board(recipe)
        _refuse_passing(path)
        _refuse_foreign(path)
        _make(path)
        lock = _take_lock(path)
        try:
            resumed = _record(path, recipe, recipe_path)
        except BaseException:
            lock.close()
            raise
        return cls(path, lock, resumed)

    def close(self) -> None:
        """Let other processes use the directory."""
        self._lock.close()

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def provenance(self) -> Path:
        """What made the run."""
        return self.path / "provenance.json"

    @property
    def metrics(self) -> Path:
        """One line of numbers a step."""
        return self.path / "metrics.jsonl"

    @property
    def rollouts(self) -> Path:
        """One line a sampled response."""
        return self.path / "rollouts.jsonl"

    @property
    def reward_errors(self) -> Path:
        """One line an error met in scoring."""
        return self.path / "reward_errors.jsonl"

    @property
    def answers(self) -> Path:
        """One line an answer of an evaluation."""
        return self.path / "answers.jsonl"

    @property
    def timeline(self) -> Path:
        """What each process did when, in Chrome's trace-event format."""
        return self.path / "timeline.json"

    @property
    def summary(self) -> Path:
        """The result, written at the end."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """The run as a page."""
        return self.path / "report.html"

    @property
    def curve(self) -> Path:
        """The learning curve, a picture."""
        return self.path / "learning_curve.png"

    @property
    def checkpoints(self) -> Path:
        """Folder of what a resumed run needs."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """Folder of the best weights on the validation questions."""
        return self.path / "best"

    @property
    def hf(self) -> Path:
        """Folder of the exported model (`recipe.hf_directory`)."""
        return self.path / "hf"

    @property
    def adapter(self) -> Path:
        """Folder of the LoRA adapter that the exported model has merged, as PEFT writes it."""
        return self.path / "adapter"

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return is_finished(self.path)

    def truncate_after(self, step: int) -> None:
        """Drop what was logged after `step`, so that a run resumed from that checkpoint has each step once.

        With no checkpoint to resume from, `truncate_after(-1)` drops everything.
        """
        for path in (self.metrics, self.rollouts, self.reward_errors, self.answers):
            keep_steps_up_to(path, step)
        keep_timeline_up_to(self.timeline, step)


def _refuse_passing(path: Path) -> None:
    """A job that brings its working directory runs in Ray's copy of it, which Ray deletes some time after the job."""
    if "working_dir_files" in path.parts:
        raise UserError(
            f"run.output: {path.parent} lies in Ray's copy of the working directory, which does not outlive the job; "
            "name a folder that stays, and that all hosts see: run.output=/shared/outputs"
        )


def _refuse_foreign(path: Path) -> None:
    """A folder with things in it but no run is somebody's: nothing is written there."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; give the run another place with run.name=… or run.output=…")
    content = sorted(item.name for item in path.iterdir() if not is_ours(item.name)) if path.exists() else []
    if content and not (path / "provenance.json").exists():
        raise UserError(
            f"{path}: holds '{content[0]}' but no run; give the run another name with run.name=…, or empty the folder"
        )


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot make the run directory: {error.strerror}; set run.output=…") from None


def _take_lock(path: Path) -> TextIOWrapper:
    """Hold `.lock` as long as the returned file is open; the system lets go when the process ends, however it ends."""
    try:
        lock = (path / ".lock").open("a+")
    except OSError as error:
        raise UserError(f"{path}: cannot be written to: {error.strerror}; set run.output=…") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        lock.close()
        raise UserError(
            f"{path}: is in use by {holder}; wait for it, stop it, or name a new run with run.name=…"
        ) from None
    except OSError:
        # Some cluster file systems have no locks. Refusing to run there would be worse than going without.
        return lock
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()
    return lock


def _record(path: Path, recipe: Recipe, recipe_path: Path) -> bool:
    """Write recipe and provenance; return whether there was a run of the same recipe already."""
    # A directory without provenance is new: nothing else has been written there yet.
    changes = take_over(path, recipe)
    content = resolved(recipe)
    if changes is None:
        write_provenance(path, recipe, recipe_path)
    else:
        if is_over(path, recipe):
            # Fewer steps than it has made, or fewer tokens, change nothing.
            changes, made = [], stored_recipe(path)
            content |= {key: made[key] for key in HOW_LONG if key in made and key in content}
        step = next_step(path)
        append_history(path, recipe, recipe_path, changes, step)
        _say(changes, step)
    write_text_atomic(path / "recipe.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return changes is not None


def _say(changes: Sequence[Change], step: int | None) -> None:
    if changes:
        when = f"from step {step} on" if step else "from here on"
        text = f"{when}: {describe(changes, most=len(changes))} (noted in provenance.json)"
        make_console().print(text, soft_wrap=True, highlight=False, markup=False)
