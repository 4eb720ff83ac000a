"""The section `model`, and SFT's `create`: what a run starts from."""

from typing import Any, Literal

from pydantic import Field, model_validator

from agapo.recipe.section import AbsolutePath, ModelName, RecipePath, Strict

ORIGIN = "made_from.txt"
"""In a folder that is a model with another chat template (`agapo.model.templated`): the model's own folder or name."""


class RopeConfig(Strict):
    """A longer context than the model was trained for. Exported models have it in their config."""

    type: Literal["default", "linear", "yarn", "llama3"] = "yarn"
    """How rotary positions are stretched; `default`: not at all (with a new `theta` or `max_position_embeddings`)."""
    factor: float = Field(default=1.0, ge=1)
    """The new context as a multiple of the original one (not of what an earlier run made of it)."""
    original_max_position_embeddings: int | None = Field(default=None, ge=1)
    """The context that the model was first trained on; None takes what its config says."""
    theta: float | None = Field(default=None, gt=0)
    """Base of the wavelengths; None keeps the model's."""
    max_position_embeddings: int | None = Field(default=None, ge=1)
    """The new context in tokens; None: original × factor."""

    @model_validator(mode="after")
    def _says_something(self) -> "RopeConfig":
        if self.type == "default" and self.factor != 1:
            raise ValueError("type 'default' stretches nothing: give max_position_embeddings instead of factor")
        if self.type == "default" and not (self.theta or self.max_position_embeddings):
            raise ValueError("type 'default' changes nothing without theta or max_position_embeddings")
        return self


class ModelConfig(Strict):
    """The model to start from."""

    path: ModelName | None = None
    """A Hugging Face folder, a hub name, or a GGUF file."""
    start: RecipePath | None = None
    """An SFT recipe whose finished run is the model; it is run first when there is none."""
    chat_template: AbsolutePath | None = None
    """A file with a chat template (Jinja) in place of the model's own, or for a base model, which has none."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format that the model computes in, and is exported in."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention's implementation in transformers; `flash_attention_2` has to be installed."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    rope: RopeConfig | None = None
    """Stretch the model's context; None takes the model as it is."""

    @property
    def rope_fields(self) -> dict[str, Any] | None:
        """`rope` as plain values, for `load_model` and `load_config`."""
        return self.rope.model_dump() if self.rope else None


class CreateModelConfig(Strict):
    """A small EXAONE 4 model with random weights and the project's own byte-level tokenizer."""

    hidden_size: int = Field(default=96, ge=8)
    """Width of the residual stream."""
    intermediate_size: int = Field(default=288, ge=8)
    """Width inside the feed-forward layers."""
    layers: int = Field(default=4, ge=1)
    """Transformer layers."""
    heads: int = Field(default=4, ge=1)
    """Query heads a layer."""
    kv_heads: int = Field(default=2, ge=1)
    """Key and value heads a layer; `heads` is a multiple."""
    head_dim: int = Field(default=32, ge=2, multiple_of=2)
    """Size of one head. vLLM's attention takes 32, 64, 96, 128 and some more, but not any."""
    sliding_window: int = Field(default=24, ge=1)
    """Tokens that a local layer sees."""
    sliding_window_pattern: int = Field(default=4, ge=1)
    """Every so many layers one is global, the others local (EXAONE 4: 3 local : 1 global)."""
    max_position_embeddings: int = Field(default=4096, ge=16)
    """The context in tokens."""
    vocabulary: int = Field(default=0, ge=0)
    """Entries of a tokenizer that is trained on the recipe's own dialogues; 0 takes a token a byte."""

    @model_validator(mode="after")
    def _heads_share_keys(self) -> "CreateModelConfig":
        if self.heads % self.kv_heads:
            raise ValueError(f"heads: {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        return self
