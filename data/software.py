"""Software engineering beyond contest problems: changes to projects, queries, handlers, pages, configuration, tests.

`public` reads `princeton-nlp/SWE-bench_oracle` (`text` holds the issue and the files to change, `patch` is the answer;
its `train` split, from other repositories than the benchmark's `test`). It also reads rows of `problem_statement` and
`patch` without the files (`nebius/SWE-bench-extra`), of `old_contents`, `new_contents` and `subject` (CommitPackFT,
from local files: the hub's copy needs a loading script, which `datasets` no longer runs), and any chat layout.

`dialogues` makes up tasks about a small web shop, library, clinic and the like. Those of `CHECKED` come with tests for
`rewards.unit_tests:score` and are what `prompts` yields.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data import files
from data.files import Row, read
from data.generated import software_checked, software_files
from data.generating import Maker, UpTo, chosen, dialogue_rows, prompt_rows

PUBLIC = "princeton-nlp/SWE-bench_oracle"
CHECKED = tuple(software_checked.MAKERS)
KINDS = (*CHECKED, *software_files.MAKERS)
_ABOUT = {"mode": "non_reasoning", "domain": "code", "task": "patch", "language": "en"}
_ISSUE = "Resolve this issue in the repository {repo}. Answer with a patch in unified diff format.\n\n{issue}"
_COMMIT = "{subject}\n\nChange `{file}` accordingly. Answer with a patch in unified diff format.\n\n```\n{old}\n```"


def public(
    split: str, *, path: str | Path | None = None, name: str = PUBLIC, only_split: str = ""
) -> Iterator[dict[str, Any]]:
    """Yield the public set's rows for SFT, each answered by a patch.

    `path`, `name` and `only_split`: see `data.files.read`. Raises UserError naming file and line for unknown layouts.
    """
    rows = read(split, path=path, hub=name, only_split=only_split, key=_question)
    return map(_row, rows)


def _row(row: Row) -> dict[str, Any]:
    content = row.content if isinstance(row.content, dict) else {}
    question, answer = _question(content), _patch(content)
    if question is None or answer is None:
        return files.dialogue(row, row.content, _ABOUT)
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": f"```diff\n{answer}\n```"}]
    return {"messages": messages, **_ABOUT, "place": row.place}


def _question(content: Any) -> str | None:
    """The question of the layouts that end in a patch; None for chats, whose question is their own."""
    content = content if isinstance(content, dict) else {}
    if isinstance(content.get("text"), str) and "patch" in content:
        return content["text"]
    if isinstance(content.get("problem_statement"), str):
        return _ISSUE.format(repo=content.get("repo") or "at hand", issue=content["problem_statement"].strip())
    if isinstance(content.get("old_contents"), str):
        subject, file = content.get("message") or content.get("subject"), content.get("old_file") or "file"
        return _COMMIT.format(subject=str(subject).strip(), file=file, old=content["old_contents"].rstrip())
    return files.first_question(content)


def _patch(content: Mapping[str, Any]) -> str | None:
    if isinstance(content.get("patch"), str):
        return content["patch"].strip()
    if not isinstance(content.get("old_contents"), str) or not isinstance(content.get("new_contents"), str):
        return None
    file = content.get("old_file") or "file"
    return software_files.unified_diff(file, content["old_contents"], content["new_contents"]).strip()


def prompts(
    split: str, *, size: int = UpTo(400), seed: int = 0, kinds: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield up to `size` different tasks of the kinds in `CHECKED`, with their tests. Raises UserError for another."""
    return prompt_rows("software", _makers(chosen("kinds", kinds, CHECKED)), split, seed, size)


def dialogues(
    split: str, *, size: int = UpTo(4000), seed: int = 0, reasoning: float = 0.5, kinds: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield up to `size` different solved tasks of the kinds in `KINDS`; `reasoning` is the share that thinks."""
    return dialogue_rows("software", _makers(chosen("kinds", kinds, KINDS)), split, seed, size, reasoning)


def _makers(kinds: Sequence[str]) -> dict[str, Maker]:
    known = {**software_checked.MAKERS, **software_files.MAKERS}
    return {kind: known[kind] for kind in kinds}
