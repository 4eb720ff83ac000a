"""`agapo score`: try a recipe's rewards on responses from a file, before training with them.

A line is a JSON object with `completion` (or `text`), the columns that the rewards read, and, where they matter,
`prompt` (a text or a chat), `mode` (by default `reasoning` where there is a `</think>`), `domain` and `language`. Lines
with the same `prompt_id` are one group, for the terms that judge groups. A run's `reward_errors.jsonl` and
`rollouts.jsonl` can be given as they are: the columns of the latter are looked up in the recipe's data by prompt id.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from rich.progress import track
from rich.table import Table

from agapo.chat import END_THINK
from agapo.errors import UserError
from agapo.evaluation.questions import load_questions, load_test_questions
from agapo.recipe import DPORecipe, RLRecipe, SFTRecipe, load_recipe
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


def score_file(path: Path, overrides: list[str], responses: Path | None, out: Path | None = None) -> None:
    """Print scores and errors by reward term over the JSON lines of `responses`; write each one's to `out`.

    Raises UserError where every response met an error.
    """
    recipe = load_recipe({"rl": RLRecipe, "sft": SFTRecipe, "dpo": DPORecipe}[recipe_stage(path)], path, overrides)
    assert isinstance(recipe, RLRecipe | SFTRecipe | DPORecipe)
    if responses is None:
        raise UserError("--responses: is required: a file of JSON lines with 'completion' and the reward's columns")
    if recipe.reward is None:
        raise UserError(f"{path}: has no 'reward' to try")
    groups = read_groups(responses, cache(partial(_prompts, recipe)))
    judged = judge(recipe.reward, groups)
    if out:
        write_text_atomic(out, "".join(map(json_line, score_rows(judged))))
    _print_scores([term.name for term in recipe.reward.terms], judged)
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


def score_rows(judged: Sequence[Group]) -> list[dict[str, Any]]:
    """Return a row a response: `completion`, `reward`, `correct`, `reward_parts`, `reward_error`."""
    return [_row(response) for group in judged for response in group.responses]


def _prompts(recipe: RLRecipe | SFTRecipe | DPORecipe) -> Mapping[str, Prompt]:
    """Return every prompt of a recipe's data, by its id."""
    if isinstance(recipe, SFTRecipe):
        own = recipe.prompts
        asked = load_test_questions(own, recipe.evaluation.test_size, "prompts") if own else []
    else:
        found = load_questions(recipe.data, recipe.evaluation) if recipe.data else None
        asked = [*found.train, *found.validation, *found.test] if found else []
    return {prompt.id: prompt for prompt in asked}


def read_groups(path: Path, prompts: Callable[[], Mapping[str, Prompt]]) -> list[Group]:
    """Return the responses of a JSON-lines file. Raises UserError naming the line that cannot be read.

    `prompts`: those of the recipe's data by id, for the lines of a run's `rollouts.jsonl`.
    """
    if not path.is_file():
        raise UserError(f"--responses: {path}: no such file")
    with path.open(encoding="utf-8") as lines:
        numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise UserError(f"--responses: {path}: is empty")
    rows = ((number, f"{path}:{number}", _parsed(line, f"{path}:{number}")) for number, line in numbered)
    return as_groups(rows, prompts)


def as_groups(rows: Iterable[tuple[int, str, Any]], prompts: Callable[[], Mapping[str, Prompt]] = dict) -> list[Group]:
    """Return the responses of rows, each with its number and its place (for errors), as groups by `prompt_id`."""
    found: dict[str, Group] = {}
    for number, place, row in rows:
        group = _group(row, place, number, prompts)
        known = found.setdefault(group.prompt.id, group)
        if known is not group:
            found[group.prompt.id] = Group(known.prompt, (), known.responses + group.responses)
    return list(found.values())


def _parsed(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise UserError(f"{place}: not JSON ({error})") from None


def _group(row: Any, place: str, number: int, prompts: Callable[[], Mapping[str, Prompt]]) -> Group:
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
    about.setdefault("mode", "reasoning" if END_THINK in completion else "non_reasoning")
    name = f"{row.get('prompt_id', f'line {number}')} {about.get('mode', '')}"
    return Group(Prompt(name, tuple(messages), columns=columns, **about), (), (response,))


def _sampled_prompt(row: Mapping[str, Any], place: str, prompts: Mapping[str, Prompt]) -> Prompt:
    """Return the prompt of a line of `rollouts.jsonl`, which has its id alone; it is asked anew at each step."""
    known = prompts.get(row.get("prompt_id", ""))
    if known is None:
        raise UserError(
            f"{place}: the prompt '{row.get('prompt_id')}' is not in the recipe's data; score a run's rollouts with "
            "the run's own recipe (recipe.yaml in its folder)"
        )
    name = f"{known.id} {row.get('mode')} {row.get('step')} {row.get('visit')}"
    return replace(known, id=name, mode=row.get("mode", known.mode))


def _row(response: Response) -> dict[str, Any]:
    names = ("reward", "correct", "reward_parts", "reward_error")
    return {"completion": response.text, **{name: getattr(response, name) for name in names}}


def _print_scores(terms: Sequence[str], groups: Sequence[Group]) -> None:
    responses = [response for group in groups for response in group.responses]
    table = Table("reward", "samples", "mean", "full marks", "no verdict", title=f"{len(responses)} responses")
    for term in terms:
        table.add_row(term, *_figures([r.reward_parts[term] for r in responses if term in r.reward_parts]))
    table.add_row("all together", *_figures([response.reward for response in responses]))
    console = make_console()
    console.print(table)
    errors = Counter(response.reward_error for response in responses if response.reward_error)
    console.print(f"errors: {sum(errors.values())}", soft_wrap=True)
    for error, times in errors.most_common(_SHOWN_ERRORS):
        console.print(f"  {times}× {error}", soft_wrap=True, markup=False)


def _figures(values: Sequence[float | None]) -> tuple[str, str, str, str]:
    known = [value for value in values if value is not None]
    mean = f"{sum(known) / len(known):.3f}" if known else "-"
    return str(len(values)), mean, str(sum(value >= 1 for value in known)), str(len(values) - len(known))
