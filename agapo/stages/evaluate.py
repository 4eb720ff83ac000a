"""Accuracy on held-out questions, through the same rollout actors and rewards as training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.rollouts.scoring import Scorer
from agapo.rollouts.supervisor import RolloutPool
from agapo.schema import Group, Mode, Prompt
from agapo.stages.rendering import Renderer


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    accuracy: dict[str, float] = field(default_factory=dict)
    """By mode, 0 to 1; questions without a verdict count as wrong."""
    groups: list[Group] = field(default_factory=list)
    tokens: int = 0
    """Tokens generated."""
    errors: int = 0
    """Responses whose reward met an error."""


@dataclass(frozen=True)
class Evaluator:
    """Samples prompts and counts the correct ones."""

    pool: RolloutPool
    scorer: Scorer
    render: Renderer
    params: SamplingParams
    chunk_prompts: int

    def accuracy(self, prompts: Sequence[Prompt], modes: Sequence[Mode]) -> Evaluation:
        """Return the greedy accuracy on `prompts`, asked in each of `modes`."""
        greedy = replace(self.params, temperature=0.0, group_size=1, top_p=1.0)
        asked = [replace(prompt, mode=mode) for mode in modes for prompt in prompts]
        groups = self.judge(asked, greedy)
        found = {mode: _share_correct([g for g in groups if g.prompt.mode == mode]) for mode in modes}
        return _evaluation(groups, found)

    def pass_at(self, prompts: Sequence[Prompt], mode: Mode, k: int) -> Evaluation:
        """Sample k responses a prompt as training does; `pass@k` and the mean accuracy, `pass@1`."""
        sampled = replace(self.params, group_size=k)
        groups = self.judge([replace(prompt, mode=mode) for prompt in prompts], sampled)
        solved = sum(any(group.verdicts) for group in groups) / len(groups)
        return _evaluation(groups, {f"pass@{k}": solved, "pass@1": _share_correct(groups)})

    def judge(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[Group]:
        """Return the scored groups of `prompts`, in order."""
        requests = [PromptRequest(prompt, self.render(prompt)) for prompt in prompts]
        chunks = dict(self.pool.generate(requests, params, chunk_prompts=self.chunk_prompts))
        groups = [group for number in sorted(chunks) for group in chunks[number]]
        judged = self.scorer.finish(groups, self.scorer.submit(groups).result())
        self.scorer.check(judged)
        return judged


def _evaluation(groups: list[Group], accuracy: dict[str, float]) -> Evaluation:
    responses = [response for group in groups for response in group.responses]
    return Evaluation(
        accuracy=accuracy,
        groups=groups,
        tokens=sum(len(response.token_ids) for response in responses),
        errors=sum(response.reward_error is not None for response in responses),
    )


def _share_correct(groups: Sequence[Group]) -> float:
    responses = [response for group in groups for response in group.responses]
    return sum(response.correct is True for response in responses) / max(1, len(responses))


def mean_accuracy(accuracy: Mapping[str, float]) -> float:
    """Return the mean over modes, by which checkpoints are compared."""
    return sum(accuracy.values()) / len(accuracy)
