"""Mixing by trained tokens: which example is trained on next, so that each part has its share of the tokens.

    run ─► mode (reasoning 1.5 : non-reasoning 1) ─► domain ─► source ─► the source's examples, pass after pass

At each level the part that is furthest behind its share of the tokens comes next. So no part is ever ahead of its
share by more than one example, and of two parts (the modes) none is ever behind by more, whatever the examples'
lengths: rows counted instead of tokens would miss the ratio by as much as thinking is longer than answering.

A share that scarce rows could only fill by coming again and again is held: see `Bound`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from agapo.errors import UserError

Shares = Mapping[str, float]
_ROUNDING = 1 + 1e-9


class Stratum(NamedTuple):
    """What examples are told apart by."""

    mode: str
    domain: str
    source: str


class Bound(NamedTuple):
    """How often the rows of a part may come."""

    passes: float = float("inf")
    """No part is passed over more than so many times while the data is passed over once. What it is held to goes to
    the parts beside it, by their shares."""
    modes_as_they_are: bool = False
    """Where a mode would have to be held, mix the modes as the data has them."""


UNBOUND = Bound()


@dataclass
class Part:
    """A part of the mix: either parts of its own, or examples."""

    name: str
    share: float
    amount: int = 0
    """Trained tokens of one pass over it."""
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
    bound: Bound = UNBOUND,
    warn: Callable[[str], object] = lambda line: None,
) -> Iterator[int]:
    """Yield indices of examples without end; scarce parts come again, each pass in another order if `shuffled`.

    strata [N], tokens [N]: what each example belongs to, and its trained tokens (at least 1). `domains(mode)` gives
    the shares inside a mode, and where it is empty the sources' shares decide, spread over each source's domains as
    its tokens are. `warn` gets a line for each part that the bound holds. Raises UserError when a share has no
    examples, or examples have no share.
    """
    amounts = _amounts(strata, tokens)
    _require(modes, {stratum.mode for stratum in amounts}, "data.mix.modes", "mode")
    members: dict[Stratum, list[int]] = {}
    for index, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(index)

    def leaf(stratum: Stratum, share: float) -> Part:
        order = _passes(members[stratum], f"{seed}/{'/'.join(stratum)}", shuffled)
        return Part("/".join(stratum), share, amounts[stratum], examples=order)

    root = Part("", 1.0)
    for mode, share in modes.items():
        if share:
            inside = {stratum: amount for stratum, amount in amounts.items() if stratum.mode == mode}
            root.parts.append(_whole(mode, share, _mode_parts(inside, domains(mode), sources, leaf, mode)))
    root.amount = sum(part.amount for part in root.parts)
    for line in _hold(root, root.amount, bound):
        warn(line)
    return _endless(root, tokens)


def _endless(root: Part, tokens: Sequence[int]) -> Iterator[int]:
    while True:
        yield root.draw(tokens)


def _whole(name: str, share: float, parts: list[Part]) -> Part:
    return Part(name, share, sum(part.amount for part in parts), parts)


def _hold(part: Part, due: float, bound: Bound) -> Iterator[str]:
    """Hold what is below a part that gets `due` tokens in one pass over the data; yield a line for each held part."""
    inside = part.parts
    wanted = [due * one.share / sum(other.share for other in inside) for one in inside]
    most = [bound.passes * one.amount for one in inside]
    given = _filled(wanted, most)
    held = [index for index, tokens in enumerate(wanted) if tokens > most[index] * _ROUNDING]
    as_they_are = bool(held) and not part.name and bound.modes_as_they_are
    if as_they_are:
        given = [due * one.amount / part.amount for one in inside]
    for index in held:
        yield _held_line(inside[index], wanted[index], given[index], due, as_they_are)
    for one, tokens in zip(inside, given, strict=True):
        if held:
            one.share = tokens
        yield from _hold(one, tokens, bound) if one.parts else ()


def _filled(wanted: Sequence[float], most: Sequence[float]) -> list[float]:
    """Return what each gets of the sum of `wanted`: at most `most`; what is over goes to the others, by their shares.

    The sum of `most` is at least that of `wanted`.
    """
    full: set[int] = set()
    given = list(wanted)
    while over := {index for index, tokens in enumerate(given) if tokens > most[index] * _ROUNDING} - full:
        full |= over
        rest = sum(wanted) - sum(most[index] for index in full)
        open_shares = sum(tokens for index, tokens in enumerate(wanted) if index not in full)
        given = [most[index] if index in full else tokens * rest / open_shares for index, tokens in enumerate(wanted)]
    return given


def _held_line(part: Part, wanted: float, given: float, due: float, as_they_are: bool) -> str:
    key = "data.mix.modes" if "/" not in part.name else "data.mix"
    how = (
        "the modes are mixed as the data has them; give data.mix.modes to have it otherwise"
        if as_they_are
        else f"held to {given / part.amount:.1f} ({given / due:.1%}); raise data.mix.max_repeats, or add rows"
    )
    return (
        f"{key}: '{part.name}' has {part.amount:,} trained tokens, and a share of {wanted / due:.1%} would repeat them "
        f"{wanted / part.amount:.1f} times in one pass over the data: {how}"
    )


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
                found.append(_whole(f"{mode}/{domain}", share, inside))
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
