"""How the questions of an evaluation are asked: greedily, several times, with less thinking; each answer once.

for each way of asking:   what answers.jsonl has already ──┐
                          the rest ──► actors ──► verdicts ─┴─► answers.jsonl, a chunk at a time
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from agapo.evaluation.answers import Answered, answered_in, asked_mark, keep, read_answered, rows_of, settled, tidy
from agapo.evaluation.evaluator import Evaluator
from agapo.model.marks import form_mark, weights_mark
from agapo.recipe import EvalRecipe
from agapo.recipe.reward import RewardConfig
from agapo.rollouts.engine import SamplingParams
from agapo.schema import Group, Mode, Prompt
from agapo.stages.running.system import sampling_params
from agapo.tracking import StepProgress

Suites = Mapping[str, Sequence[Prompt]]
"""The questions by the name of their source."""


@dataclass(frozen=True)
class Way:
    """One way of asking."""

    mode: Mode
    params: SamplingParams
    budget: int | None = None
    """Of the sweep; None: as `rollout` says."""


@dataclass(frozen=True)
class Question:
    """A question, to be asked in one way."""

    asked: str
    """What tells it from others in `answers.jsonl`."""
    suite: str
    prompt: Prompt
    way: Way


def ways_of(recipe: EvalRecipe) -> list[Way]:
    """Return the ways in which a recipe's questions are asked."""
    own, params = recipe.evaluation, sampling_params(recipe.rollout, recipe.run.seed)
    ways: list[Way] = []
    for mode in own.modes:
        if drawn := own.sampled.get(mode):
            asked = replace(params, group_size=own.samples, temperature=drawn.temperature, top_p=drawn.top_p)
        else:
            asked = replace(params, group_size=1, temperature=0.0, top_p=1.0)
        budgets = own.thinking_budgets if mode == "reasoning" else []
        ways.append(Way(mode, asked))
        ways += [Way(mode, replace(asked, thinking_budget=budget), budget) for budget in budgets]
    return ways


def model_of(recipe: EvalRecipe, model: str) -> list[object]:
    """Return what tells a model, and how its answers are computed, from others."""
    folder = Path(model)
    weights = weights_mark(folder)
    about = recipe.model
    return [weights or model, form_mark(folder), about.dtype, about.rope_fields, recipe.rollout.engine]


class Asking:
    """Asks every question in every way, and keeps each chunk's answers as soon as they are judged.

    A stopped evaluation goes on with the chunk that it was at. Chunks hold the same questions then, so that their
    answers are the same where the engine repeats itself.
    """

    def __init__(self, recipe: EvalRecipe, reward: RewardConfig, suites: Suites, model: str, path: Path):
        """`path`: `answers.jsonl`."""
        self._reward, self._path = reward, path
        marks, ways = model_of(recipe, model), ways_of(recipe)
        asked = [
            _question(marks, reward, suite, prompt, way)
            for way in ways
            for suite, prompts in suites.items()
            for prompt in prompts
        ]
        # A source may have a question twice.
        self._questions = {question.asked: question for question in asked}
        self._ways = ways
        self._answered = {one.asked: one for one in read_answered(path) if one.asked in self._questions}

    @property
    def total(self) -> int:
        """Questions, each as many times as there are ways."""
        return len(self._questions)

    @property
    def done(self) -> int:
        """Those that are answered and judged."""
        return len(self._answered)

    def run(self, evaluator: Evaluator, progress: StepProgress) -> list[Answered]:
        """Ask what is not answered yet; return all, in order. Raises Interrupted when a stop was asked for."""
        for way in self._ways:
            left = [one for one in self._questions.values() if one.way is way and one.asked not in self._answered]
            asked = iter(left)
            for chunk in evaluator.chunks([question.prompt for question in left], way.params):
                self._keep([(next(asked), group) for group in chunk])
                progress.update(self.done, {"reward/accuracy": self._accuracy(way)})
        tidy(self._path, self._questions)
        return [self._answered[mark] for mark in self._questions]

    def _keep(self, chunk: Sequence[tuple[Question, Group]]) -> None:
        rows = [
            row
            for one, group in chunk
            for row in rows_of(group, one.suite, one.asked, one.way.budget, settled(group, self._reward))
        ]
        keep(self._path, rows)
        self._answered |= {one.asked: one for one in answered_in(rows)}

    def _accuracy(self, way: Way) -> float:
        return fmean(one.accuracy for mark, one in self._answered.items() if self._questions[mark].way is way)


def _question(marks: Sequence[object], reward: RewardConfig, suite: str, prompt: Prompt, way: Way) -> Question:
    asked = replace(prompt, mode=way.mode)
    return Question(asked_mark(marks, suite, asked, way.params, reward, way.budget), suite, asked, way)
