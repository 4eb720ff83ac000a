"""Mixing by trained tokens: the shares hold over the run and in every stretch of it, whatever the lengths."""

import random
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agapo.curation.token_mix import UNBOUND, Bound, Stratum, mixed
from agapo.errors import UserError

RATIO = {"reasoning": 1.5, "non_reasoning": 1.0}


def take(strata, tokens, count, *, modes=RATIO, domains=None, sources=None, seed=0, shuffled=True, **keys):
    order = mixed(
        strata,
        tokens,
        modes=modes,
        domains=lambda mode: domains or {},
        sources=sources or {},
        seed=seed,
        shuffled=shuffled,
        **keys,
    )
    return list(islice(order, count))


def tokens_by(strata, tokens, order, field) -> dict[str, int]:
    sums: dict[str, int] = {}
    for index in order:
        name = getattr(strata[index], field)
        sums[name] = sums.get(name, 0) + tokens[index]
    return sums


def skewed(seed: int) -> tuple[list[Stratum], list[int]]:
    """Long tails: thinking is 1 to 30,000 tokens long (Pareto), answers are short; 3 domains, 4 sources."""
    draw = random.Random(seed)
    strata, tokens = [], []
    for _ in range(3000):
        mode = "reasoning" if draw.random() < 0.2 else "non_reasoning"
        domain = draw.choices(["math", "code", "world"], [100, 10, 1])[0]
        source = draw.choice("abcd")
        scale = 300 if mode == "reasoning" else 20
        strata.append(Stratum(mode, domain, source))
        tokens.append(min(30_000, int(scale * draw.paretovariate(1.1))))
    return strata, tokens


def test_by_hand():
    """Tokens so far, reasoning : non-reasoning: 3:0, 3:2, 6:2, 6:4, and so on: always the one that is behind."""
    strata = [Stratum("reasoning", "m", "s"), Stratum("non_reasoning", "m", "s")]
    assert take(strata, [3, 2], 6) == [0, 1, 0, 1, 0, 1]
    assert take(strata, [1, 4], 8) == [0, 1, 0, 0, 0, 0, 0, 0]


def test_the_ratio_holds_within_a_percent_on_long_tails():
    for seed in range(3):
        strata, tokens = skewed(seed)
        order = take(strata, tokens, 60_000, seed=seed)
        sums = tokens_by(strata, tokens, order, "mode")
        assert sums["reasoning"] / sums["non_reasoning"] == pytest.approx(1.5, rel=0.01)
        assert abs(sums["reasoning"] - 0.6 * sum(sums.values())) <= max(tokens)


def test_shares_of_domains_hold_inside_each_mode():
    strata, tokens = skewed(7)
    tokens = [min(count, 3000) for count in tokens]
    order = take(strata, tokens, 30_000, domains={"math": 1, "code": 2, "world": 1})
    for mode in RATIO:
        inside = [index for index in order if strata[index].mode == mode]
        sums = tokens_by(strata, tokens, inside, "domain")
        whole = sum(sums.values())
        shares = {name: count / whole for name, count in sums.items()}
        assert shares == pytest.approx({"math": 0.25, "code": 0.5, "world": 0.25}, abs=0.01)


def test_sources_have_their_weights_where_domains_have_none():
    strata, tokens = skewed(3)
    order = take(strata, tokens, 30_000, sources={"a": 4, "b": 2, "c": 1, "d": 1})
    for mode in RATIO:
        sums = tokens_by(strata, tokens, [index for index in order if strata[index].mode == mode], "source")
        shares = [sums[name] / sum(sums.values()) for name in "abcd"]
        assert shares == pytest.approx([0.5, 0.25, 0.125, 0.125], abs=0.03)


