"""Says so when the bound on the gradient's norm decides how long the steps are."""

from collections import deque
from statistics import median

WINDOW = 20
"""Updates that are looked at."""
NEARLY_ALL = 0.95
"""The share of them that is too many."""


class ClipWatch:
    """Watches the norms of the last updates; warns once."""

    def __init__(self) -> None:
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._warned = False

    def warning(self, norm: float, limit: float) -> str | None:
        """Take an update's norm before clipping; return what to say where nearly all of a window were clipped."""
        self._norms.append(norm)
        clipped = sum(value > limit for value in self._norms)
        if self._warned or clipped < NEARLY_ALL * WINDOW:
            return None
        self._warned = True
        usual = median(self._norms)
        return (
            f"warning: {clipped} of the last {len(self._norms)} updates were cut to learner.max_grad_norm {limit:g} "
            f"(their norm is {usual:.3g}), so steps are equally long however few groups they have; set "
            f"learner.max_grad_norm={float(f'{4 * usual:.1g}'):g}"
        )
