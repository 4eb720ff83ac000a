"""One page, one file: data compressed inside it, drawn by the scripts beside this file without a network.

Every text of a model is inside base64, and reaches the page as text, never as HTML: nothing of it can run.
"""

import base64
import gzip
import json
import logging
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from agapo.errors import UserError
from agapo.reporting.gather import gather, require_run, rollouts_of, sampled_steps, stage_of, timeline_of
from agapo.tracking.files import plain, write_text_atomic

SCRIPTS = ("tools.js", "charts.js", "timeline.js", "rollouts.js", "page.js")
"""In the order in which they need each other."""

log = logging.getLogger("agapo")


def report_run(run: Path) -> Path:
    """Write `report.html` into a run's folder, and return its path. Raises UserError where there is no run."""
    require_run(run)
    found, rollouts = gather(run), run / "rollouts.jsonl"
    steps, of = sampled_steps(rollouts)
    blobs: dict[str, Any] = {f"step-{step}": rows for step, rows in rollouts_of(rollouts, steps)}
    found |= {"rolloutSteps": steps, "rolloutStepsOf": of}
    page = _page(f"{found['stage']} {found['name']}", {"runs": [found]}, {"timeline": timeline_of(run), **blobs})
    path = run / "report.html"
    write_text_atomic(path, page)
    return path


def try_report(run: Path) -> None:
    """Write `report.html`; where that fails, say so, and go on: a run is not the worse for it."""
    try:
        report_run(run)
    except Exception as error:
        log.warning("report.html could not be made (%s); try 'agapo report %s'", error, run)


def are_evaluations(runs: Sequence[Path]) -> bool:
    """Return whether runs are evaluations. Raises UserError where only some are, or there are not two."""
    _require_several(runs)
    stages = [stage_of(run) for run in runs]
    if "eval" in stages and set(stages) != {"eval"}:
        other = runs[next(number for number, stage in enumerate(stages) if stage != "eval")]
        raise UserError(f"compare: {other} is no evaluation, and another of the runs is; compare those of one kind")
    return "eval" in stages


def _require_several(runs: Sequence[Path]) -> None:
    if len(runs) < 2:
        raise UserError("compare: needs two runs or more: agapo compare outputs/rl/a outputs/rl/b")
    for run in runs:
        require_run(run)


def compare_runs(runs: Sequence[Path], out: Path) -> None:
    """Write a page with the curves of several runs over each other. Raises UserError where there are not two."""
    _require_several(runs)
    found = [gather(run) for run in runs]
    if len({item["name"] for item in found}) < len(found):
        found = [item | {"name": str(run)} for item, run in zip(found, runs, strict=True)]
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; name a file in it, as {out / 'compare.html'}")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(out, _page(" · ".join(item["name"] for item in found), {"runs": found}, {}))


def _page(title: str, data: dict[str, Any], blobs: dict[str, Any]) -> str:
    files = resources.files("agapo.reporting")
    names = ("page.html", "page.css", *SCRIPTS)
    html, css, *parts = (files.joinpath(name).read_text(encoding="utf-8") for name in names)
    js = "\n".join(parts)
    scripts = "\n".join(_blobs({"data": data, **blobs}.items()))
    # Pieces are put together, not replaced one after another: no piece is looked through for the names of others.
    before_title, rest = html.split("{{title}}")
    before_css, rest = rest.split("{{css}}")
    before_data, rest = rest.split("{{data}}")
    before_js, after = rest.split("{{js}}")
    return "".join([before_title, escape(title), before_css, css, before_data, scripts, before_js, js, after])


def _blobs(values: Iterable[tuple[str, Any]]) -> Iterable[str]:
    for name, value in values:
        packed = gzip.compress(json.dumps(plain(value), ensure_ascii=False).encode(), 6, mtime=0)
        yield f'<script type="application/gzip" id="{name}">{base64.b64encode(packed).decode()}</script>'