def test_a_weight_of_nothing_leaves_a_source_out():
    strata = [Stratum(mode, "m", source) for mode in RATIO for source in "ab"]
    order = take(strata, [5] * 4, 100, sources={"a": 1, "b": 0})
    assert {strata[index].source for index in order} == {"a"}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 5000)), min_size=2, max_size=60),
    st.floats(0.1, 10),
    st.integers(0, 3),
)
def test_in_every_stretch_the_shares_are_off_by_two_examples_at_most(rows, ratio, seed):
    rows = [*rows, (True, 7), (False, 3)]
    strata = [Stratum("reasoning" if thinks else "non_reasoning", "m", "s") for thinks, _ in rows]
    tokens = [count for _, count in rows]
    share = ratio / (1 + ratio)
    # How far reasoning is ahead of its share after each example; a stretch's error is a difference of two of these.
    ahead, error = [0.0], 0.0
    for index in take(strata, tokens, 400, modes={"reasoning": ratio, "non_reasoning": 1}, seed=seed):
        mine = tokens[index] if strata[index].mode == "reasoning" else 0
        error += mine - share * tokens[index]
        ahead.append(error)
    assert max(ahead) - min(ahead) <= 2 * max(tokens)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.01, 100), min_size=2, max_size=12),
    st.lists(st.integers(1, 300), min_size=24, max_size=24),
    st.integers(0, 3),
)
def test_no_part_is_ahead_of_its_share_by_more_than_an_example(shares, lengths, seed):
    names = [f"s{number}" for number in range(len(shares))]
    strata = [Stratum("reasoning", "m", names[index % len(names)]) for index in range(24)]
    weights = dict(zip(names, shares, strict=True))
    taken, whole = dict.fromkeys(names, 0), 0
    for index in take(strata, lengths, 300, modes={"reasoning": 1}, sources=weights, seed=seed):
        taken[strata[index].source] += lengths[index]
        whole += lengths[index]
        ahead = {name: taken[name] - weights[name] / sum(shares) * whole for name in names}
        assert max(ahead.values()) <= max(lengths) + 1e-6


def test_a_large_share_is_not_kept_waiting_by_many_small_ones():
    strata = [Stratum("reasoning", "m", source) for source in "abcdefghij"]
    order = take(strata, [5] * 10, 10, modes={"reasoning": 1}, sources={"a": 81, **dict.fromkeys("bcdefghij", 1)})
    assert [strata[index].source for index in order].count("a") >= 8


def test_is_repeatable_by_seed_and_shuffles_each_pass():
    strata = [Stratum("reasoning", "m", "s")] * 50
    one = take(strata, [1] * 50, 100, modes={"reasoning": 1}, seed=1)
    assert one == take(strata, [1] * 50, 100, modes={"reasoning": 1}, seed=1)
    assert one != take(strata, [1] * 50, 100, modes={"reasoning": 1}, seed=2)
    assert sorted(one[:50]) == sorted(one[50:]) == list(range(50))
    assert one[:50] != one[50:]


