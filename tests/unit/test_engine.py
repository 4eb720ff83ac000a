"""The transformers engine against plain loops over transformers' own forward, one response at a time.

The models are random, so responses would hardly ever end: a tenth of the tokens are made end tokens, and rows finish
at all lengths, which is what compaction has to survive.
"""

from collections import Counter
from copy import deepcopy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agapo.learner.rl.batching import collate, examples_of, plan_ranks
from agapo.model.logprobs import LogProbModel
from agapo.model.tokenizer import build_tokenizer
from agapo.model.weights import pack_weights, weight_layout
from agapo.rollouts.engine import PromptRequest, SamplingParams, uniforms
from agapo.rollouts.engines.transformers.engine import TransformersEngine, sample
from agapo.rollouts.groups import sample_groups
from agapo.schema import Batch, Prompt
from tests.builders import WINDOW, tiny_exaone, tiny_gpt2, tiny_qwen, token_logprobs

END_IDS = [2, *range(10, 270, 10)]
LONG_PROMPT = tuple(range(100, 118))
PROMPTS = ((7, 8, 9), LONG_PROMPT, (21,), (30, 31, 32, 33, 34, 35, 36))


def sliding_qwen(seed=0):
    """A Qwen3 whose second layer slides over 5 tokens."""
    kinds = ["full_attention", "sliding_attention"]
    return tiny_qwen(seed, use_sliding_window=True, sliding_window=WINDOW, layer_types=kinds)


BUILDERS = {"exaone": tiny_exaone, "qwen": tiny_qwen, "sliding_qwen": sliding_qwen, "gpt2": tiny_gpt2}


@cache
def plain(kind):
    """The model as transformers runs it."""
    model = BUILDERS[kind]().eval()
    model.generation_config.eos_token_id = END_IDS
    return model


@cache
def engine(kind="exaone"):
    return TransformersEngine(deepcopy(plain(kind)), build_tokenizer())


def request(ids=PROMPTS[0], name="p", visit=0):
    prompt = Prompt(id=name, messages=({"role": "user", "content": name},))
    return PromptRequest(prompt=prompt, prompt_ids=tuple(ids), visit=visit)


def stream(item, params):
    """The random numbers [G, max_new_tokens] of a prompt's responses."""
    return np.stack([uniforms(response, params.seed) for response in item.responses(params)])


REQUESTS = tuple(request(ids, f"p{index}") for index, ids in enumerate(PROMPTS))
PARAMS = SamplingParams(group_size=5, max_new_tokens=16, seed=3)


def alone(model, ids, uniform, params):
    """Sample one response with a full forward over everything for each token: no cache, no batch, no padding."""
    tokens, logprobs = [], []
    while len(tokens) < params.max_new_tokens and not (tokens and tokens[-1] in END_IDS):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*ids, *tokens]]), use_cache=False).logits[0, -1].double()
        table = (logits / (params.temperature or 1.0)).log_softmax(dim=-1)
        token = int(table.argmax()) if params.temperature == 0 else inverse_cdf(table.exp(), uniform[len(tokens)])
        tokens.append(token)
        logprobs.append(float(table[token]))
    return tuple(tokens), logprobs


def inverse_cdf(probabilities, uniform):
    """The first token at which the cumulative probability passes `uniform`."""
    total = 0.0
    for token, probability in enumerate(probabilities.tolist()):
        total += probability
        if total > uniform:
            return token
    return len(probabilities) - 1


def responses(groups):
    return [item for group in groups for item in group.responses]


def token_ids(groups):
    return [tuple(item.token_ids.tolist()) for item in responses(groups)]


