"""On-policy pairs: sample each prompt several times, judge the responses, and decide which is preferred to which.

    prompts ──► rollout actors ──► verifier workers ──► responses.jsonl ──policy──► pairs.jsonl, pairs.json, pairs.png

A chunk of prompts is either written whole or sampled again, and what it samples does not depend on the moment, so
sampling that was stopped goes on.
"""

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from agapo.curation.pairs import (
    KINDS,
    Paired,
    concise_pairs,
    pair_up,
    preferred_pairs,
    reused,
    row_prompt,
)
from agapo.curation.rows import PairRow, ResponseRow, is_row, read_rows
from agapo.errors import UserError
from agapo.evaluation.rendering import Renderer
from agapo.recipe import DPORecipe
from agapo.recipe.pairs import PairsConfig
from agapo.rollouts.engine import PromptRequest
from agapo.rollouts.pool import RolloutPool
from agapo.rollouts.sampling import Judge, sample_and_score
from agapo.schema import Group, Prompt, Response, Segment
from agapo.stages.running.start import start_recipe
from agapo.stages.running.system import sampling_params
from agapo.tracking import RunDirectory, StepProgress, read_json, write_json_atomic
from agapo.tracking.files import json_line, read_json_lines, write_text_atomic
from agapo.tracking.progress import print_table, printable
from agapo.tracking.report import pairs_histogram

Taken = Sequence[tuple[Prompt, int]]
"""Prompts to sample, each with how often it was asked before."""


def responses_file(folder: Path) -> Path:
    """The sampled responses of a run: one a line, judged, with the tokens that were sampled."""
    return folder / "responses.jsonl"


def pairs_file(folder: Path) -> Path:
    """The pairs of a run: one a line, as texts and as tokens."""
    return folder / "pairs.jsonl"


def sample_responses(
    recipe: DPORecipe, run: RunDirectory, taken: Taken, render: Renderer, pool: RolloutPool, scorer: Judge
) -> list[Group]:
    """Return the judged groups of the prompts, in order; what an earlier process has written is not sampled again."""
    path, own = responses_file(run.path), recipe.rollout
    known = _read_groups(path, taken, render, own.group_size)
    chunks = [taken[start : start + own.chunk_prompts] for start in range(0, len(taken), own.chunk_prompts)]
    done = [chunk for chunk in chunks if all(_key(*item) in known for item in chunk)]
    left = [chunk for chunk in chunks if chunk not in done]
    if left:
        # Without the parts of a chunk that is sampled again, and what was torn.
        known = {_key(*item): known[_key(*item)] for chunk in done for item in chunk}
        write_text_atomic(path, "".join(line for key, group in known.items() for line in _lines(group, key[2])))
        with StepProgress(len(chunks), len(done), name="sample", log_every=20) as view:
            view.announce(
                f"sampling {len(taken)} prompts × {own.group_size} responses"
                + (f", of which {len(known)} prompts are done" if known else "")
            )
            params = sampling_params(own, recipe.run.seed)
            requests = [PromptRequest(prompt, render(prompt), visit) for chunk in left for prompt, visit in chunk]
            judged = sample_and_score(pool, scorer, requests, params, chunk_prompts=own.chunk_prompts)
            for chunk, groups in zip(left, judged, strict=True):
                with path.open("a", encoding="utf-8") as file:
                    for (prompt, visit), group in zip(chunk, groups, strict=True):
                        known[_key(prompt, visit)] = group
                        file.writelines(_lines(group, visit))
                view.update(view.done + 1, _figures(groups))
    return [known[_key(*item)] for item in taken]


Key = tuple[str, str, int]
"""Prompt, mode and visit."""


def _key(prompt: Prompt, visit: int) -> Key:
    return prompt.id, prompt.mode, visit


def _figures(groups: Sequence[Group]) -> dict[str, float]:
    responses = [response for group in groups for response in group.responses]
    return {
        "reward/accuracy": fmean(response.correct is True for response in responses),
        "rollout/length": fmean(len(response.token_ids) for response in responses),
    }


def _lines(group: Group, visit: int) -> list[str]:
    return [json_line(_row(group.prompt, visit, response)) for response in group.responses]


