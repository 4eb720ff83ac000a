"""Accuracy on held-out questions, through the same rollout actors and rewards as training."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agapo.chat import END_THINK, THINK, split_thinking
from agapo.evaluation.rendering import Renderer
from agapo.rollouts.engine import PromptRequest, SamplingParams
from agapo.rollouts.pool import RolloutPool
from agapo.rollouts.sampling import Judge, sample_and_score
from agapo.schema import Group, Mode, Prompt


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    accuracy: dict[str, float] = field(default_factory=dict)
    """By mode, and, where there are several domains, by `mode/domain`; 0 to 1. Questions without a verdict count as
    wrong."""
    groups: list[Group] = field(default_factory=list)
    tokens: int = 0
    """Tokens generated."""
    errors: int = 0
    """Responses whose reward met an error."""

    @property
    def reward(self) -> float:
        """The mean reward of the responses that have one; 0 where none has."""
        rewards = [r.reward for group in self.groups for r in group.responses if r.reward is not None]
        return sum(rewards) / max(1, len(rewards))

    @property
    def questions(self) -> dict[str, int]:
        """How many questions were asked, by mode and by `mode/domain`."""
        asked = [group.prompt for group in self.groups]
        return dict(Counter(name for prompt in asked for name in (prompt.mode, f"{prompt.mode}/{prompt.domain}")))

    @property
    def thinking(self) -> dict[str, float]:
        """By mode, the share of responses that think, 0 to 1: all should where the mode is reasoning, none else."""
        modes = dict.fromkeys(group.prompt.mode for group in self.groups)
        return {mode: _share_thinking([group for group in self.groups if group.prompt.mode == mode]) for mode in modes}


@dataclass(frozen=True)
class Evaluator:
    """Samples prompts and counts the correct ones."""

    pool: RolloutPool
    scorer: Judge
    render: Renderer
    params: SamplingParams
    chunk_prompts: int

    def accuracy(self, prompts: Sequence[Prompt], modes: Sequence[Mode]) -> Evaluation:
        """Return the greedy accuracy on `prompts`, asked in each of `modes`."""
        greedy = replace(self.params, temperature=0.0, group_size=1, top_p=1.0)
        asked = [replace(prompt, mode=mode) for mode in modes for prompt in prompts]
        groups = self.judge(asked, greedy)
        return _evaluation(groups, _by_mode_and_domain(groups, modes))

    def pass_at(self, prompts: Sequence[Prompt], mode: Mode, k: int) -> Evaluation:
        """Sample k responses a prompt as training does; `pass@k` and the mean accuracy, `pass@1`."""
        sampled = replace(self.params, group_size=k)
        groups = self.judge([replace(prompt, mode=mode) for prompt in prompts], sampled)
        solved = sum(any(group.verdicts) for group in groups) / len(groups)
        return _evaluation(groups, {f"pass@{k}": solved, "pass@1": _share_correct(groups)})

    def judge(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[Group]:
        """Return the scored groups of `prompts`, in order."""
        return [group for chunk in self.chunks(prompts, params) for group in chunk]

    def chunks(self, prompts: Sequence[Prompt], params: SamplingParams) -> Iterator[list[Group]]:
        """Yield the scored groups of each `chunk_prompts` of the prompts, in order, as they are there."""
        requests = [PromptRequest(prompt, self.render(prompt)) for prompt in prompts]
        return sample_and_score(self.pool, self.scorer, requests, params, chunk_prompts=self.chunk_prompts)


def _evaluation(groups: list[Group], accuracy: dict[str, float]) -> Evaluation:
    responses = [response for group in groups for response in group.responses]
    return Evaluation(
        accuracy=accuracy,
        groups=groups,
        tokens=sum(len(response.token_ids) for response in responses),
        errors=sum(response.reward_error is not None for response in responses),
    )


def _by_mode_and_domain(groups: Sequence[Group], modes: Sequence[Mode]) -> dict[str, float]:
    domains = list(dict.fromkeys(group.prompt.domain for group in groups))
    found: dict[str, float] = {}
    for mode in modes:
        asked = [group for group in groups if group.prompt.mode == mode]
        found[mode] = _share_correct(asked)
        for domain in domains if len(domains) > 1 else []:
            found[f"{mode}/{domain}"] = _share_correct([group for group in asked if group.prompt.domain == domain])
    return found


def _share_correct(groups: Sequence[Group]) -> float:
    responses = [response for group in groups for response in group.responses]
    return sum(response.correct is True for response in responses) / max(1, len(responses))


def _share_thinking(groups: Sequence[Group]) -> float:
    found = [thinks(response.text, group.prompt.mode) for group in groups for response in group.responses]
    return sum(found) / max(1, len(found))


def thinks(text: str, mode: Mode) -> bool:
    """Return whether a response thinks: it has thinking in it, or, in `non_reasoning` mode, so much as a tag of it."""
    if mode == "reasoning":
        return bool(split_thinking(text, mode)[0])
    return THINK in text or END_THINK in text


def mean_accuracy(accuracy: Mapping[str, float]) -> float:
    """Return the mean over modes, by which checkpoints are compared; the figures by domain are in those by mode."""
    by_mode = [value for name, value in accuracy.items() if "/" not in name]
    return sum(by_mode) / len(by_mode)