@pytest.mark.parametrize("kind", BUILDERS)
class TestAgainstPlainForward:
    def test_samples_are_those_of_each_response_alone(self, kind):
        """Compaction, left padding, shared prefill and the sliding cache leave no trace."""
        groups = sample_groups(engine(kind), REQUESTS, PARAMS)
        for group, item in zip(groups, REQUESTS, strict=True):
            for row, found in zip(stream(item, PARAMS), group.responses, strict=True):
                tokens, logprobs = alone(plain(kind), item.prompt_ids, row, PARAMS)
                assert tuple(found.token_ids.tolist()) == tokens
                assert found.logprobs == pytest.approx(logprobs, abs=1e-4)

    def test_case_is_worth_it(self, kind):
        """Rows end at many different lengths, some at the limit, most beyond the sliding window."""
        found = responses(sample_groups(engine(kind), REQUESTS, PARAMS))
        lengths = [len(item.token_ids) for item in found]
        assert len(set(lengths)) >= 5
        assert {item.finish for item in found} == {"stop", "length"}
        assert max(lengths) == PARAMS.max_new_tokens > WINDOW

    @pytest.mark.parametrize("temperature", [1.0, 0.5, 1.7])
    def test_log_probabilities_are_those_at_the_sampling_temperature(self, kind, temperature):
        groups = sample_groups(engine(kind), REQUESTS, replace(PARAMS, temperature=temperature))
        with torch.no_grad():
            deviations = [
                (
                    torch.tensor(found.logprobs)
                    - token_logprobs(plain(kind), group.prompt_ids, found.token_ids, temperature)
                )
                .abs()
                .max()
                for group in groups
                for found in group.responses
            ]
        assert max(deviations) < 1e-4

    def test_greedy_is_transformers_generate(self, kind):
        groups = sample_groups(engine(kind), REQUESTS, replace(PARAMS, group_size=1, temperature=0.0))
        for group, item in zip(groups, REQUESTS, strict=True):
            ids = torch.tensor([item.prompt_ids])
            settings = {"do_sample": False, "max_new_tokens": PARAMS.max_new_tokens, "pad_token_id": 0}
            output = plain(kind).generate(ids, attention_mask=torch.ones_like(ids), **settings)[0]
            (found,) = group.responses
            assert found.token_ids.tolist() == output[len(item.prompt_ids) :].tolist()
            with torch.no_grad():
                expected = token_logprobs(plain(kind), item.prompt_ids, found.token_ids)
            assert found.logprobs == pytest.approx(expected.tolist(), abs=1e-4)

    def test_log_probabilities_are_the_learners(self, kind):
        """The importance weight of an on-policy token is 1: no correction for the engine is needed."""
        groups = sample_groups(engine(kind), REQUESTS, PARAMS)
        zeros = tuple((0.0,) * PARAMS.group_size for _ in groups)
        examples = examples_of(Batch(tuple(groups), zeros, zeros, len(zeros)))
        for layout in ("packed", "left", "right"):
            (plans,) = plan_ranks([item.length for item in examples], ranks=1, budget=150, layout=layout)
            for plan in plans:
                micro = collate(examples, plan, layout)
                inputs = (micro.input_ids, micro.position_ids, micro.attention_mask, micro.predictors, micro.targets)
                with torch.no_grad():
                    learner, _ = LogProbModel(plain(kind))(*inputs, 1.0)
                assert (learner - micro.tokens.sampler_logprobs).abs().max() < 1e-4


class TestRepeatable:
    def test_same_call_gives_the_same_groups(self):
        assert sample_groups(engine(), REQUESTS, PARAMS) == sample_groups(engine(), REQUESTS, PARAMS)

    def test_prompts_beside_it_do_not_change_a_prompts_responses(self):
        together = sample_groups(engine(), REQUESTS, PARAMS)
        for item, group in zip(REQUESTS, together, strict=True):
            (found,) = sample_groups(engine(), [item], PARAMS)
            assert token_ids([found]) == token_ids([group])

    def test_another_visit_draws_others(self):
        first, again = sample_groups(engine(), [request(), request(visit=1)], PARAMS)
        assert not set(token_ids([first])) & set(token_ids([again]))

    def test_another_seed_draws_others(self):
        first, again = (sample_groups(engine(), [request()], replace(PARAMS, seed=seed)) for seed in (0, 1))
        assert token_ids(first) != token_ids(again)

    def test_responses_of_a_group_differ(self):
        assert len(set(token_ids(sample_groups(engine(), [request()], PARAMS)))) == PARAMS.group_size

    def test_larger_group_begins_with_the_smaller_one(self):
        small, large = (sample_groups(engine(), [request()], replace(PARAMS, group_size=size)) for size in (2, 4))
        assert token_ids(large)[:2] == token_ids(small)


class TestUniforms:
    def test_depend_on_seed_prompt_visit_and_index_alone(self):
        first = stream(request(), PARAMS)
        assert (stream(request(LONG_PROMPT), PARAMS) == first).all(), "the prompt's id counts, not its tokens"
        others = [request(name="q"), request(visit=1)]
        streams = [*first, *stream(request(), replace(PARAMS, seed=4))]
        streams += [row for item in others for row in stream(item, PARAMS)]
        assert len({row.tobytes() for row in streams}) == 4 * PARAMS.group_size

    def test_are_uniform(self):
        draws = stream(request(), SamplingParams(group_size=20, max_new_tokens=5000)).ravel()
        assert draws.min() >= 0
        assert draws.max() < 1
        counts = np.histogram(draws, bins=50, range=(0, 1))[0]
        chi_square = ((counts - 2000) ** 2 / 2000).sum()
        assert chi_square < 49 + 5 * (2 * 49) ** 0.5


