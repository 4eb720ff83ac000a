"""Korean legal, administrative and technical documents in varied formats, with questions about what they say.

Each document is written as plain text, a Markdown table, JSON, numbered clauses, questions and answers, or a form.
`dialogues` and `prompts` make up statutes, public notices and manuals of the wanted length, and ask for one fact at the
wanted position. `public` restructures real ones: `ducut91/korean-statutes` (MIT; a row an article: `LawNameKor`,
`ClauseNumber`, `ClauseTitle`, `ClauseContent`), a folder of your own .txt and .md files, or rows with `text`.

Rows carry `context_length` (words between spaces, at most), `position` (0 to 1) and `format`; `rewards.science:score`
and `rewards.needle:score` judge the answers.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from agapo.errors import UserError
from data.files import Row, read
from data.generated.haystacks import count_words
from data.generated.korean import with_particles
from data.generated.korean_texts import FORMATS, KINDS, Section, draw_sections, draw_title, render
from data.generating import MOST_DRAWS, check_cells, checked, chosen, digest, is_test, share

PUBLIC = "ducut91/korean-statutes"
LENGTHS = (200, 500, 1000, 2000)
POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
_MOST_QUOTED = 60
"""Words of a section that is asked for word by word."""


class Case(NamedTuple):
    """A document and a question about it."""

    document: str
    question: str
    answer: str
    thinking: str
    columns: dict[str, Any]


def prompts(
    split: str,
    *,
    lengths: Sequence[int] = LENGTHS,
    positions: Sequence[float] = POSITIONS,
    per_cell: int = 1,
    seed: int = 0,
    kinds: Sequence[str] | None = None,
    formats: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield `per_cell` prompts for each kind, format, length and position, the lengths taking turns."""
    return map(_prompt, _cases(split, lengths, positions, per_cell, seed, kinds, formats))


