"""The loss against closed forms in float64, and against TRL's RLOO and its own code on a batch it sampled."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agapo.algorithm.advantages import advantages
from agapo.algorithm.objective import Objective, TokenBatch, importance_weights, policy_loss
from tests.builders import tiny_exaone, token_logprobs

LENGTHS = (3, 1, 4)
RESPONSE = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2])
ADVANTAGES = torch.tensor([1.5, -0.5, 2.0], dtype=torch.float64)
SAMPLED = torch.tensor([-1.0, -2.0, -0.5, -3.0, -1.0, -1.5, -2.5, -0.1], dtype=torch.float64)
NOTHING = torch.zeros(8, dtype=torch.float64)


def batch(**changes):
    fields = {
        "response": RESPONSE,
        "responses": 3,
        "mask": torch.ones(8, dtype=torch.float64),
        "sampler_logprobs": SAMPLED,
        "reference_logprobs": NOTHING,
        "advantages": ADVANTAGES[RESPONSE],
        "kl_weights": torch.ones(8, dtype=torch.float64),
        "kl_baselines": NOTHING,
    }
    return TokenBatch(**(fields | changes))


def token_gradient(logprobs, tokens, objective, denominator=3.0):
    """dLoss/dlogprob of each token [T]."""
    leaf = logprobs.detach().clone().requires_grad_()
    loss, _ = policy_loss(leaf, tokens, objective, denominator)
    return torch.autograd.grad(loss, leaf)[0]


def close(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15)


class TestAggregation:
    """On-policy, the gradient at each token is −A · scale / denominator, with these scales."""

    def test_sequence(self):
        close(token_gradient(SAMPLED, batch(), Objective()), -ADVANTAGES[RESPONSE] / 3)

    def test_token_divides_by_the_constant(self):
        objective = Objective(aggregation="token", max_new_tokens=10)
        close(token_gradient(SAMPLED, batch(), objective), -ADVANTAGES[RESPONSE] / 10 / 3)

    def test_response_mean_divides_by_each_length(self):
        lengths = torch.tensor(LENGTHS)[RESPONSE]
        objective = Objective(aggregation="response_mean")
        close(token_gradient(SAMPLED, batch(), objective), -ADVANTAGES[RESPONSE] / lengths / 3)

    def test_response_mean_counts_trained_tokens_only(self):
        mask = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0], dtype=torch.float64)
        expected = -torch.tensor([0.75, 0, 0.75, -0.5, 0, 0, 2.0, 0], dtype=torch.float64) / 3
        close(token_gradient(SAMPLED, batch(mask=mask), Objective(aggregation="response_mean")), expected)

    def test_value_of_the_loss(self):
        # −(1.5·(−3.5) − 0.5·(−3) + 2·(−5.1))/3
        loss, sums = policy_loss(SAMPLED, batch(), Objective(), 3.0)
        assert loss.item() == pytest.approx(13.95 / 3)
        assert sums["tokens"].item() == 8
        assert sums["ratio_max"].item() == 1
        assert sums["ratio_outside"].item() == 0

    def test_short_batch_takes_a_proportionally_smaller_step(self):
        """Two of three responses kept: their gradient is as it was, not 3/2 of it."""
        whole = token_gradient(SAMPLED, batch(), Objective())
        names = ("mask", "sampler_logprobs", "reference_logprobs", "advantages", "kl_weights", "kl_baselines")
        kept = {name: getattr(batch(), name)[:4] for name in names}
        short = batch(response=RESPONSE[:4], responses=2, **kept)
        close(token_gradient(SAMPLED[:4], short, Objective()), whole[:4])


class TestMask:
    MASK = torch.tensor([1, 0, 1, 1, 1, 0, 0, 1], dtype=torch.float64)
    OBJECTIVES = (
        Objective(),
        Objective(importance="sequence"),
        Objective(clip=(0.2, 0.2), aggregation="response_mean"),
        *(Objective(kl_coefficient=0.5, kl_estimator=name) for name in ("sequence", "reward_to_go", "k2", "k3")),
    )

    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_untrained_tokens_get_no_gradient(self, objective):
        found = token_gradient(SAMPLED + 0.1, batch(mask=self.MASK), objective)
        assert (found[self.MASK == 0] == 0).all()
        assert (found[self.MASK == 1] != 0).all()

    @pytest.mark.parametrize("objective", OBJECTIVES)
    @pytest.mark.parametrize("value", [-2000.0, 2000.0])
    def test_numbers_behind_the_mask_do_not_matter(self, objective, value):
        """A tool's result may be all but impossible for the policy: exp() of its ratio overflows."""
        expected = token_gradient(SAMPLED + 0.1, batch(mask=self.MASK), objective)
        hidden = {
            name: torch.where(self.MASK == 0, value, getattr(batch(), name))
            for name in ("sampler_logprobs", "reference_logprobs")
        }
        close(token_gradient(SAMPLED + 0.1, batch(mask=self.MASK, **hidden), objective), expected)

    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_dummy_adds_nothing(self, objective):
        assert not token_gradient(SAMPLED, batch(mask=NOTHING), objective).any()
        loss, sums = policy_loss(SAMPLED, batch(mask=NOTHING), objective, 3.0)
        assert loss.item() == sums["tokens"].item() == sums["ratio_max"].item() == 0