def _row(prompt: Prompt, visit: int, response: Response) -> dict[str, Any]:
    return {
        "id": prompt.id,
        "mode": prompt.mode,
        "visit": visit,
        "domain": prompt.domain,
        "language": prompt.language,
        "prompt": [dict(message) for message in prompt.messages],
        **({"tools": tools} if (tools := prompt.columns.get("tools")) else {}),
        "response": response.text,
        "correct": response.correct,
        "reward": response.reward,
        "reward_parts": response.reward_parts,
        "reward_error": response.reward_error,
        "finish": response.finish,
        "tokens": len(response.token_ids),
        "logprob": sum(response.logprobs.tolist()),
        "token_ids": response.token_ids.tolist(),
    }


def _response(row: Mapping[str, Any]) -> Response:
    return Response(
        segments=(Segment(np.array(row["token_ids"]), np.array([])),),
        text=row["response"],
        finish=row["finish"],
        reward=row["reward"],
        correct=row["correct"],
        reward_parts=row["reward_parts"],
        reward_error=row["reward_error"],
    )


def _read_groups(path: Path, taken: Taken, render: Renderer, size: int) -> dict[Key, Group]:
    """Return the groups that an earlier process has written whole; of what is torn, the prompt is sampled again."""
    rows: dict[Key, list[Response]] = {}
    for row in read_json_lines(path):
        if is_row(ResponseRow, row):
            rows.setdefault((row["id"], row["mode"], row["visit"]), []).append(_response(row))
    prompts = {_key(*item): item[0] for item in taken}
    return {
        key: Group(prompts[key], render(prompts[key]), tuple(responses))
        for key, responses in rows.items()
        if len(responses) == size and key in prompts
    }


def read_response_groups(path: Path) -> list[Group]:
    """Return the groups of a `responses.jsonl` (or of the run in a folder), to pair them; prompts are not rendered.

    Raises UserError where the file is missing, or a line is no response.
    """
    rows = read_rows(ResponseRow, responses_file(path) if path.is_dir() else path, "--responses")
    if not rows:
        raise UserError(f"--responses: {path}: holds no responses; 'agapo pairs' without it samples them")
    found: dict[Key, tuple[Prompt, list[Response]]] = {}
    for row in rows:
        prompt = row_prompt(row)
        found.setdefault(_key(prompt, row["visit"]), (prompt, []))[1].append(_response(row))
    return [Group(prompt, (), tuple(responses)) for prompt, responses in found.values()]


def pairs_are_made(folder: Path, policy: PairsConfig) -> bool:
    """Return whether a run has its pairs, by this policy."""
    made_by = (read_json(folder / "pairs.json") or {}).get("policy")
    return pairs_file(folder).exists() and made_by == policy.model_dump(mode="json")


def make_pairs(groups: Iterable[Group], policy: PairsConfig, seed: int) -> Paired:
    """Return the pairs of the groups by the recipe's policy."""
    if policy.policy == "concise":
        found = (
            concise_pairs(group, rejected=policy.rejected, longer_by=policy.longer_by, seed=seed) for group in groups
        )
    else:
        found = (
            preferred_pairs(group, min_margin=policy.min_margin, correct_only=policy.correct_only) for group in groups
        )
    return pair_up(found)


def earlier_pairs(recipe: DPORecipe) -> list[dict[str, Any]]:
    """Return the pairs that the recipe trains on once more. Raises UserError when there are none, or one is none."""
    reuse = recipe.pairs.reuse
    if reuse is None:
        return []
    path = reuse.path or pairs_file(start_recipe(recipe).run_directory)
    rows = read_rows(PairRow, path, "pairs.reuse")
    if not rows:
        raise UserError(f"pairs.reuse: {path} has no pairs; run the stage that makes them, or leave 'reuse' out")
    return rows


