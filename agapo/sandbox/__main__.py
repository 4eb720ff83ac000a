"""Say whether model-written code can be contained here: `python -m agapo.sandbox`."""

from agapo.sandbox import problem

reason = problem()
print(f"sandbox for model-written code: {'works' if reason is None else f'not here: {reason} (docs/sandbox.md)'}")