class TestImportance:
    SHIFT = torch.tensor([0.1, -0.3, 0.5, 1.2, -0.2, 0.4, 0.3, 0.6], dtype=torch.float64)

    def test_token_level(self):
        expected = -ADVANTAGES[RESPONSE] * self.SHIFT.exp() / 3
        objective = Objective(importance="token", importance_cap=100)
        close(token_gradient(SAMPLED + self.SHIFT, batch(), objective), expected)

    def test_sequence_level_is_the_product_of_the_ratios(self):
        ratios = torch.tensor([0.3, 1.2, 1.1], dtype=torch.float64).exp()
        expected = -(ADVANTAGES * ratios)[RESPONSE] / 3
        objective = Objective(importance="sequence", importance_cap=100)
        close(token_gradient(SAMPLED + self.SHIFT, batch(), objective), expected)

    def test_sequence_level_counts_trained_tokens_only(self):
        mask = torch.tensor([1, 0, 1, 1, 1, 1, 1, 0], dtype=torch.float64)
        ratios = torch.tensor([0.6, 1.2, 0.5], dtype=torch.float64).exp()
        expected = -(ADVANTAGES * ratios)[RESPONSE] * mask / 3
        objective = Objective(importance="sequence", importance_cap=100)
        close(token_gradient(SAMPLED + self.SHIFT, batch(mask=mask), objective), expected)

    def test_geometric_level_is_the_mean_over_the_response(self):
        ratios = torch.tensor([0.3 / 3, 1.2, 1.1 / 4], dtype=torch.float64).exp()
        objective = Objective(importance="geometric", importance_cap=100)
        close(token_gradient(SAMPLED + self.SHIFT, batch(), objective), -(ADVANTAGES * ratios)[RESPONSE] / 3)

    def test_geometric_level_counts_trained_tokens_only(self):
        mask = torch.tensor([1, 0, 1, 0, 1, 1, 1, 0], dtype=torch.float64)
        ratios = torch.tensor([0.6 / 2, 0.0, 0.5 / 3], dtype=torch.float64).exp()
        objective = Objective(importance="geometric", importance_cap=100)
        expected = -(ADVANTAGES * ratios)[RESPONSE] * mask / 3
        close(token_gradient(SAMPLED + self.SHIFT, batch(mask=mask), objective), expected)

    @given(st.integers(1, 3000), st.floats(-0.5, 0.5))
    def test_geometric_level_does_not_depend_on_the_length(self, length, shift):
        """Where the product overflows or vanishes."""
        nothing = torch.zeros(length, dtype=torch.float64)
        tokens = TokenBatch(nothing.long(), 1, nothing + 1, nothing, nothing, nothing, nothing, nothing)
        found = importance_weights(nothing + shift, tokens, Objective(importance="geometric", importance_cap=1.3))
        torch.testing.assert_close(found, nothing + min(math.exp(shift), 1.3), rtol=1e-9, atol=0)

    def test_none(self):
        objective = Objective(importance="none")
        close(token_gradient(SAMPLED + self.SHIFT, batch(), objective), -ADVANTAGES[RESPONSE] / 3)

    @pytest.mark.parametrize(
        ("level", "ratios"),
        [
            ("token", SHIFT),
            ("sequence", [0.3] * 3 + [1.2] + [1.1] * 4),
            ("geometric", [0.1] * 3 + [1.2] + [1.1 / 4] * 4),
        ],
    )
    def test_truncated_at_the_cap_from_above_only(self, level, ratios):
        expected = [min(math.exp(ratio), 1.5) for ratio in ratios]
        found = importance_weights(self.SHIFT, batch(), Objective(importance=level, importance_cap=1.5))
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-7, atol=0)

    def test_truncated_tokens_keep_their_gradient(self):
        """The whole point against a PPO clip, which would make it 0."""
        expected = -ADVANTAGES[RESPONSE] * self.SHIFT.exp().clamp(max=1.5) / 3
        found = token_gradient(SAMPLED + self.SHIFT, batch(), Objective(importance_cap=1.5))
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)

    def test_huge_ratio_does_not_overflow(self):
        found = token_gradient(NOTHING, batch(sampler_logprobs=NOTHING - 1000), Objective(importance_cap=2.0))
        torch.testing.assert_close(found, -ADVANTAGES[RESPONSE] * 2 / 3, rtol=1e-7, atol=0)

    def test_shares_are_counted(self):
        _, sums = policy_loss(SAMPLED + self.SHIFT, batch(), Objective(importance_cap=1.5), 3.0)
        assert sums["ratio_max"].item() == pytest.approx(math.exp(1.2))
        assert sums["ratio_outside"].item() == 3  # e^0.5, e^1.2 and e^0.6 are above 1.5

    @pytest.mark.parametrize(("level", "outside"), [("sequence", 5), ("geometric", 1)])
    def test_shares_are_those_of_the_level(self, level, outside):
        # Products e^0.3, e^1.2, e^1.1 of 3, 1 and 4 tokens; means e^0.1, e^1.2, e^0.275.
        _, sums = policy_loss(SAMPLED + self.SHIFT, batch(), Objective(importance=level, importance_cap=1.5), 3.0)
        assert sums["ratio_outside"].item() == outside


