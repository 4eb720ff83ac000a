"""Mixing by trained tokens: which example is trained on next, so that each part has its share of the tokens.

    run ─► mode (reasoning 1.5 : non-reasoning 1) ─► domain ─► source ─► the source's examples, pass after pass

At each level the part that is furthest behind its share of the tokens comes next. So no part is ever ahead of its
share by more than one example, and of two parts (the modes) none is ever behind by more, whatever the examples'
lengths: rows counted instead of tokens would miss the ratio by as much as thinking is longer than answering.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from agapo.errors import UserError

Shares = Mapping[str, float]


class Stratum(NamedTuple):
    """What examples are told apart by."""

    mode: str
    domain: str
    source: str


@dataclass
class Part:
    """A part of the mix: either parts of its own, or examples."""

    share: float
    parts: list["Part"] = field(default_factory=list)
    examples: Iterator[int] | None = None
    taken: int = 0
    """Trained tokens so far."""

    def draw(self, tokens: Sequence[int]) -> int:
        """Return the next example, and count its tokens here and below."""
        index = self._behind().draw(tokens) if self.examples is None else next(self.examples)
        self.taken += tokens[index]
        return index

    def _behind(self) -> "Part":
        # One token ahead, so that the first example goes to the largest share.
        due = (self.taken + 1) / sum(part.share for part in self.parts)
        return max(self.parts, key=lambda part: part.share * due - part.taken)


def mixed(
    strata: Sequence[Stratum],
    tokens: Sequence[int],
    *,
    modes: Shares,
    domains: Callable[[str], Shares],
    sources: Shares,
    seed: int,
    shuffled: bool = True,
) -> Iterator[int]:
    """Yield indices of examples without end; scarce parts come again, each pass in another order if `shuffled`.

    strata [N], tokens [N]: what each example belongs to, and its trained tokens (at least 1). `domains(mode)` gives
    the shares inside a mode, and where it is empty the sources' shares decide, spread over each source's domains as
    its tokens are. Raises UserError when a share has no examples, or examples have no share.
    """
    amounts = _amounts(strata, tokens)
    _require(modes, {stratum.mode for stratum in amounts}, "data.mix.modes", "mode")
    members: dict[Stratum, list[int]] = {}
    for index, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(index)

    def leaf(stratum: Stratum, share: float) -> Part:
        return Part(share, examples=_passes(members[stratum], f"{seed}/{'/'.join(stratum)}", shuffled))

    root = Part(1.0)
    for mode, share in modes.items():
        if share:
            inside = {stratum: amount for stratum, amount in amounts.items() if stratum.mode == mode}
            root.parts.append(Part(share, _mode_parts(inside, domains(mode), sources, leaf, mode)))
    return _endless(root, tokens)


def _endless(root: Part, tokens: Sequence[int]) -> Iterator[int]:
    while True:
        yield root.draw(tokens)


def _amounts(strata: Sequence[Stratum], tokens: Sequence[int]) -> dict[Stratum, int]:
    amounts: dict[Stratum, int] = {}
    for stratum, count in zip(strata, tokens, strict=True):
        amounts[stratum] = amounts.get(stratum, 0) + count
    return amounts


def _mode_parts(
    amounts: Mapping[Stratum, int],
    domains: Shares,
    sources: Shares,
    leaf: Callable[[Stratum, float], Part],
    mode: str,
) -> list[Part]:
    """Return the parts of a mode: by domain where the recipe gives shares of domains, else by source."""
    weights = _weights(amounts, sources)
    if not domains:
        found = [leaf(stratum, weight) for stratum, weight in weights.items() if weight]
    else:
        _require(domains, {stratum.domain for stratum in amounts}, f"data.mix.domains (in {mode})", "domain")
        found = []
        for domain, share in domains.items():
            inside = [leaf(item, weight) for item, weight in weights.items() if item.domain == domain and weight]
            if share and inside:
                found.append(Part(share, inside))
    if not found:
        raise UserError(f"data.mix.modes: no dialogues left in mode '{mode}'; give its sources a weight above 0")
    return found


def _weights(amounts: Mapping[Stratum, int], sources: Shares) -> dict[Stratum, float]:
    """Each source's share, spread over its strata as its tokens are."""
    whole: dict[str, int] = {}
    for stratum, amount in amounts.items():
        whole[stratum.source] = whole.get(stratum.source, 0) + amount
    return {
        stratum: sources.get(stratum.source, 1.0) * amount / whole[stratum.source]
        for stratum, amount in amounts.items()
    }


def _require(shares: Shares, present: set[str], key: str, what: str) -> None:
    """Shares and examples name the same parts: a part that only one of them has is a mistake."""
    missing = sorted(name for name, share in shares.items() if share and name not in present)
    if missing:
        raise UserError(f"{key}: no dialogues in {what} '{missing[0]}'; add a source that has them, or set it to 0")
    unnamed = sorted(present - set(shares))
    if unnamed:
        raise UserError(f"{key}: dialogues have the {what} '{unnamed[0]}', which has no share; add it (0 leaves out)")


def _passes(indices: Sequence[int], key: str, shuffled: bool) -> Iterator[int]:
    number = 0
    while True:
        order = list(indices)
        if shuffled:
            Random(f"{key}/{number}").shuffle(order)
        yield from order
        number += 1
