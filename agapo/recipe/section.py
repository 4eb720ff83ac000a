"""What recipe sections are made of: strict models, paths, shares."""

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict

from agapo.built_in import find_recipe
from agapo.schema import MODES, Mode

V = TypeVar("V")


class Strict(BaseModel):
    """A recipe section: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


def _absolute(path: Path) -> Path:
    return path.expanduser().resolve()


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
"""A local path, made absolute on loading: Ray workers may run elsewhere."""


RecipePath = Annotated[Path, AfterValidator(lambda path: _absolute(find_recipe(path)))]
"""A recipe's file, made absolute on loading: one's own, or the built-in one of that name."""


def _absolute_if_local(name: str) -> str:
    looks_local = name.startswith((".", "/", "~", "outputs/")) or Path(name).exists()
    return str(_absolute(Path(name))) if looks_local else name


ModelName = Annotated[str, AfterValidator(_absolute_if_local)]
"""A local folder, or a name on the Hugging Face hub (`Qwen/Qwen3-0.6B`)."""


def check_once(values: list[V], what: str) -> list[V]:
    """Nothing may be named twice."""
    if len(set(values)) < len(values):
        raise ValueError(f"should name each {what} once")
    return values


def check_modes(modes: dict[Mode, float]) -> dict[Mode, float]:
    """Shares must be positive somewhere and negative nowhere."""
    if min(modes.values(), default=0) < 0 or sum(modes.values()) <= 0:
        raise ValueError(f"shares of {', '.join(MODES)} should be ≥ 0 with one above 0")
    return modes


def check_quantize(quantizes: bool, zero_stage: int) -> None:
    """DeepSpeed cannot divide weights of 4 bits."""
    if quantizes and zero_stage == 3:
        raise ValueError("lora.quantize: not under zero_stage 3, which divides the weights; take 0, 1 or 2")


def check_offload(offload: bool, zero_stage: int, folder: Path | None) -> None:
    """Without ZeRO there is nothing that DeepSpeed could move to the host's memory, nor without it to a disk."""
    if offload and not zero_stage:
        raise ValueError("offload: needs zero_stage 1, 2 or 3")
    if folder and not offload:
        raise ValueError("offload_folder: is where offload puts things; set offload: true, or leave it out")
