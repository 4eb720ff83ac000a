"""The section `reward`: how responses are judged."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, model_validator

from agapo.errors import UserError
from agapo.recipe.section import Strict
from agapo.resolve import did_you_mean

Combination = Literal["sum", "all"]


Truncated = Literal["wrong", "masked"]

ENOUGH_GROUPS = 8
"""Groups (prompts) that are looked at before errors, or verdicts that are missing, are a rate and no chance."""


class RewardTerm(Strict):
    """One reward function, what it is asked about, and how much it counts."""

    name: str
    """Its name in metrics, tables and `verdict`."""
    function: str
    """`package.module:function` with the signature `score(prompts, completions, **columns)`, or
    `score_group(prompt, completions, scores, **columns)`, which judges a prompt's responses together."""
    weight: float = 1.0
    """0 shows the term's mean and does not count."""
    domains: list[str] = Field(default_factory=list)
    """The domains whose responses it judges; empty means all."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function that are the same for every response."""
    deadline_s: float | None = Field(default=None, gt=0)
    """Its own limit instead of `reward.deadline_s`."""
    form: Literal["auto", "messages", "text"] = "auto"
    """How it reads prompts and completions: both as lists of messages, or both as texts, as TRL has them. `auto` gives
    it the prompt's messages and the response's text, and one of TRL's forms where it is seen to read that."""

    def judges(self, domain: str) -> bool:
        """Whether it is asked about responses of a domain."""
        return not self.domains or domain in self.domains


class RewardConfig(Strict):
    """How responses are judged."""

    terms: list[RewardTerm] = Field(min_length=1)
    combine: Combination | dict[str, Combination] = "sum"
    """`sum`: weighted sum of the terms; `all`: their product (weights other than 0 do not matter). One for all
    domains, or by domain, where those that are not named have `sum`."""
    verdict: str | dict[str, str] = ""
    """The term that decides `correct` (from a value of `correct_at`), one for all or by domain; by default the first
    that judges the domain and has a weight."""
    correct_at: float = 1.0
    """The verdict's value from which a response is correct: lower it for a shaped reward that seldom reaches 1."""
    truncated: Truncated = "wrong"
    """Responses cut at `max_new_tokens`, in training, evaluation and filter alike: the lowest reward that the terms can
    give, or no reward (left out of advantages and loss)."""
    workers: int = Field(default=2, ge=1)
    """Verifier processes, shared out over the hosts of a Ray cluster."""
    deadline_s: float = Field(default=10.0, gt=0)
    """Wall-clock limit for a term on a sample; then its worker is killed and the term scores 0."""
    max_error_rate: float = Field(default=0.2, ge=0, le=1)
    """Stop the run when more than this share of the samples of the last 64 prompts, of several steps where they have
    fewer, met an error."""

    def terms_for(self, domain: str) -> list[RewardTerm]:
        """Return the terms that judge a domain's responses."""
        return [term for term in self.terms if term.judges(domain)]

    def verdict_for(self, domain: str) -> str:
        """Return the name of the term that decides `correct` in a domain."""
        named = self.verdict.get(domain, "") if isinstance(self.verdict, dict) else self.verdict
        found = self.terms_for(domain)
        counting = [term for term in found if term.weight] or found
        return named or counting[0].name

    def combination_for(self, domain: str) -> Combination:
        """Return how a domain's terms become one reward."""
        return self.combine.get(domain, "sum") if isinstance(self.combine, dict) else self.combine

    @model_validator(mode="after")
    def _verdicts_are_terms(self) -> "RewardConfig":
        names = [term.name for term in self.terms]
        if len(set(names)) < len(names):
            raise ValueError(f"terms have the same name twice: {names}")
        by_domain = self.verdict if isinstance(self.verdict, dict) else {"": self.verdict} if self.verdict else {}
        for domain, name in by_domain.items():
            if name not in names:
                raise ValueError(f"verdict '{name}' is not one of the terms{did_you_mean(name, names)}")
            if domain and not self.terms[names.index(name)].judges(domain):
                raise ValueError(f"verdict '{name}' does not judge the domain '{domain}'; add it to the term's domains")
        return self

    @model_validator(mode="after")
    def _domains_are_known(self) -> "RewardConfig":
        known = {domain for term in self.terms for domain in term.domains}
        named = [
            *(self.verdict if isinstance(self.verdict, dict) else ()),
            *(self.combine if isinstance(self.combine, dict) else ()),
        ]
        for domain in named:
            if known and domain not in known and all(term.domains for term in self.terms):
                raise ValueError(f"no term judges the domain '{domain}'{did_you_mean(domain, sorted(known))}")
        return self


def require_terms(reward: RewardConfig, domains: Iterable[str]) -> None:
    """Raise UserError where the questions have a domain that no term judges, or whose verdict is not given there."""
    for domain in sorted(set(domains)):
        judging = [term.name for term in reward.terms_for(domain)]
        if not judging:
            known = sorted({name for term in reward.terms for name in term.domains})
            raise UserError(
                f"reward.terms: no term judges the domain '{domain}' of the questions{did_you_mean(domain, known)}; "
                "add it to a term's 'domains'"
            )
        if reward.verdict_for(domain) not in judging:
            raise UserError(
                f"reward.verdict: '{reward.verdict_for(domain)}' does not judge the domain '{domain}'; give a verdict "
                f"for it (verdict: {{{domain}: {judging[0]}}})"
            )
