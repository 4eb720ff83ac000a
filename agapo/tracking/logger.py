"""Numbers and samples of each step, to JSON lines files, to Weights & Biases and to TensorBoard.

The files are the record: they are complete whatever becomes of W&B. Metric names have a group before the
slash (`reward/ group/ kl/ policy/ mismatch/ rollout/ time/ eval/`), which W&B turns into sections.

Left out: system metrics (W&B samples them by itself) and model uploads.
"""

import configparser
import logging
import netrc
import os
import secrets
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from agapo.recipe import Recipe
from agapo.schema import Group, Response
from agapo.tracking.board import Board
from agapo.tracking.files import json_line, last_step
from agapo.tracking.hooks import Hook, hooks_of
from agapo.tracking.run_directory import RunDirectory

WandbMode = Literal["online", "offline", "disabled"]

TABLE_COLUMNS = ("prompt_id", "mode", "prompt", "text", "reward", "correct", "advantage", "finish", "tokens")
"""Columns of the W&B rollout table."""

WANDB_MODES: dict[str, WandbMode] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
"""Values of the environment variable WANDB_MODE; `run` and `dryrun` are its old names."""

log = logging.getLogger("agapo")


class MetricsLogger:
    """Writes a run's metrics and rollouts. Trouble with W&B costs one warning and W&B, never the run."""

    def __init__(self, run: RunDirectory, recipe: Recipe, wandb_id: str | None, resume: bool) -> None:
        """Start logging.

        `wandb_id` is the id that a checkpoint carries (None for a new run), `resume` whether the run goes on.
        Offline, W&B cannot reopen a run: a second folder with the same id and later steps appears beside the
        first. Online, steps that W&B has seen already (after the checkpoint, before the crash) are passed over
        by W&B; they are the same steps.
        """
        paths = (run.metrics, run.rollouts, run.reward_errors, run.answers)
        self._files = [path.open("a", encoding="utf-8") for path in paths]
        self._metrics, self._rollouts, self._errors, self._answers = self._files
        self._hooks = hooks_of(recipe)
        self._board = Board(run.path / "tensorboard", last_step(run.metrics)) if recipe.tracking.tensorboard else None
        self._table_rows = recipe.tracking.rollout_rows
        self.wandb_mode = choose_wandb_mode(recipe.tracking.wandb)
        """Where W&B logs to; `disabled` imports no wandb."""
        self.wandb_id = wandb_id if self.wandb_mode == "disabled" else wandb_id or _new_id()
        """The id to keep in checkpoints, so that a resumed run is the same run in W&B."""
        self._wandb: Any = None
        if self.wandb_mode != "disabled":
            self._guarded("start", lambda: self._start_wandb(run, recipe, resume))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a step's numbers: one line in `metrics.jsonl`, with NaN and infinities as null, W&B and TensorBoard.

        Then the hooks are called.
        """
        self._write(self._metrics, [{"step": step, **metrics}])
        self._send(step, lambda: dict(metrics))
        if self._board:
            self._board.log(step, metrics)
        self._hooks = [hook for hook in self._hooks if _called(hook, step, dict(metrics))]

    def log_rollouts(
        self,
        step: int,
        groups: Sequence[Group],
        advantages: Sequence[Sequence[float]] | None = None,
        visits: Sequence[int] | None = None,
    ) -> None:
        """Write every response as a line of `rollouts.jsonl`; the first few also as a table in W&B.

        `advantages` is [N][G] as in `Batch`, None where there are none (dropped groups, evaluation); `visits`
        is [N], how often each group's prompt had been sampled before.
        """
        rows = list(_rollout_rows(step, groups, advantages, visits))
        self._write(self._rollouts, rows)
        shown = rows[: self._table_rows]
        if shown:
            self._send(step, lambda: {"rollout/samples": _table(shown)})
            if self._board:
                self._board.show(step, shown)

    def log_answers(self, step: int, name: str, groups: Sequence[Group]) -> None:
        """Write the answers of an evaluation, on the questions called `name`, as lines of `answers.jsonl`."""
        self._write(self._answers, [{"set": name, **row} for row in _rollout_rows(step, groups, None, None)])

    def log_errors(self, step: int, groups: Sequence[Group]) -> int:
        """Write each response whose scoring met an error to `reward_errors.jsonl`, with all the reward read.

        Returns their number.
        """
        rows = [_error_row(step, group, response) for group, response in _responses(groups) if response.reward_error]
        self._write(self._errors, rows)
        return len(rows)

    def close(self, exit_code: int = 0) -> None:
        """End the run in W&B as finished (0) or failed, and close the files."""
        self._guarded("finish", lambda: self._wandb.finish(exit_code=exit_code) if self._wandb else None)
        self._wandb = None
        if self._board:
            self._board.close()
        for file in self._files:
            file.close()

    def _write(self, file: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        file.write("".join(map(json_line, rows)))
        file.flush()

    def _send(self, step: int, values: Callable[[], dict[str, Any]]) -> None:
        if self._wandb is not None:
            self._guarded(f"log step {step}", lambda: self._wandb.log(values(), step=step))

    def _guarded(self, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self._wandb = None
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            log.warning("W&B could not %s (%s); going on with the files of the run directory", what, reason)

    def _start_wandb(self, run: RunDirectory, recipe: Recipe, resume: bool) -> None:
        import wandb

        # Where a judge's client is imported, it would advertise another product of theirs on every start.
        os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")
        online = self.wandb_mode == "online"
        self._wandb = wandb.init(
            project=recipe.tracking.project,
            name=recipe.run.name,
            job_type=recipe.stage,
            id=self.wandb_id,
            resume="allow" if resume and online else None,
            dir=run.path,
            config=recipe.model_dump(mode="json", by_alias=True),
            mode="online" if online else "offline",
            reinit="create_new",
            # A dead network must not hold up the end of a run; what was not sent stays on disk for `wandb sync`.
            settings=wandb.Settings(silent=True, console="off", init_timeout=60, finish_timeout=120),
        )


def _called(hook: Hook, step: int, metrics: Mapping[str, float]) -> bool:
    """Call a hook, and return whether it is to be called again: looking on never ends a run."""
    try:
        hook(step, metrics)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        name = getattr(hook, "__qualname__", repr(hook))
        log.warning("run.on_step: %s raised %s at step %d; it is not called again", name, reason, step)
        return False
    return True


def choose_wandb_mode(setting: Literal["auto", "online", "offline", "disabled"]) -> WandbMode:
    """Return where W&B logs to.

    `auto`: what WANDB_MODE says; without it online where a key is configured, else offline.
    """
    if setting != "auto":
        return setting
    from_environment = WANDB_MODES.get(os.environ.get("WANDB_MODE", "").lower())
    return from_environment or ("online" if _has_credentials() else "offline")


def _has_credentials() -> bool:
    """Look where W&B looks, without asking it: it would prompt, and starts a process."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = _wandb_settings()
    return bool(settings.get("api_key")) or _netrc_has(os.environ.get("WANDB_BASE_URL") or settings.get("base_url"))