class TestFinish:
    def test_end_token_is_kept_in_the_tokens_and_out_of_the_text(self):
        found = responses(sample_groups(engine(), REQUESTS, PARAMS))
        ended = [item for item in found if item.finish == "stop"]
        assert ended
        tokenizer = build_tokenizer()
        for item in ended:
            assert item.token_ids[-1] in END_IDS
            assert not set(item.token_ids[:-1]) & set(END_IDS)
            assert item.text == tokenizer.decode(item.token_ids[:-1])
        for item in (item for item in found if item.finish == "length"):
            assert len(item.token_ids) == PARAMS.max_new_tokens
            assert not set(item.token_ids) & set(END_IDS)
            assert item.text == tokenizer.decode(item.token_ids)

    @pytest.mark.parametrize("limit", [1, 2, 7])
    def test_shorter_limit_cuts_the_same_responses(self, limit):
        whole = token_ids(sample_groups(engine(), REQUESTS, PARAMS))
        cut = responses(sample_groups(engine(), REQUESTS, replace(PARAMS, max_new_tokens=limit)))
        assert [tuple(item.token_ids.tolist()) for item in cut] == [ids[:limit] for ids in whole]
        expected = ["stop" if item.token_ids[-1] in END_IDS else "length" for item in cut]
        assert [item.finish for item in cut] == expected

    def test_each_token_has_its_log_probability_and_is_trained(self):
        for item in responses(sample_groups(engine(), REQUESTS, PARAMS)):
            assert len(item.token_ids) == len(item.logprobs) == len(item.trained) > 0
            assert all(item.trained)
            assert max(item.logprobs) <= 0


class TestStopTexts:
    def whole(self):
        return responses(sample_groups(engine(), REQUESTS, PARAMS))

    def texts(self):
        """Pairs of letters that some response has in its middle."""
        pairs = [item.text[i : i + 2] for item in self.whole() for i in range(1, len(item.text) - 3)]
        return sorted({pair for pair in pairs if pair.isascii() and pair.isprintable()})[:3]

    def test_response_ends_with_the_token_that_completes_it(self):
        stops = tuple(self.texts())
        assert stops
        tokenizer = build_tokenizer()
        found = responses(sample_groups(engine(), REQUESTS, replace(PARAMS, stop=stops)))
        stopped = 0
        for item, free in zip(found, self.whole(), strict=True):
            prefixes = range(1, len(free.token_ids) + 1)
            hits = [n for n in prefixes if any(text in tokenizer.decode(free.token_ids[:n]) for text in stops)]
            assert item.token_ids.tolist() == (free.token_ids[: hits[0]] if hits else free.token_ids).tolist()
            if hits and hits[0] < len(free.token_ids):
                stopped += 1
                assert item.finish == "stop"
                assert any(text in item.text for text in stops)
        assert 0 < stopped < len(found)

    def test_text_of_the_prompt_does_not_stop(self):
        tokenizer = build_tokenizer()
        prompt = tokenizer("ab", add_special_tokens=False).input_ids
        plain_run, with_stop = (
            sample_groups(engine(), [request(prompt)], params) for params in (PARAMS, replace(PARAMS, stop=("ab",)))
        )
        assert token_ids(with_stop) == token_ids(plain_run)


@cache
def first_token_probabilities(temperature=1.0):
    with torch.no_grad():
        logits = plain("exaone")(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].double()
    return (logits / temperature).softmax(dim=-1).numpy()


def first_tokens(draws=10000, **changes):
    params = SamplingParams(group_size=draws, max_new_tokens=1, seed=1, **changes)
    (group,) = sample_groups(engine(), [request()], params)
    return group.responses


def chi_square(counts, expected):
    """(statistic, degrees of freedom), tokens expected fewer than 8 times pooled."""
    rare = expected < 8
    seen = np.append(counts[~rare], counts[rare].sum())
    wanted = np.append(expected[~rare], expected[rare].sum())
    keep = wanted > 0
    return float(((seen - wanted)[keep] ** 2 / wanted[keep]).sum()), int(keep.sum()) - 1