class TestOffPolicy:
    """With sequence weights the expected gradient under any sampler is that of the policy's expected reward."""

    REWARDS = torch.tensor([0.0, 1.0, -2.0, 0.5], dtype=torch.float64)

    @pytest.mark.parametrize("aggregation", ["sequence", "token"])
    def test_expected_gradient(self, aggregation):
        """Responses are pairs of two independent tokens from {0, 1}: four in all."""
        policy = torch.tensor([[0.3, -0.2], [1.0, 0.1]], dtype=torch.float64, requires_grad=True)
        sampler = torch.tensor([[-0.5, 0.4], [0.2, 0.9]], dtype=torch.float64)
        pick = [torch.tensor(choice) for choice in product(range(2), repeat=2)]

        def both(logits, choice):
            return logits.log_softmax(-1).gather(1, choice[:, None]).squeeze(1)

        value = sum(
            reward * both(policy, choice).sum().exp() for reward, choice in zip(self.REWARDS, pick, strict=True)
        )
        exact = torch.autograd.grad(value, policy)[0]
        objective = Objective(importance="sequence", importance_cap=1e30, aggregation=aggregation, max_new_tokens=4)
        total = torch.zeros((), dtype=torch.float64)
        for reward, choice in zip(self.REWARDS, pick, strict=True):
            two = torch.zeros(2, dtype=torch.float64)
            tokens = TokenBatch(torch.tensor([0, 0]), 1, two + 1, both(sampler, choice), two, two + reward, two, two)
            loss, _ = policy_loss(both(policy, choice), tokens, objective, 1.0)
            total = total + both(sampler, choice).sum().exp() * loss
        scale = 1 if aggregation == "sequence" else 4
        torch.testing.assert_close(torch.autograd.grad(total, policy)[0] * -scale, exact, rtol=1e-9, atol=1e-12)

    def test_all_wrong_penalty_is_the_gradient_of_the_chance_that_one_is_right(self):
        """One token a response, of which 0 is right; all groups of three. DESIGN §4.3: δ · ∇P(at least one right),
        over G, since the loss is a mean over responses.
        """
        logits = torch.tensor([-1.0, 0.5, 0.3, 0.9], dtype=torch.float64, requires_grad=True)
        table = logits.log_softmax(-1)
        penalty, size = 0.7, 3
        total = torch.zeros((), dtype=torch.float64)
        for chosen in product(range(4), repeat=size):
            rewards = torch.tensor([[float(token == 0) for token in chosen]])
            found = [
                advantages(rewards, rewards >= 0, rewards.sum(1) == 0, batch="none", all_wrong_penalty=delta)[0]
                for delta in (penalty, 0.0)
            ]
            current, none = table[list(chosen)], torch.zeros(size, dtype=torch.float64)
            tokens = TokenBatch(
                torch.arange(size), size, none + 1, current.detach(), none, found[0] - found[1], none, none
            )
            loss, _ = policy_loss(current, tokens, Objective(), float(size))
            total = total + current.sum().exp().detach() * loss
        chance = 1 - (1 - table[0].exp()) ** size
        expected = torch.autograd.grad(penalty / size * chance, logits, retain_graph=True)[0]
        torch.testing.assert_close(-torch.autograd.grad(total, logits)[0], expected, rtol=1e-9, atol=1e-12)


