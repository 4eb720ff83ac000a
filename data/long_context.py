"""Long contexts of systematically varied length and position: needles, questions of several documents, public chats.

Each row carries `context_length` (the words wanted, those between spaces; the context has at most as many) and
`position` (where the answer lies, from 0, the start, to 1, the end). `needles` asks the same at every length, the other
functions something else. `rewards.needle:score` and `rewards.science:score` judge the answers. Korean legal,
administrative and technical documents are in `data.korean_documents`.

`public` reads `THUDM/LongAlign-10k` (Apache-2.0; `messages` and `length`): 8k to 64k tokens, one row in ten Chinese.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from agapo.errors import UserError
from data import files
from data.generated.haystacks import count_words, documents, draw_chain, draw_needle, haystack
from data.generating import LANGUAGES, MOST_DRAWS, check_cells, checked, chosen, digest, is_test, share

PUBLIC = "THUDM/LongAlign-10k"
LENGTHS = (200, 500, 1000, 2000)
"""Words."""
POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
_RIVALS = 3


def public(
    split: str,
    *,
    path: str | Path | None = None,
    name: str = PUBLIC,
    only_split: str = "train",
    chinese: bool = False,
    language: str = "en",
) -> Iterator[dict[str, Any]]:
    """Yield the public set's chats as rows for SFT, with `context_length` in words, without the Chinese ones.

    `path`, `name` and `only_split`: see `data.files.dialogues`.
    """
    rows = files.dialogues(
        split, path=path, name=name, only_split=only_split, domain="long_context", task="long_chat", language=language
    )
    return (row | {"context_length": _words(row)} for row in rows if chinese or not _is_chinese(row))


def _texts(row: Mapping[str, Any]) -> list[str]:
    return [str(turn.get("content") or "") for turn in row["messages"] if isinstance(turn, Mapping)]


def _words(row: Mapping[str, Any]) -> int:
    return sum(map(count_words, _texts(row)[:-1]))


def _is_chinese(row: Mapping[str, Any]) -> bool:
    """Han characters are a fifth of the beginning or the end, and there is no kana or Hangul."""
    text = "".join(part[:500] + part[-500:] for part in _texts(row))
    han = sum("\u4e00" <= character <= "\u9fff" for character in text)
    others = any("\u3040" <= character <= "\u30ff" or "가" <= character <= "힣" for character in text)
    return not others and 5 * han > len(text)


def needles(
    split: str,
    *,
    lengths: Sequence[int] = LENGTHS,
    positions: Sequence[float] = POSITIONS,
    per_cell: int = 4,
    seed: int = 0,
    language: str = "en",
    rivals: int = 0,
) -> Iterator[dict[str, Any]]:
    """Yield `per_cell` prompts for each length and position, in this order: a code to be found in filler.

    `rivals` is how many other codes are in the context (`candidates`). Raises ValueError for another split.
    """
    chosen("languages", [language], LANGUAGES)
    check_cells(lengths, positions, per_cell)
    cells = [(length, position, number) for length in lengths for position in positions for number in range(per_cell)]
    split = checked(split)
    return (_prompt(_needle(split, language, *cell, seed=seed, rivals=rivals)) for cell in cells)


def prompts(
    split: str,
    *,
    lengths: Sequence[int] = LENGTHS,
    positions: Sequence[float] = POSITIONS,
    per_cell: int = 2,
    seed: int = 0,
    languages: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield `per_cell` prompts for each kind, language, length and position, the lengths taking turns."""
    return map(_prompt, _cases(split, lengths, positions, per_cell, seed, languages, kinds))