class TestFrequencies:
    def counts(self, found):
        return np.bincount([item.token_ids[0] for item in found], minlength=len(first_token_probabilities()))

    @pytest.mark.parametrize("temperature", [1.0, 0.6])
    def test_first_token_follows_the_softmax(self, temperature):
        counts = self.counts(first_tokens(temperature=temperature))
        statistic, freedom = chi_square(counts, counts.sum() * first_token_probabilities(temperature))
        assert statistic < freedom + 4 * (2 * freedom) ** 0.5
        wrong, freedom = chi_square(counts, counts.sum() * first_token_probabilities(temperature * 1.2))
        assert wrong > freedom + 10 * (2 * freedom) ** 0.5, "the bound can tell a wrong distribution"

    @pytest.mark.parametrize("top_p", [0.3, 0.9])
    def test_top_p_draws_from_the_renormalised_nucleus(self, top_p):
        probabilities = first_token_probabilities()
        order = np.argsort(-probabilities)
        size = int(np.searchsorted(np.cumsum(probabilities[order]), top_p)) + 1
        nucleus = np.zeros_like(probabilities)
        nucleus[order[:size]] = probabilities[order[:size]]
        found = first_tokens(top_p=top_p)
        counts = self.counts(found)
        assert not counts[nucleus == 0].any()
        statistic, freedom = chi_square(counts, counts.sum() * nucleus / nucleus.sum())
        assert statistic < freedom + 4 * (2 * freedom) ** 0.5
        for item in found[:100]:
            assert item.logprobs[0] == pytest.approx(np.log(probabilities[item.token_ids[0]]), abs=1e-4)


class TestSample:
    PROBABILITIES = torch.tensor([0.1, 0.0, 0.5, 0.4])

    @pytest.mark.parametrize(
        ("uniform", "token"), [(0.0, 0), (0.099, 0), (0.101, 2), (0.599, 2), (0.601, 3), (1 - 2**-24, 3)]
    )
    def test_inverse_of_the_cumulative_distribution(self, uniform, token):
        tokens, logprobs = sample(self.PROBABILITIES.log()[None], torch.tensor([uniform]), SamplingParams(1, 1))
        assert tokens.tolist() == [token]
        assert logprobs.item() == pytest.approx(float(self.PROBABILITIES[token].log()), abs=1e-6)

    @given(st.floats(0, 1, exclude_max=True, width=32), st.floats(0.05, 1.0), st.integers(0, 1000))
    def test_never_draws_what_has_no_probability(self, uniform, top_p, seed):
        logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(seed)) * 5
        logits[0, ::3] = -torch.inf
        logits[0, -1] = -torch.inf
        tokens, _ = sample(logits, torch.tensor([uniform]), SamplingParams(1, 1, top_p=top_p))
        assert logits[0, tokens[0]] > -torch.inf

    def test_greedy_takes_the_likeliest_at_temperature_1(self):
        tokens, logprobs = sample(self.PROBABILITIES.log()[None], torch.tensor([0.0]), SamplingParams(1, 1, 0.0))
        assert tokens.tolist() == [2]
        assert logprobs.item() == pytest.approx(np.log(0.5), abs=1e-6)

    @pytest.mark.parametrize(("top_p", "expected"), [(0.45, {2}), (0.55, {2, 3}), (0.95, {0, 2, 3})])
    def test_nucleus_is_the_fewest_that_reach_top_p(self, top_p, expected):
        uniform = torch.linspace(0, 1 - 2**-20, 1000)
        logits = self.PROBABILITIES.log().expand(1000, -1)
        tokens, _ = sample(logits, uniform, SamplingParams(1, 1, top_p=top_p))
        counts = Counter(tokens.tolist())
        assert set(counts) == expected
        total = sum(float(self.PROBABILITIES[token]) for token in expected)
        for token in expected:
            assert counts[token] == pytest.approx(1000 * float(self.PROBABILITIES[token]) / total, abs=2)


class TestWeights:
    def test_new_weights_are_sampled_from_and_named(self):
        own = TransformersEngine(tiny_exaone(seed=0), build_tokenizer())
        other = tiny_exaone(seed=1).eval()
        layout = weight_layout(other, torch.float32)
        before = sample_groups(own, REQUESTS, PARAMS)
        own.update_weights(pack_weights(other, layout), version=7)
        after = sample_groups(own, REQUESTS, PARAMS)
        assert {part.weights_version for item in responses(before) for part in item.segments} == {0}
        assert {part.weights_version for item in responses(after) for part in item.segments} == {7}
        for group in after:
            for item in group.responses:
                with torch.no_grad():
                    expected = token_logprobs(other, group.prompt_ids, item.token_ids)
                assert item.logprobs == pytest.approx(expected.tolist(), abs=1e-4)