class TestClip:
    """PPO's clip acts token by token, and only where a ratio has left the interval in the advantage's direction."""

    LOW, HIGH = 0.2, 0.28

    @given(st.lists(st.floats(0.3, 3.0), min_size=8, max_size=8), st.lists(st.floats(-2, 2), min_size=3, max_size=3))
    def test_differs_from_the_unclipped_gradient_only_there(self, ratios, values):
        ratio = torch.tensor(ratios, dtype=torch.float64)
        tokens = batch(advantages=torch.tensor(values, dtype=torch.float64)[RESPONSE])
        bare = Objective(importance="token", importance_cap=1e9, aggregation="token", max_new_tokens=7)
        clipped = token_gradient(SAMPLED + ratio.log(), tokens, replace(bare, clip=(self.LOW, self.HIGH)))
        unclipped = token_gradient(SAMPLED + ratio.log(), tokens, bare)
        too_high = (ratio > 1 + self.HIGH) & (tokens.advantages > 0)
        too_low = (ratio < 1 - self.LOW) & (tokens.advantages < 0)
        expected = torch.where(too_high | too_low, 0.0, -tokens.advantages * ratio / 7 / 3)
        torch.testing.assert_close(clipped, expected, rtol=1e-9, atol=1e-12)
        inside = ~(too_high | too_low)
        torch.testing.assert_close(clipped[inside], unclipped[inside], rtol=1e-9, atol=1e-12)

    def test_on_policy_is_the_bare_gradient(self):
        objective = Objective(clip=(self.LOW, self.HIGH))
        close(token_gradient(SAMPLED, batch(), objective), -ADVANTAGES[RESPONSE] / 3)

    def test_share_outside_is_counted(self):
        ratio = torch.tensor([1.0, 0.7, 1.3, 1.27, 0.81, 1.0, 5.0, 0.1], dtype=torch.float64)
        _, sums = policy_loss(SAMPLED + ratio.log(), batch(), Objective(clip=(self.LOW, self.HIGH)), 3.0)
        assert sums["ratio_outside"].item() == 4


class TestKLTerm:
    LOG_RATIO = torch.tensor([0.2, -0.1, 0.4, 0.3, -0.5, 0.1, 0.2, 0.7], dtype=torch.float64)
    WEIGHTS = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)[RESPONSE]

    def tokens(self, **changes):
        fields = {"reference_logprobs": SAMPLED - self.LOG_RATIO, "kl_weights": self.WEIGHTS, "advantages": NOTHING}
        return batch(**(fields | changes))

    @pytest.mark.parametrize(
        ("estimator", "coefficients"),
        [
            ("sequence", [0.5, 0.5, 0.5, 0.3, 0.5, 0.5, 0.5, 0.5]),
            ("reward_to_go", [0.5, 0.3, 0.4, 0.3, 0.5, 1.0, 0.9, 0.7]),
            ("k2", LOG_RATIO),
            ("k3", 1 - (-LOG_RATIO).exp()),
        ],
    )
    def test_gradient_is_the_weighted_coefficient(self, estimator, coefficients):
        objective = Objective(kl_coefficient=0.2, kl_estimator=estimator)
        expected = 0.2 * self.WEIGHTS * torch.as_tensor(coefficients, dtype=torch.float64) / 3
        close(token_gradient(SAMPLED, self.tokens(), objective), expected)

    def test_baselines_are_subtracted(self):
        objective = Objective(kl_coefficient=0.2, kl_estimator="sequence")
        found = token_gradient(SAMPLED, self.tokens(kl_baselines=NOTHING + 0.5), objective)
        close(found, 0.2 * self.WEIGHTS * torch.tensor([0, 0, 0, -0.2, 0, 0, 0, 0], dtype=torch.float64) / 3)

    def test_untrained_tokens_are_not_part_of_the_response(self):
        mask = torch.tensor([1, 1, 0, 1, 0, 1, 1, 1], dtype=torch.float64)
        objective = Objective(kl_coefficient=0.2, kl_estimator="sequence")
        coefficients = torch.tensor([0.1, 0.1, 0, 0.3, 0, 1.0, 1.0, 1.0], dtype=torch.float64)
        close(token_gradient(SAMPLED, self.tokens(mask=mask), objective), 0.2 * self.WEIGHTS * coefficients / 3)

    def test_metrics(self):
        _, sums = policy_loss(SAMPLED, self.tokens(), Objective(kl_coefficient=0.2), 3.0)
        assert sums["kl"].item() == pytest.approx(1.3)
        assert sums["kl_k3"].item() == pytest.approx(sum(math.exp(-x) - 1 + x for x in self.LOG_RATIO.tolist()))


