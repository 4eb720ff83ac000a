"""A longer context: a model's rotary positions (RoPE) rescaled, and the context that its config states raised.

What is set here is written with the model (`rope_parameters` and `max_position_embeddings` of `config.json`), so an
exported model needs no setting where it is loaded next. Left out on purpose: `dynamic` (its frequencies change with
the longest sequence of a batch, so a response would depend on which others it was sampled beside, and cached keys
would not fit later queries), `longrope` (its factors are searched for, for one model), and models whose layers differ
in their RoPE.
"""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from agapo.errors import UserError

KEEPS_ORIGINAL = ("yarn", "llama3")
"""Types whose parameters name the context that the model was first trained on."""
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
"""What Llama 3.1 and EXAONE 4.0 use."""


def extend_context(config: PreTrainedConfig, rope: Mapping[str, Any]) -> None:
    """Set a model's RoPE and context as the fields of `RopeConfig` say; doing it twice is doing it once.

    The factor counts from the original context, so it is the whole stretch and not one on top of an earlier one.
    Raises UserError when the model has no RoPE, or one for each type of layer.
    """
    text = config.get_text_config()
    current = _current(text)
    original = rope["original_max_position_embeddings"] or _original(text, current)
    parameters = {"rope_type": rope["type"], "rope_theta": rope["theta"] or current["rope_theta"]}
    if "partial_rotary_factor" in current:
        parameters["partial_rotary_factor"] = current["partial_rotary_factor"]
    if rope["type"] != "default":
        parameters["factor"] = rope["factor"]
    if rope["type"] in KEEPS_ORIGINAL:
        parameters["original_max_position_embeddings"] = original
    if rope["type"] == "llama3":
        parameters |= {name: current.get(name, value) for name, value in LLAMA3.items()}
    text.rope_parameters = parameters
    text.max_position_embeddings = rope["max_position_embeddings"] or round(original * rope["factor"])


def _current(config: PreTrainedConfig) -> Mapping[str, Any]:
    parameters = getattr(config, "rope_parameters", None)
    if not parameters:
        raise UserError(f"model.rope: a model of type '{config.model_type}' has no rotary positions; leave it out")
    if "rope_theta" not in parameters:
        raise UserError(
            f"model.rope: the layers of '{config.model_type}' differ in their RoPE ({', '.join(parameters)}); "
            "set rope_parameters in the model's config.json instead"
        )
    return parameters


def _original(config: PreTrainedConfig, current: Mapping[str, Any]) -> int:
    """Return the context before any stretching."""
    known = current.get("original_max_position_embeddings")
    stretched = current.get("factor") if current["rope_type"] == "linear" else None
    return int(known or round(config.max_position_embeddings / (stretched or 1)))