def dialogues(
    split: str,
    *,
    lengths: Sequence[int] = LENGTHS,
    positions: Sequence[float] = POSITIONS,
    per_cell: int = 6,
    seed: int = 0,
    reasoning: float = 0.5,
    kinds: Sequence[str] | None = None,
    formats: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield answered questions, as many as `prompts`; `reasoning` is the share that thinks."""
    cases = _cases(split, lengths, positions, per_cell, seed + 1_000_003, kinds, formats)
    draw, reasoning = Random(f"korean/modes/{seed}"), share(reasoning)
    return (_dialogue(case, thinks=draw.random() < reasoning) for case in cases)


def _cases(
    split: str,
    lengths: Sequence[int],
    positions: Sequence[float],
    per_cell: int,
    seed: int,
    kinds: Sequence[str] | None,
    formats: Sequence[str] | None,
) -> Iterator[Case]:
    known, forms = chosen("kinds", kinds, tuple(KINDS)), chosen("formats", formats, tuple(FORMATS))
    split = checked(split)
    check_cells(lengths, positions, per_cell, len(known) * len(forms))
    return (
        _case(
            split,
            kind,
            form,
            length,
            position,
            Random(f"korean/{split}/{seed}/{kind}/{form}/{length}/{position}/{number}"),
        )
        for number in range(per_cell)
        for position in positions
        for length in lengths
        for kind in known
        for form in forms
    )


def _case(split: str, kind: str, form: str, length: int, position: float, draw: Random) -> Case:
    """Draw documents until one has, at the position, a fact of the split."""
    for _ in range(MOST_DRAWS):
        title = draw_title(kind, draw)
        sections = _fitting(title, draw_sections(kind, Random(draw.random())), form, length)
        section = sections[round(position * (len(sections) - 1))]
        label, value = draw.choice(section.facts)
        if is_test(f"{section.heading} {label} {value}") != (split == "test"):
            continue
        return Case(
            document=render(title, sections, form),
            question=with_particles(f"{section.name}({section.heading})에서 {label}은(는) 무엇입니까? 값만 쓰세요."),
            answer=value,
            thinking=with_particles(f"{section.name} {section.heading}을(를) 찾는다. {label}: {value}"),
            columns={"task": kind, "format": form, "context_length": length, "position": position, "tolerance": 0.0},
        )
    raise UserError(f"data.args.kinds: no fact of the split '{split}' in {MOST_DRAWS} '{kind}' documents; give others")


def _fitting(title: str, sections: Iterator[Section], form: str, length: int) -> list[Section]:
    """Return as many sections as fit into `length` words, one at least."""
    kept, words = [], count_words(render(title, [], form))
    for section in sections:
        words += count_words(FORMATS[form].section(section))
        if kept and words > length:
            break
        kept.append(section)
    return kept


def _prompt(case: Case) -> dict[str, Any]:
    text = f"다음 문서를 읽고 질문에 답하세요.\n\n{case.document}\n\n질문: {case.question}"
    about = {"domain": "long_context", "language": "ko", "answer": case.answer, **case.columns}
    return {"id": f"korean/{digest(text)}", "messages": [{"role": "user", "content": text}], **about}


def _dialogue(case: Case, *, thinks: bool) -> dict[str, Any]:
    row = _prompt(case)
    turn = {"role": "assistant", "content": case.answer} | ({"reasoning_content": case.thinking} if thinks else {})
    return row | {"messages": [*row["messages"], turn], "mode": "reasoning" if thinks else "non_reasoning"}


# --- real documents ---


class Document(NamedTuple):
    """A real document."""

    title: str
    sections: list[Section]
    place: str


def public(
    split: str,
    *,
    path: str | Path | None = None,
    name: str = PUBLIC,
    most_words: int = 1000,
    per_document: int = 3,
    seed: int = 0,
    reasoning: float = 0.5,
    formats: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield up to `per_document` answered questions on each real document, in varied formats, as rows for SFT.

    Questions ask for a section word by word, for its heading, or for the section that begins with some words; their
    positions are spread over the document, of which `most_words` words around the section are shown. `path` is a folder
    with .txt or .md files, or what `data.files.read` takes. Raises UserError where there is no document of the split.
    """
    forms, split = chosen("formats", formats, tuple(FORMATS)), checked(split)
    folder = Path(path) if path else None
    texts = (
        sorted(file for file in folder.rglob("*") if file.suffix in (".txt", ".md"))
        if folder and folder.is_dir()
        else []
    )
    found = (
        _text_files(texts) if texts else _grouped(read(split, path=path, hub=name, key=_title_of, only_split="train"))
    )
    mine = (document for document in found if not texts or is_test(document.title) == (split == "test"))
    draw = Random(f"korean/public/{split}/{seed}")
    return _questions(mine, forms, most_words, per_document, share(reasoning), draw)


def _questions(
    found: Iterator[Document], forms: Sequence[str], most: int, count: int, reasoning: float, draw: Random
) -> Iterator[dict[str, Any]]:
    for document in found:
        places = draw.sample(range(len(document.sections)), min(count, len(document.sections)))
        for place in sorted(places):
            case = _question(document, place, draw.choice(forms), most, draw)
            yield _dialogue(case, thinks=draw.random() < reasoning) | {"place": document.place}


def _question(document: Document, place: int, form: str, most: int, draw: Random) -> Case:
    start, end = _window(document.sections, place, most)
    section, shown = document.sections[place], document.sections[start:end]
    text = section.facts[0][1]
    asked = [(f"'{' '.join(text.split()[:5])}'(으)로 시작하는 항목의 번호는 무엇입니까?", section.name)]
    if section.heading:
        asked.append((f"{section.name}의 제목은 무엇입니까?", section.heading))
    if count_words(text) <= _MOST_QUOTED:
        asked.append((f"{section.name}의 내용을 그대로 옮겨 쓰세요.", text))
    question, answer = draw.choice(asked)
    rendered = render(document.title, shown, form)
    about = {"task": "real_document", "format": form, "context_length": count_words(rendered)}
    return Case(
        document=rendered,
        question=with_particles(question),
        answer=answer,
        thinking=f"{section.name} {section.heading}: {' '.join(text.split()[:12])}",
        columns={**about, "position": round((place - start) / max(end - start - 1, 1), 2)},
    )


def _window(sections: Sequence[Section], place: int, most: int) -> tuple[int, int]:
    """Return (start, end) of sections around a place that have at most `most` words, or of that section alone."""
    words = [count_words(section.prose) + 4 for section in sections]
    start, end, total = place, place + 1, words[place]
    while True:
        before = start > 0 and total + words[start - 1] <= most
        after = end < len(sections) and total + words[end] <= most
        if not before and not after:
            return start, end
        # In turns, so that the section lies where it lies in the document.
        if before and (not after or place * (end - place) >= (place - start) * (len(sections) - place)):
            start -= 1
            total += words[start]
        else:
            total += words[end]
            end += 1


def _title_of(content: Any) -> str | None:
    """A law's articles are all in one split."""
    content = content if isinstance(content, dict) else {}
    return content.get("LawNameKor") or content.get("title") or content.get("text")


def _grouped(rows: Iterator[Row]) -> Iterator[Document]:
    """Yield documents of rows that are articles of laws, one after the other, or whole texts."""
    for title, found in groupby(rows, key=lambda row: _title_of(row.content)):
        articles = list(found)
        if not isinstance(title, str):
            raise UserError(f"{articles[0].place}: rows need 'LawNameKor' and 'ClauseContent', or 'text'")
        if "ClauseContent" in articles[0].content:
            sections = [_article(row.content) for row in articles if row.content.get("ClauseContent")]
        else:
            sections = split_text(articles[0].content.get("text") or "")
        if sections:
            yield Document(title.splitlines()[0][:80], sections, articles[0].place)


def _article(content: dict[str, Any]) -> Section:
    number = str(content.get("ClauseNumber") or "")
    name = number if "조" in number else f"제{number.partition('의')[0]}조{number[len(number.partition('의')[0]) :]}"
    text = re.sub(r"^제\d+조(?:의\d+)?\s*(?:\([^)]*\))?\s*", "", " ".join(content["ClauseContent"].split()))
    return Section(name, str(content.get("ClauseTitle") or ""), (("내용", text),), text)


def _text_files(files: Sequence[Path]) -> Iterator[Document]:
    for file in files:
        try:
            sections = split_text(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: cannot be read: {error}") from None
        if sections:
            yield Document(file.stem, sections, f"{file}:1")


_ARTICLE = re.compile(r"^(제\d+조(?:의\d+)?)\s*(?:\(([^)]*)\))?[ \t]*", re.MULTILINE)
_HEADING = re.compile(r"^#+[ \t]+(.+)$", re.MULTILINE)


def split_text(text: str) -> list[Section]:
    """Return a text's articles (제3조(목적) …), else its parts under Markdown headings, else its paragraphs."""
    for pattern, named in ((_ARTICLE, True), (_HEADING, False)):
        found = list(pattern.finditer(text))
        if len(found) > 1:
            ends = [match.start() for match in found[1:]] + [len(text)]
            parts = [(match, " ".join(text[match.end() : end].split())) for match, end in zip(found, ends, strict=True)]
            return [
                Section(match[1], match[2] or "", (("내용", body),), body)
                if named
                else Section(f"{number}번", match[1].strip(), (("내용", body),), body)
                for number, (match, body) in enumerate(parts, start=1)
                if body
            ]
    bodies = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]
    return [Section(f"{number}번", "", (("내용", body),), body) for number, body in enumerate(bodies, start=1)]
