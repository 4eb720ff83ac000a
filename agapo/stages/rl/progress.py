"""Where an RL run is: what a checkpoint holds of the main loop, and how it goes on from there."""

from dataclasses import dataclass, field, fields

from agapo.learner.checkpoint import latest_checkpoint
from agapo.learner.rl.group import LearnerGroup
from agapo.tracking import RunDirectory


@dataclass
class Progress:
    """Where the run is: all that the main loop needs to go on, as JSON in each checkpoint."""

    step: int = 0
    """Finished steps."""
    cursor: int = 0
    """Prompts taken from the stream."""
    updates: int = 0
    """Optimizer updates: the version of the weights."""
    clipped_updates: int = 0
    agreed: int = 0
    """Steps at which engine and learner were found to agree."""
    tokens: int = 0
    reward_errors: int = 0
    wall_s: float = 0.0
    wandb_id: str | None = None
    evaluated: int = -1
    """The last step that was evaluated."""
    best_accuracy: float = -1.0
    best_reward: float = 0.0
    best_step: int = -1
    highest_verdict: float | None = None
    """The highest value that the verdict's term gave a sampled response."""
    before: dict[str, float] = field(default_factory=dict)
    start: dict[str, float] = field(default_factory=dict)
    """What the starting model does when sampled, by mode: pass@k, pass@1, and the mean of each reward term."""


def resume(run: RunDirectory, learner: LearnerGroup) -> Progress:
    """Put the newest checkpoint's weights into the learner; return where the run is. Without one, the start."""
    checkpoint = latest_checkpoint(run.checkpoints)
    if checkpoint is None:
        run.truncate_after(-1)
        return Progress()
    learner.load(checkpoint)
    known = {item.name for item in fields(Progress)}
    progress = Progress(**{name: value for name, value in checkpoint.state.items() if name in known})
    run.truncate_after(progress.step)
    return progress


def unreached(progress: Progress, correct_at: float) -> str:
    """Return what there is to say where no sampled response was correct, although some got something; else nothing."""
    highest = progress.highest_verdict
    if highest is None or highest >= correct_at or highest <= 0:
        return ""
    return (
        f"no response has counted as correct so far: the verdict's highest value is {highest:.4g}, and "
        f"reward.correct_at is {correct_at:g}; accuracy says nothing, and every group counts as all wrong. A "
        "shaped reward wants a run of its own with another reward.correct_at, or algorithm.all_wrong_penalty=0"
    )
