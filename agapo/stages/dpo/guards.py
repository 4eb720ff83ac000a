"""What may go wrong in preference learning while the loss looks well, measured, and said where it did."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from agapo.recipe.pairs import GuardsConfig
from agapo.tracking.progress import print_table

Finding = dict[str, Any]


def guard_findings(
    own: GuardsConfig, before: Mapping[str, Any], after: Mapping[str, Any], chosen_drift: Sequence[float | None]
) -> list[Finding]:
    """Return `{"guard", "value", "limit", "ok"}` for each guard and mode.

    `before` and `after` have `measures` and `thinking` by mode; `chosen_drift` the chosen responses' log-probability
    against the start's, in nats a token, step by step (empty or None where it was not taken).
    """
    findings = []
    for mode, now in after["measures"].items():
        was = before["measures"][mode]
        thinks = after["thinking"][mode]
        leak = 1 - thinks if mode == "reasoning" else thinks
        findings += [
            _at_most(f"accuracy lost, {mode}", was["accuracy"] - now["accuracy"], own.accuracy_drop),
            _at_most(f"length grown, {mode}", now["tokens"] / max(was["tokens"], 1e-9), own.length_growth),
            _at_most(f"mode not obeyed, {mode}", leak, own.leakage),
        ]
    drift = [value for value in chosen_drift if value is not None]
    if drift:
        # The last tenth: a step's few pairs say little, and the way there is in the curve.
        last = drift[-max(1, len(drift) // 10) :]
        findings.append(_at_most("chosen less likely, nats a token", -sum(last) / len(last), own.chosen_drop))
    return findings


def _at_most(name: str, value: float, limit: float) -> Finding:
    # Rounded as it is shown: 0.5 - 0.48 is a little more than 0.02.
    value = round(value, 4)
    return {"guard": name, "value": value, "limit": limit, "ok": value <= limit}


def print_guards(findings: Sequence[Finding], console: Console) -> None:
    """Print each guard's value and limit, and what to do about those that tripped."""
    rows = [(item["guard"], f"{item['value']:.3f}", f"{item['limit']:g}", _mark(item)) for item in findings]
    print_table("Guards", ("", "is", "at most", ""), rows, console)
    if tripped := [item["guard"] for item in findings if not item["ok"]]:
        console.print(
            f"Look at: {', '.join(tripped)}. A new run (run.name=…) with a smaller training.learning_rate or fewer "
            "epochs moves the model less; pairs.png shows what it was taught.",
            style="yellow",
            soft_wrap=True,
            highlight=False,
        )


def _mark(item: Finding) -> str:
    return "ok" if item["ok"] else "LOOK"