def all_pairs(recipe: DPORecipe, own: Sequence[Mapping[str, Any]], earlier: Sequence[Mapping[str, Any]]) -> list[dict]:
    """Return the rows to train on: the run's own, and the share of earlier ones that the recipe asks for."""
    rows = [{**row, "reused": False} for row in own]
    if recipe.pairs.reuse:
        again = reused(earlier, len(rows), recipe.pairs.reuse.share, recipe.run.seed)
        rows += [{**row, "reused": True} for row in again]
    return rows


def write_pairs(
    folder: Path, policy: PairsConfig, groups: Sequence[Group], paired: Paired, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write what became of the prompts as `pairs.json` and `pairs.png`, and, last, `pairs.jsonl`."""
    # What the ranks were given was made of pairs that are no more.
    shutil.rmtree(folder / "data", ignore_errors=True)
    pairs_file(folder).unlink(missing_ok=True)
    report = {**pairs_report(groups, paired, rows), "policy": policy.model_dump(mode="json")}
    write_json_atomic(folder / "pairs.json", report)
    pairs_histogram(rows, folder / "pairs.png")
    write_text_atomic(pairs_file(folder), "".join(map(json_line, rows)))


def pairs_report(groups: Sequence[Group], paired: Paired, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what became of the prompts, as plain values."""
    kinds = Counter("reused" if row.get("reused") else row["kind"] for row in rows)
    return {
        "prompts": len(groups),
        "responses": sum(len(group.responses) for group in groups),
        "sampled_tokens": sum(len(response.token_ids) for group in groups for response in group.responses),
        "pairs": len(rows),
        "by_kind": {kind: kinds[kind] for kind in (*KINDS, "reused") if kinds[kind]},
        "by_mode": dict(Counter(row["mode"] for row in rows)),
        "without": dict(sorted(paired.without.items(), key=lambda item: -item[1])),
        "chosen_tokens": round(fmean(row["chosen_tokens"] for row in rows), 1) if rows else None,
        "rejected_tokens": round(fmean(row["rejected_tokens"] for row in rows), 1) if rows else None,
    }


def describe_pairs(report: Mapping[str, Any]) -> str:
    """Return one line on the pairs."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in report["by_kind"].items())
    without = ", ".join(f"{reason} {count}" for reason, count in report["without"].items())
    if not report["prompts"]:
        return f"{report['pairs']} pairs ({kinds}) from rows" + (f"; left out: {without}" if without else "")
    return (
        f"{report['pairs']} pairs{f' ({kinds})' if kinds else ''} from {report['prompts']} prompts × "
        f"{report['responses'] // max(1, report['prompts'])} responses" + (f"; no pair: {without}" if without else "")
    )


def print_pairs(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], console: Console, *, shown: int) -> None:
    """Print what became of the prompts, and a few pairs."""
    counts = [(f"pairs: {kind}", count) for kind, count in report["by_kind"].items()]
    counts += [(f"prompts without: {reason}", count) for reason, count in report["without"].items()]
    title = f"{report['prompts']} prompts, {report['responses']} responses, {report['pairs']} pairs"
    print_table(title, ("", "number"), counts, console)
    if not rows:
        return
    mean = f"mean tokens: chosen {report['chosen_tokens']:.1f}, rejected {report['rejected_tokens']:.1f}"
    console.print(mean, highlight=False)
    for row in rows[:: max(1, len(rows) // shown)][:shown] if shown else []:
        console.print(_sample(row))


def _sample(row: Mapping[str, Any]) -> Text:
    """Return a pair as a block of lines, each response with its tokens."""
    question = next((turn["content"] for turn in reversed(row["prompt"]) if turn["role"] == "user"), "")
    shown = Text(f"\n{row['kind']}, {'with' if row['mode'] == 'reasoning' else 'without'} reasoning: ", style="bold")
    shown.append(_short(question), style="not bold")
    for name, style in (("chosen", "green"), ("rejected", "red")):
        shown.append(f"\n  {name:<8} {row[f'{name}_tokens']:>5}  ", style=style)
        shown.append(_short(row[name]), style="not bold")
    return shown


def _short(text: str, most: int = 400) -> str:
    """A text on one line; start and end stay."""
    line = " ".join(printable(str(text)).split())
    return line if len(line) <= most else f"{line[: most // 2]} … {line[-most // 2 :]}"
