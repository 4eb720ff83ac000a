"""Every metric of a run: its name, what it means, and where it should lie, as docs/metrics.md says.

The part before the first slash is the group, a section in W&B and TensorBoard.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

HEAD = """# Metrics

What is in `metrics.jsonl`, and so in W&B and TensorBoard ([tracking.md](tracking.md)), step by step. Made by
`python -m agapo.tracking.metrics > docs/metrics.md`; a test holds this page to it, and another one holds runs to it.
`<…>` stands for a name of the run's own. A healthy range is what our own runs show; where none is given, there is none.
"""


@dataclass(frozen=True)
class Metric:
    """One metric, or several of which a part of the name is a run's own."""

    name: str
    """With `<…>` for such a part."""
    meaning: str
    healthy: str = ""

    @property
    def pattern(self) -> re.Pattern[str]:
        """What its names look like."""
        parts = re.split(r"<[^>]*>", self.name)
        return re.compile(r"[^/]+".join(map(re.escape, parts)))


RL = (
    Metric("reward/mean", "mean reward of the step's responses, refilled groups included", "rises"),
    Metric("reward/accuracy", "share of responses whose verdict reaches `reward.correct_at`", "rises"),
    Metric("reward/accuracy_<domain>", "the same by domain, where there are several"),
    Metric("reward/<term>", "mean of a term, before its weight, where there are several"),
    Metric("reward/errors", "share of responses whose scoring failed (`reward_errors.jsonl`)", "0"),
    Metric("reward/errors_<kind>", "the same by kind: `timeout`, `crash`, …", "0"),
    Metric(
        "group/all_correct", "share of groups in which every response is correct: dropped, nothing to learn", "< 0.6"
    ),
    Metric("group/mixed", "share of groups with correct and wrong responses: the ones that teach", "> 0.3"),
    Metric("group/all_wrong", "share of groups in which none is correct: a small penalty each", "falls"),
    Metric("group/kept", "groups that were learned from"),
    Metric("group/dropped", "groups that were sampled and not learned from"),
    Metric("group/refilled", "groups sampled beyond `prompts_per_step`, to replace dropped ones"),
    Metric("group/short", "groups that were lacking in the end (`algorithm.refill.max_extra`)", "0"),
    Metric("group/surplus", "prompts begun beyond the batch, which go back to the stream (`rollout.oversample`)"),
    Metric("advantage/max", "largest |advantage|; a lone mixed group among equal ones gets a huge one", "< 10"),
    Metric("kl/sequence", "cumulative KL of a response against the reference, nats", "rises slowly"),
    Metric("kl/token", "the same a token, nats", "< 0.1"),
    Metric("kl/k3", "the estimator k3 a token, beside it: never negative, nats", "< 0.1"),
    Metric("policy/loss", "the loss; its height means nothing, see docs/agapo.md"),
    Metric("policy/entropy", "of the next token, nats", "falls, not to 0"),
    Metric("policy/grad_norm", "largest norm of the step's updates, before it is clipped", "steady"),
    Metric("policy/clipped_steps", "share of all updates so far whose gradient was clipped", "< 0.5"),
    Metric("policy/ratio_max", "largest π_θ/π_sampler of a token", "1 at one update a step, in float32"),
    Metric("policy/ratio_capped", "share of tokens at the cap (or outside the clip) of the ratio", "< 0.05"),
    Metric("policy/learning_rate", "of the step"),
    Metric(
        "mismatch/mean",
        "mean of |log π_learner − log π_engine| on the same tokens, nats",
        "1e-6 in float32, 0.02 in bfloat16",
    ),
    Metric("mismatch/max", "the largest"),
    Metric("mismatch/kl", "the estimate of KL(engine ‖ learner) a token, nats", "0"),
    Metric("mismatch/ess", "effective sample size, as a share of the tokens", "1"),
    Metric("staleness/mean", "steps by which a token's weights were behind those that learn, mean (docs/async.md)"),
    Metric("staleness/max", "the most", "≤ `rollout.max_staleness`"),
    Metric("rollout/length", "tokens of a response, mean", "steady or slowly rising"),
    Metric("rollout/truncated", "share of responses cut at `rollout.max_new_tokens`", "< 0.1"),
    Metric("rollout/tokens", "tokens sampled in the step"),
    Metric("rollout/tokens_per_s", "the same a second of sampling"),
    Metric("rollout/restarts", "actors that died and were replaced, so far", "0"),
    Metric("rollout/waiting", "groups that wait to be learned from, where sampling runs ahead"),
    Metric("rollout/idle", "share of the step in which actors had nothing to do, where sampling runs ahead"),
    Metric("rollout/samples", "a table of the step's first responses (W&B alone)"),
    Metric("memory/rank_gib", "most GPU memory that a rank's tensors took in the step, GiB"),
    Metric("eval/<mode>", "accuracy on the validation questions, greedy", "rises"),
    Metric("eval/reward", "mean reward there", "rises"),
    Metric("eval/<set>/<mode>", "accuracy on the questions of `evaluation.sets`"),
)
FINE_TUNING = (
    Metric("train/loss", "mean loss of the step", "falls"),
    Metric("train/grad_norm", "norm of the gradient, before it is clipped", "steady"),
    Metric("train/learning_rate", "of the step"),
    Metric("train/entropy", "of the next token on trained tokens, nats"),
)
SFT = (
    Metric("train/token_accuracy", "share of trained tokens that the model has as the likeliest", "rises"),
    Metric("data/tokens/<mode>", "tokens trained on so far, by mode"),
    Metric("data/token_ratio", "reasoning to non-reasoning tokens so far", "what `data.mix.modes` asks for"),
    Metric("data/<field>/<name>", "share of the trained tokens so far, by `domain` and by `language`"),
)
DPO = (
    Metric("pairs/accuracy", "share of pairs whose chosen response gained more on the rejected one", "> 0.5, rises"),
    Metric("pairs/margin", "what the loss looks at: chosen less rejected", "rises"),
    Metric("pairs/chosen_logprob", "of chosen responses, nats a token", "does not fall"),
    Metric("pairs/rejected_logprob", "of rejected responses, nats a token", "falls"),
    Metric("pairs/chosen_drift", "the first against the start, nats a token", "> −0.5 (`guards.chosen_drop`)"),
    Metric("pairs/rejected_drift", "the second against the start, nats a token"),
)
TIMES = (
    Metric("time/step", "seconds of the step"),
    Metric("time/<phase>", "of it by phase: `generate`, `score`, `learn`, `sync`"),
    Metric("time/evaluate", "seconds of an evaluation, beside the step"),
)
PARTS = {
    "`agapo rl`": RL,
    "`agapo sft` and `agapo dpo`": FINE_TUNING,
    "`agapo sft`": SFT,
    "`agapo dpo`": DPO,
    "All": TIMES,
}


@cache
def metric_of(name: str) -> Metric | None:
    """Return what a logged name is, None where nobody has said. The one with most of it written out counts."""
    known = [metric for part in PARTS.values() for metric in part]
    found = [metric for metric in known if metric.pattern.fullmatch(name)]
    return max(found, key=lambda metric: len(re.sub(r"<[^>]*>", "", metric.name)), default=None)


def page() -> str:
    """Return docs/metrics.md."""
    return "\n".join([HEAD, *_tables()])


def _tables() -> Iterator[str]:
    for title, metrics in PARTS.items():
        yield f"## {title}\n\n| name | meaning | healthy |\n|---|---|---|"
        yield from (
            f"| `{metric.name}` | {_escaped(metric.meaning)} | {_escaped(metric.healthy)} |" for metric in metrics
        )
        yield ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