def _wandb_settings() -> dict[str, str]:
    """Return what `wandb login` left in the user's settings file."""
    folder = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(Path(folder).expanduser() / "settings")
    except (OSError, configparser.Error):
        return {}
    return dict(parser["default"]) if parser.has_section("default") else {}


def _netrc_has(base_url: str | None) -> bool:
    """Return whether netrc has a key for the W&B server; the public one goes by two names."""
    hosts = [urlsplit(base_url).netloc] if base_url else ["api.wandb.ai", "api.forge.coreweave.com"]
    try:
        entries = netrc.netrc(_netrc_path())
    except (OSError, netrc.NetrcParseError):
        return False
    # A `default` entry is no W&B key: look only at the hosts that are named.
    return any(entries.hosts.get(host, ("", "", ""))[2] for host in hosts)


def _netrc_path() -> Path:
    return Path(os.environ.get("NETRC") or "~/.netrc").expanduser()


def _new_id() -> str:
    alphabet = string.ascii_lowercase + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(8))


def _responses(groups: Sequence[Group]) -> Iterator[tuple[Group, Response]]:
    return ((group, response) for group in groups for response in group.responses)


def _rollout_rows(
    step: int,
    groups: Sequence[Group],
    advantages: Sequence[Sequence[float]] | None,
    visits: Sequence[int] | None,
) -> Iterator[dict[str, Any]]:
    for n, group in enumerate(groups):
        visit = {} if visits is None else {"visit": visits[n]}
        for g, response in enumerate(group.responses):
            advantage = None if advantages is None else advantages[n][g]
            yield {"step": step, **prompt_row(group), **visit, **response_row(response), "advantage": advantage}


def prompt_row(group: Group) -> dict[str, Any]:
    """Return what a line of `rollouts.jsonl` or `answers.jsonl` says of the prompt."""
    own = group.prompt
    return {"prompt_id": own.id, "domain": own.domain, "mode": own.mode, "prompt": question(group)}


def response_row(response: Response) -> dict[str, Any]:
    """Return what it says of the response."""
    return {
        "text": response.text,
        "reward": response.reward,
        "correct": response.correct,
        "reward_parts": response.reward_parts,
        "reward_error": response.reward_error,
        "finish": response.finish,
        "tokens": len(response.token_ids),
        "weights_versions": [segment.weights_version for segment in response.segments],
    }


def _error_row(step: int, group: Group, response: Response) -> dict[str, Any]:
    scored = {"text": response.text, "finish": response.finish, "reward_parts": response.reward_parts}
    return {
        "step": step,
        "reward_error": response.reward_error,
        **prompt_row(group),
        "columns": group.prompt.columns,
        **scored,
    }


def question(group: Group) -> str:
    """Return the last user message of a group's prompt, the text that people recognise it by."""
    texts = (message.get("content") for message in reversed(group.prompt.messages) if message.get("role") == "user")
    return str(next(texts, "") or "")


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    import wandb

    data: list[Any] = [[row[column] for column in TABLE_COLUMNS] for row in rows]
    return wandb.Table(columns=list(TABLE_COLUMNS), data=data, allow_mixed_types=True)
