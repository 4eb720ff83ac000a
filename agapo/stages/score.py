"""`agapo score`: try a recipe's rewards on responses from a file, before training with them.

A line is a JSON object with `completion` (or `text`), the columns that the rewards read, and, where they matter,
`prompt` (a text or a chat), `mode` (by default `reasoning` where there is a `</think>`), `domain` and `language`. Lines
with the same `prompt_id` are one group, for the terms that judge groups. A run's `reward_errors.jsonl` and
`rollouts.jsonl` or `answers.jsonl` can be given as they are: the columns of the latter two are looked up by prompt id,
in the recipe's data, or where an answer names one, in that part of `evaluation.sets`.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich.progress import track
from rich.table import Table

from agapo.chat import END_THINK
from agapo.curation.prompts import as_mode
from agapo.errors import UserError
from agapo.evaluation.questions import load_questions, load_suites, load_test_questions, read_set
from agapo.recipe import STAGES, DPORecipe, EvalRecipe, RLRecipe, SFTRecipe, load_recipe
from agapo.recipe.evaluation import VALIDATION
from agapo.recipe.read import recipe_stage
from agapo.recipe.reward import RewardConfig, require_terms
from agapo.rewarding.start import start_scorer
from agapo.schema import Group, Prompt, Response
from agapo.tracking.files import json_line, write_text_atomic
from agapo.tracking.progress import make_console

_ABOUT = ("completion", "text", "prompt", "prompt_id", "mode", "domain", "language", "columns")
_OF_A_RUN = ("step", "reward", "correct", "reward_parts", "reward_error", "finish", "tokens", "weights_versions")
"""What a run writes beside the response; a reward sees none of it."""
_SHOWN_ERRORS = 5
Judged = RLRecipe | SFTRecipe | DPORecipe | EvalRecipe
"""The recipes that have rewards."""
Asked = Mapping[tuple[str, str], Prompt]
"""The prompts of a recipe: by the set that they are asked in ('' for the data's own) and their id."""


def score_file(path: Path, overrides: list[str], responses: Path | None, out: Path | None = None) -> None:
    """Print scores and errors by reward term over the JSON lines of `responses`; write each one's to `out`.

    Raises UserError where every response met an error.
    """
    recipe = load_recipe(STAGES[recipe_stage(path)], path, overrides)
    assert isinstance(recipe, Judged)
    if responses is None:
        raise UserError("--responses: is required: a file of JSON lines with 'completion' and the reward's columns")
    if recipe.reward is None:
        raise UserError(f"{path}: has no 'reward' to try")
    groups, numbers = as_groups(read_rows(responses), recipe)
    judged = judge(recipe.reward, groups)
    if out:
        write_text_atomic(out, "".join(map(json_line, score_rows(judged, numbers))))
    _print_scores([term.name for term in recipe.reward.terms], judged, recipe.reward.correct_at)
    errors = Counter(response.reward_error for group in judged for response in group.responses)
    if None not in errors:
        raise UserError(f"--responses: {responses}: every response met an error; {errors.most_common(1)[0][0]}")


def judge(reward: RewardConfig, groups: Sequence[Group]) -> list[Group]:
    """Return the groups with their rewards. Raises UserError as a run would, before anything is scored."""
    require_terms(reward, {group.prompt.domain for group in groups})
    scorer = start_scorer(reward)
    try:
        console = make_console()
        shown = track(groups, "scoring", console=console, disable=not console.is_terminal)
        return list(scorer.judge(shown))
    finally:
        scorer.close()


def score_rows(judged: Sequence[Group], numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row a response, in the order of their `numbers`: `completion`, and what was found of it.

    That is `reward`, `correct`, `reward_parts`, `reward_error`.
    """
    rows = [_row(response) for group in judged for response in group.responses]
    return [row for _, row in sorted(zip(numbers, rows, strict=True), key=itemgetter(0))]


def _prompts(recipe: Judged) -> Asked:
    """Return every prompt of a recipe's data and of its sets; an evaluation's sets are its sources."""
    if isinstance(recipe, EvalRecipe):
        suites = load_suites(recipe.prompts, recipe.evaluation.test_size, "prompts") if recipe.prompts else {}
        return {(name, prompt.id): prompt for name, questions in suites.items() for prompt in questions}
    if isinstance(recipe, SFTRecipe):
        own = recipe.prompts
        asked = load_test_questions(own, recipe.evaluation.test_size, "prompts") if own else []
    else:
        found = load_questions(recipe.data, recipe.evaluation) if recipe.data else None
        asked = [*found.train, *found.validation, *found.test] if found else []
    known = {("", prompt.id): prompt for prompt in asked}
    if isinstance(recipe, RLRecipe):
        sets = {name: read_set(recipe, name) for name in recipe.evaluation.sets}
        known |= {(name, prompt.id): prompt for name, prompts in sets.items() for prompt in prompts}
    return known


def read_rows(path: Path) -> Iterator[tuple[int, str, Any]]:
    """Yield number, place and value of each line of a JSON-lines file.

    Raises UserError, naming the line, where one cannot be read.
    """
    if not path.is_file():
        raise UserError(f"--responses: {path}: no such file")
    with path.open(encoding="utf-8") as lines:
        numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise UserError(f"--responses: {path}: is empty")
    for number, line in numbered:
        yield number, f"{path}:{number}", _parsed(line, f"{path}:{number}")


def as_groups(rows: Iterable[tuple[int, str, Any]], recipe: Judged) -> tuple[list[Group], list[int]]:
    """Return the responses of rows, each with its number and its place (for errors), as groups by `prompt_id`.

    And the row's number of each response, group after group. `recipe`: whose prompts the lines of a run's
    `rollouts.jsonl` and `answers.jsonl` are looked up in. Raises UserError.
    """
    prompts = cache(partial(_prompts, recipe))
    found: dict[str, list[tuple[int, Group]]] = {}
    for number, place, row in rows:
        group = _group(row, place, number, prompts)
        members = found.setdefault(group.prompt.id, [])
        members.append((number, group))
        _require_same(members[0][1].prompt, group.prompt, place, members[0][0])
    groups = [
        Group(members[0][1].prompt, (), tuple(chain.from_iterable(group.responses for _, group in members)))
        for members in found.values()
    ]
    return groups, [number for members in found.values() for number, _ in members]


def _require_same(first: Prompt, other: Prompt, place: str, number: int) -> None:
    """Raise UserError where rows of one `prompt_id` are not of one prompt: a group is judged by its columns."""
    if first is other:
        return
    one, two = (
        {"prompt": item.messages, "domain": item.domain, "language": item.language, **item.columns}
        for item in (first, other)
    )
    # Rows from Python may have arrays, which have no one truth.
    if differing := [name for name in one | two if repr(one.get(name)) != repr(two.get(name))]:
        raise UserError(
            f"{place}: column '{differing[0]}' is another than in row {number}, which has the same prompt_id; give "
            "different prompts ids of their own"
        )


def _parsed(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise UserError(f"{place}: not JSON ({error})") from None


def _group(row: Any, place: str, number: int, prompts: Callable[[], Asked]) -> Group:
    if not isinstance(row, Mapping):
        raise UserError(f"{place}: should be an object with 'completion' and the reward's columns")
    completion = row.get("completion", row.get("text"))
    if not isinstance(completion, str):
        raise UserError(f"{place}: column 'completion' should be text; columns here: {', '.join(row) or 'none'}")
    response = Response((), completion, "length" if row.get("finish") == "length" else "stop")
    if "weights_versions" in row:
        return Group(_sampled_prompt(row, place, prompts()), (), (response,))
    prompt = row.get("prompt") or ""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    inner = row.get("columns") if isinstance(row.get("columns"), dict) else {}
    columns = {name: value for name, value in row.items() if name not in (*_ABOUT, *_OF_A_RUN)} | (inner or {})
    about = {name: row[name] for name in ("mode", "domain", "language") if row.get(name)}
    about["mode"] = as_mode(about.get("mode", "reasoning" if END_THINK in completion else "non_reasoning"), place)
    name = f"{row.get('prompt_id', f'line {number}')} {about['mode']}"
    return Group(Prompt(name, tuple(messages), columns=columns, **about), (), (response,))


def _sampled_prompt(row: Mapping[str, Any], place: str, prompts: Asked) -> Prompt:
    """Return the prompt of a line of `rollouts.jsonl` or `answers.jsonl`, which has its id alone.

    It is asked anew at each step, and, by an evaluation, in each set.
    """
    asked_in = row.get("set", VALIDATION)
    known = prompts.get(("" if asked_in == VALIDATION else asked_in, row.get("prompt_id", "")))
    if known is None:
        where = "the recipe's data" if asked_in == VALIDATION else f"the set '{asked_in}' of the recipe"
        raise UserError(
            f"{place}: the prompt '{row.get('prompt_id')}' is not in {where}; score a run's responses with the run's "
            "own recipe (recipe.yaml in its folder)"
        )
    name = " ".join(str(row.get(part)) for part in ("set", "prompt_id", "mode", "budget", "step", "visit"))
    return replace(known, id=name, mode=as_mode(row.get("mode", known.mode), place))


def _row(response: Response) -> dict[str, Any]:
    names = ("reward", "correct", "reward_parts", "reward_error")
    return {"completion": response.text, **{name: getattr(response, name) for name in names}}


def _print_scores(terms: Sequence[str], groups: Sequence[Group], correct_at: float) -> None:
    responses = [response for group in groups for response in group.responses]
    table = Table("reward", "samples", "mean", "full marks", "no verdict", title=f"{len(responses)} responses")
    for term in terms:
        table.add_row(term, *_figures([r.reward_parts[term] for r in responses if term in r.reward_parts]))
    table.add_row("all together", *_figures([response.reward for response in responses]))
    console = make_console()
    console.print(table)
    judged = [response.correct for response in responses if response.correct is not None]
    console.print(f"correct: {sum(judged)} of {len(judged)} (reward.correct_at {correct_at:g})", soft_wrap=True)
    errors = Counter(response.reward_error for response in responses if response.reward_error)
    console.print(f"errors: {sum(errors.values())}", soft_wrap=True)
    for error, times in errors.most_common(_SHOWN_ERRORS):
        console.print(f"  {times}× {error}", soft_wrap=True, markup=False)


def _figures(values: Sequence[float | None]) -> tuple[str, str, str, str]:
    known = [value for value in values if value is not None]
    mean = f"{sum(known) / len(known):.3f}" if known else "-"
    return str(len(values)), mean, str(sum(value >= 1 for value in known)), str(len(values) - len(known))