def test_the_source_s_order_is_kept_where_it_is_a_curriculum():
    strata = [Stratum("reasoning", "m", "s")] * 5
    assert take(strata, [3, 1, 2, 1, 1], 7, modes={"reasoning": 1}, shuffled=False) == [0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize(
    ("modes", "domains", "message"),
    [
        ({"reasoning": 1, "non_reasoning": 1}, {}, "data.mix.modes: no dialogues in mode 'non_reasoning'"),
        ({"non_reasoning": 1}, {}, "data.mix.modes: no dialogues in mode 'non_reasoning'"),
        ({"reasoning": 1}, {"math": 1}, "data.mix.domains (in reasoning): no dialogues in domain 'math'"),
        ({"reasoning": 1}, {"code": 0.0}, "no dialogues left in mode 'reasoning'"),
    ],
)
def test_shares_and_dialogues_must_agree(modes, domains, message):
    strata = [Stratum("reasoning", "code", "s")] * 2
    with pytest.raises(UserError) as caught:
        take(strata, [1, 1], 1, modes=modes, domains=domains)
    assert message in str(caught.value)


def test_dialogues_without_a_share_are_a_mistake():
    strata = [Stratum("reasoning", "code", "s"), Stratum("non_reasoning", "code", "s")]
    with pytest.raises(UserError, match="have the mode 'non_reasoning', which has no share"):
        take(strata, [1, 1], 1, modes={"reasoning": 1})


class TestBound:
    """One row of 26 tokens thinks, beside 200 of 7: at 1.5 : 1 it would come 33 times in one pass."""

    STRATA = (Stratum("reasoning", "m", "s"), *[Stratum("non_reasoning", "m", "s")] * 200)
    TOKENS = (26, *[7] * 200)
    PASS = 26 + 1400

    def passes(self, bound: Bound, times: int = 20, **keys) -> tuple[float, list[str]]:
        """How often the scarce row comes in one pass, and the warnings."""
        warnings: list[str] = []
        order = take(self.STRATA, self.TOKENS, 6000, bound=bound, warn=warnings.append, **keys)
        taken = count = 0
        for index in order:
            if taken >= times * self.PASS:
                return count / times, warnings
            taken += self.TOKENS[index]
            count += index == 0
        raise AssertionError("too short")

    def test_without_it_one_row_is_most_of_the_training(self):
        assert self.passes(UNBOUND)[0] == pytest.approx(0.6 * self.PASS / 26, rel=0.01)

    def test_a_scarce_mode_is_held(self):
        found, warnings = self.passes(Bound(4.0))
        assert found == pytest.approx(4.0, abs=0.1)
        assert warnings == [
            "data.mix.modes: 'reasoning' has 26 trained tokens, and a share of 60.0% would repeat them 32.9 times in "
            "one pass over the data: held to 4.0 (7.3%); raise data.mix.max_repeats, or add rows"
        ]

    def test_by_default_the_modes_are_mixed_as_they_are(self):
        found, warnings = self.passes(Bound(4.0, modes_as_they_are=True))
        assert found == pytest.approx(1.0, abs=0.1)
        assert len(warnings) == 1
        assert "32.9 times in one pass over the data: the modes are mixed as the data has them" in warnings[0]

    def test_a_bound_that_holds_nothing_changes_nothing(self):
        strata, tokens = skewed(5)
        warnings: list[str] = []
        keys = {"domains": {"math": 5, "code": 1, "world": 0.02}}
        bound = Bound(4.0, modes_as_they_are=True)
        assert take(strata, tokens, 9000, **keys) == take(
            strata, tokens, 9000, **keys, bound=bound, warn=warnings.append
        )
        assert not warnings

    def test_what_a_scarce_domain_leaves_goes_to_the_others_by_their_shares(self):
        """Amounts 10 : 495 : 495 of 1,000; wanted 500 : 375 : 125; held to 40, and 960 shared out 3 : 1."""
        strata = [Stratum("reasoning", name, "s") for name in ["a", *["b"] * 99, *["c"] * 99]]
        warnings: list[str] = []
        tokens = [10, *[5] * 198]
        order = take(
            strata,
            tokens,
            20_000,
            modes={"reasoning": 1},
            domains={"a": 4, "b": 3, "c": 1},
            bound=Bound(4.0),
            warn=warnings.append,
        )
        sums = tokens_by(strata, tokens, order, "domain")
        whole = sum(sums.values())
        shares = [sums[name] / whole for name in "abc"]
        assert shares == pytest.approx([0.04, 0.72, 0.24], abs=0.002)
        assert [line.split(":")[0] for line in warnings] == ["data.mix"]
        assert "'reasoning/a' has 10 trained tokens, and a share of 50.0%" in warnings[0]

    def test_one_that_is_pushed_beyond_the_bound_is_held_too(self):
        """Wanted 700 : 200 : 100 of amounts 10 : 60 : 930, at most 40 : 240 : 3,720; what a leaves would give b 640."""
        strata = [Stratum("reasoning", "m", name) for name in "abc"]
        keys = {"modes": {"reasoning": 1}, "sources": {"a": 7, "b": 2, "c": 1}}
        order = take(strata, [10, 60, 930], 3000, **keys, bound=Bound(4.0))
        sums = tokens_by(strata, [10, 60, 930], order, "source")
        whole = sum(sums.values())
        assert [sums[name] / whole for name in "abc"] == pytest.approx([0.04, 0.24, 0.72], abs=0.005)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from("ab"), st.integers(1, 400)), min_size=1, max_size=40),
    st.floats(1, 6),
    st.floats(0.1, 10),
)
def test_no_part_is_passed_over_more_often_than_the_bound_says(rows, passes, ratio):
    rows = [*rows, (True, "a", 7), (False, "a", 3)]
    strata = [Stratum("reasoning" if thinks else "non_reasoning", "m", source) for thinks, source, _ in rows]
    tokens = [count for *_, count in rows]
    modes = {"reasoning": ratio, "non_reasoning": 1}
    order = take(strata, tokens, 60 * len(rows), modes=modes, sources={"a": 3}, bound=Bound(passes))
    data_passes = sum(tokens[index] for index in order) / sum(tokens)
    for stratum in set(strata):
        amount = sum(count for one, count in zip(strata, tokens, strict=True) if one == stratum)
        taken = sum(tokens[index] for index in order if strata[index] == stratum)
        # Each level may be ahead by an example.
        assert taken <= passes * amount * data_passes + 2 * passes * max(tokens)