@pytest.fixture(scope="module")
def trl_batch(tmp_path_factory):
    """A batch that TRL's RLOOTrainer sampled and scored itself: (trainer, its inputs to the loss, the rewards)."""
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    from agapo.model.tokenizer import build_tokenizer

    seen = []

    def score(completion_ids, **_):
        # All wrong for the third prompt; otherwise something that varies inside the groups.
        rewards = [float(sum(ids) % 3 == 0) if place // 4 != 2 else 0.0 for place, ids in enumerate(completion_ids)]
        seen.append(rewards)
        return rewards

    settings = RLOOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        beta=0.0,
        normalize_advantages=True,
        num_generations=4,
        per_device_train_batch_size=16,
        max_completion_length=6,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        seed=0,
    )
    questions = [{"prompt": text} for text in ("1+1=", "20+3=", "sort 3 1 2", "7*8=")]
    model = tiny_exaone()
    model.generation_config.eos_token_id = [2, *range(10, 60)]
    trainer = RLOOTrainer(
        model=model,
        reward_funcs=score,
        args=settings,
        train_dataset=Dataset.from_list(questions),
        processing_class=build_tokenizer(),
    )
    trainer.model.train()
    inputs = trainer._generate_and_score_completions([row for row in questions for _ in range(4)])
    return trainer, inputs, torch.tensor(seen[0], dtype=torch.float64).view(4, 4)


class TestAgainstTRL:
    """TRL divides by Bessel's std + 1e-4 where we divide by the population std: the one difference, a scale."""

    def advantages(self, rewards):
        wrong = (rewards == 0).all(dim=1)
        return advantages(rewards, torch.ones_like(rewards, dtype=torch.bool), wrong, all_wrong_penalty=0.0)

    def scale(self, rewards):
        """Ours over theirs: (s·√(n/(n−1)) + 1e-4)/s, with s the population std of the leave-one-out advantages."""
        count = rewards.shape[1]
        loo = rewards - (rewards.sum(1, keepdim=True) - rewards) / (count - 1)
        total = loo.numel()
        spread = float((loo**2).mean().sqrt())
        return (spread * math.sqrt(total / (total - 1)) + 1e-4) / spread

    def test_batch_is_worth_comparing(self, trl_batch):
        _, inputs, rewards = trl_batch
        assert not rewards[2].any()
        assert {0.0, 1.0} == set(rewards.flatten().tolist())
        assert len(set(inputs["completion_mask"].sum(1).tolist())) > 1

    def test_advantages(self, trl_batch):
        _, inputs, rewards = trl_batch
        theirs = inputs["advantages"].double() * self.scale(rewards)
        torch.testing.assert_close(self.advantages(rewards).flatten(), theirs, rtol=1e-5, atol=1e-6)

    def test_gradient(self, trl_batch):
        trainer, inputs, rewards = trl_batch
        model = trainer.model
        model.zero_grad()
        trainer.compute_loss(model, inputs).backward()
        theirs = {name: value.grad.clone() for name, value in model.named_parameters()}
        model.zero_grad()
        self.our_loss(model, inputs, rewards).backward()
        scale = self.scale(rewards)
        for name, value in model.named_parameters():
            difference = (value.grad - scale * theirs[name]).norm() / value.grad.norm()
            assert difference < 1e-5, name

    def our_loss(self, model, inputs, rewards):
        prompts = [
            ids[mask.bool()].tolist() for ids, mask in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True)
        ]
        kept = zip(inputs["completion_ids"], inputs["completion_mask"], strict=True)
        completions = [ids[mask.bool()].tolist() for ids, mask in kept]
        pieces = [token_logprobs(model, *pair) for pair in zip(prompts, completions, strict=True)]
        logprobs = torch.cat(pieces)
        counts = torch.tensor([len(piece) for piece in pieces])
        none = torch.zeros_like(logprobs.detach())
        values = self.advantages(rewards).flatten().float().repeat_interleave(counts)
        response = torch.arange(len(counts)).repeat_interleave(counts)
        tokens = TokenBatch(response, len(counts), none + 1, logprobs.detach(), none, values, none, none)
        return policy_loss(logprobs, tokens, Objective(), float(len(counts)))[0]
