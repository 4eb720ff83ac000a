"""Where an RL run is: what a checkpoint holds of the main loop, and how it goes on from there."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from agapo.evaluation.evaluator import Evaluation
from agapo.learner.checkpoint import latest_checkpoint
from agapo.learner.rl.group import LearnerGroup
from agapo.recipe import RLRecipe
from agapo.recipe.reward import RewardConfig
from agapo.rollouts.engine import PromptRequest
from agapo.rollouts.waiting import Begun, Waiting, load_waiting
from agapo.schema import Group
from agapo.stages.running.system import sampling_params
from agapo.tracking import RunDirectory

WAITING = "waiting.pkl"
"""In a checkpoint of a run that samples ahead: what was begun and not learned from (`agapo.rollouts.waiting`)."""
DOUBTS_AFTER = 5
"""Steps after which a verdict that nothing has reached, and responses that are mostly cut, are pointed out."""


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
    keep_rate: float = 1.0
    """Share of the sampled groups that was kept, of late."""
    tokens: int = 0
    reward_errors: int = 0
    wall_s: float = 0.0
    wandb_id: str | None = None
    evaluated: int = -1
    """The last step that was evaluated."""
    best_accuracy: float = -1.0
    best_reward: float = 0.0
    best_step: int = -1
    verdicts: dict[str, list[float]] = field(default_factory=dict)
    """The lowest and the highest value that the verdict's term gave a sampled response, by domain."""
    responses: int = 0
    cut: int = 0
    """Of the sampled `responses`, those that were cut at `rollout.max_new_tokens`."""
    before: dict[str, float] = field(default_factory=dict)
    start: dict[str, float] = field(default_factory=dict)
    """What the starting model does when sampled, by mode: pass@k, pass@1, and the mean of each reward term."""

    sets: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """Accuracy on each of `evaluation.sets` by mode, `before` RL and `after`: of the weights that would be exported."""

    def note_sets(self, measured: Mapping[str, Evaluation], *, exported: bool) -> None:
        """Take note of what was measured on the sets; `exported`: of the weights that would be."""
        for name, found in measured.items():
            own = self.sets.setdefault(name, {"questions": {**found.questions}, "before": found.accuracy})
            if exported:
                own["after"] = found.accuracy

    def note_kept(self, kept: int, groups: int) -> None:
        """Take note of how many of a step's groups were kept; a step counts half of the one after it."""
        self.keep_rate = (self.keep_rate + kept / max(1, groups)) / 2

    def note_responses(self, groups: Sequence[Group], reward: RewardConfig) -> None:
        """Take note of the values that the verdict's term gave the groups' responses, and of those that were cut."""
        for group in groups:
            self.responses += len(group.responses)
            self.cut += sum(response.finish == "length" for response in group.responses)
            domain = group.prompt.domain
            parts = [response.reward_parts.get(reward.verdict_for(domain)) for response in group.responses]
            values = [*self.verdicts.get(domain, ()), *(value for value in parts if value is not None)]
            if values:
                self.verdicts[domain] = [min(values), max(values)]


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


def begun_before(
    run: RunDirectory,
    recipe: RLRecipe,
    progress: Progress,
    requests: Callable[[int], PromptRequest],
    announce: Callable[[str], None],
) -> Begun | None:
    """Return what the newest checkpoint holds of prompts that were begun and not learned from, if anything.

    What the recipe would not sample so any more, or not so early, or not there (`requests` has what the stream gives at
    a position), is sampled again; a line says so.
    """
    checkpoint = latest_checkpoint(run.checkpoints)
    if checkpoint is None or WAITING not in checkpoint.written.files:
        return None
    begun, kept = load_waiting(checkpoint.path / WAITING), []
    reasons: Counter[str] = Counter()
    for item in begun.waiting:
        if begun.params != sampling_params(recipe.rollout, recipe.run.seed):
            reasons["how the recipe samples (rollout.max_new_tokens and the like) is another now"] += 1
        elif not fresh_enough(item, recipe, progress, begun.asked):
            reasons["rollout.max_staleness is another now"] += 1
        elif item.request != requests(item.position):
            reasons["the data has other prompts there now"] += 1
        else:
            kept.append(item)
    for reason, again in reasons.items():
        announce(f"{again} of {len(begun.waiting)} prompts that the checkpoint holds are sampled again: {reason}")
    return replace(begun, waiting=tuple(kept))


def fresh_enough(item: Waiting, recipe: RLRecipe, progress: Progress, asked: int) -> bool:
    """Return whether no token of a prompt will be staler than the bound where it is learned from.

    The next step takes the prompts before `asked`, and `prompts_per_step` at least, as each step after it does: so the
    prompt is learned from after so many steps at the latest.
    """
    allowed, a_step = recipe.rollout.max_staleness, recipe.algorithm.updates_per_batch
    first = max(asked, progress.cursor + recipe.prompts_per_step)
    steps = 0 if item.position < first else 1 + (item.position - first) // recipe.prompts_per_step
    oldest = progress.updates if item.oldest is None else item.oldest
    return allowed > 0 and progress.updates + steps * a_step - oldest <= allowed * a_step


def doubts(progress: Progress, recipe: RLRecipe) -> list[str]:
    """Return what there is to say of how responses are judged, where that may be why accuracy is low."""
    return [text for text in (unreached(progress, recipe.reward.correct_at), mostly_cut(progress, recipe)) if text]


def mostly_cut(progress: Progress, recipe: RLRecipe) -> str:
    """Return what there is to say where more than half of the responses were cut; else nothing."""
    if 2 * progress.cut <= progress.responses:
        return ""
    counts = "count as wrong, whatever they say" if recipe.reward.truncated == "wrong" else "are not learned from"
    return (
        f"{progress.cut / progress.responses:.0%} of the responses so far were cut at rollout.max_new_tokens "
        f"{recipe.rollout.max_new_tokens}, and {counts}; raise it, or ask for shorter answers"
    )


def unreached(progress: Progress, correct_at: float) -> str:
    """Return what there is to say where no response of a domain was correct, although values differ; else nothing.

    Values of 0 alone are those of a model that is not right yet; any others, those below 0 too, are of a shaped reward.
    """
    never = {
        domain: highest
        for domain, (lowest, highest) in progress.verdicts.items()
        if highest < correct_at and (lowest or highest)
    }
    if not never:
        return ""
    some = len(never) < len(progress.verdicts)
    where = f" in the domain{'s' * (len(never) > 1)} {', '.join(never)}" if some else ""
    return (
        f"no response{where} has counted as correct so far: the verdict's highest value is {max(never.values()):.4g}, "
        f"and reward.correct_at is {correct_at:g}; accuracy says nothing{' there' if some else ''}, and every group "
        "counts as all wrong. A shaped reward wants a run of its own with another reward.correct_at, or "
        "algorithm.all_wrong_penalty=0"
    )