def dialogues(
    split: str,
    *,
    lengths: Sequence[int] = LENGTHS,
    positions: Sequence[float] = POSITIONS,
    per_cell: int = 24,
    seed: int = 0,
    reasoning: float = 0.5,
    languages: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield answered questions, as many as `prompts`; `reasoning` is the share that thinks (it quotes the text)."""
    cases = _cases(split, lengths, positions, per_cell, seed + 1_000_003, languages, kinds)
    draw, reasoning = Random(f"long_context/modes/{seed}"), share(reasoning)
    return (_dialogue(case, thinks=draw.random() < reasoning) for case in cases)


Case = dict[str, Any]
"""A row without messages, but with `question` and `quotes`, what its thinking quotes."""


def _cases(
    split: str,
    lengths: Sequence[int],
    positions: Sequence[float],
    per_cell: int,
    seed: int,
    languages: Sequence[str] | None,
    kinds: Sequence[str] | None,
) -> Iterator[Case]:
    makers = {kind: _KINDS[kind] for kind in chosen("kinds", kinds, tuple(_KINDS))}
    spoken, split = chosen("languages", languages, LANGUAGES), checked(split)
    check_cells(lengths, positions, per_cell, len(makers) * len(spoken))
    return (
        make(split, language, length, position, number, seed=f"{seed}/{length}")
        for number in range(per_cell)
        for position in positions
        for length in lengths
        for language in spoken
        for make in makers.values()
    )


def _needle(
    split: str, language: str, length: int, position: float, number: int, *, seed: int | str, rivals: int = _RIVALS
) -> Case:
    draw = Random(f"long_context/needle/{language}/{split}/{seed}/{position}/{number}")
    needle = _of_split(split, lambda: draw_needle(language, draw), lambda found: found.question)
    others = [draw_needle(language, draw) for _ in range(rivals)]
    others = [other for other in others if other.question != needle.question and other.code != needle.code]
    places = {draw.random(): other.sentence for other in others} | {position: needle.sentence}
    return {
        "task": "needle",
        "question": _ask(language, haystack(language, length, places, draw), needle.question),
        "quotes": (needle.sentence,),
        "answer": needle.code,
        "candidates": [needle.code, *(other.code for other in others)],
        "tolerance": 0.0,
        **_about(language, length, position),
    }


def _two_documents(split: str, language: str, length: int, position: float, number: int, *, seed: int | str) -> Case:
    draw = Random(f"long_context/documents/{language}/{split}/{seed}/{position}/{number}")
    chain = _of_split(split, lambda: draw_chain(language, draw, _RIVALS), lambda found: "".join(found.facts))
    return {
        "task": "multi_document",
        "question": _ask(language, documents(language, length, position, chain, draw), chain.question),
        "quotes": chain.facts,
        "answer": chain.answer,
        "candidates": [chain.answer, *chain.rivals],
        **_about(language, length, position),
    }


def _about(language: str, length: int, position: float) -> Case:
    return {"domain": "long_context", "language": language, "context_length": length, "position": position}


_KINDS: dict[str, Callable[..., Case]] = {"needle": _needle, "multi_document": _two_documents}


def _of_split(split: str, make: Callable[[], Any], key: Callable[[Any], str]) -> Any:
    for _ in range(MOST_DRAWS):
        found = make()
        if is_test(key(found)) == (split == "test"):
            return found
    raise UserError(f"data.args.kinds: no question of the split '{split}' in {MOST_DRAWS} draws; give other kinds")


_ASK = {
    "en": ("Read the text and answer the question.", "Question: {} Answer with the name or number alone."),
    "ko": ("다음 글을 읽고 질문에 답하세요.", "질문: {} 이름이나 숫자만 쓰세요."),
    "es": ("Lee el texto y responde a la pregunta.", "Pregunta: {} Responde solo con el nombre o el número."),
}
_QUOTE = {"en": 'The text says: "{}"', "ko": "글에 이렇게 적혀 있다: “{}”", "es": "El texto dice: «{}»"}


def _ask(language: str, context: str, question: str) -> str:
    before, after = _ASK[language]
    return f"{before}\n\n{context}\n\n{after.format(question)}"


def _prompt(case: Case) -> dict[str, Any]:
    rest = {name: value for name, value in case.items() if name not in ("question", "quotes")}
    messages = [{"role": "user", "content": case["question"]}]
    return {"id": f"long_context/{case['task']}/{digest(case['question'])}", "messages": messages, **rest}


def _dialogue(case: Case, *, thinks: bool) -> dict[str, Any]:
    row = _prompt(case)
    turn = {"role": "assistant", "content": case["answer"]}
    if thinks:
        turn["reasoning_content"] = " ".join(_QUOTE[case["language"]].format(quote) for quote in case["quotes"])
    return row | {"messages": [*row["messages"], turn], "mode": "reasoning" if thinks else "non_reasoning"}
