"""The recipe of the SFT stage: both modes in one run, mixed by trained tokens."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from agapo.recipe.base import DataConfig, Recipe, SourceConfig, Strict, check_modes
from agapo.recipe.curation import CurationConfig
from agapo.recipe.needle import NeedleConfig
from agapo.recipe.rl import RewardConfig, RolloutConfig
from agapo.recipe.trainer import TrainerConfig
from agapo.schema import MODES, Mode


class CreateModelConfig(Strict):
    """A small EXAONE 4 model with random weights and the project's own byte-level tokenizer."""

    hidden_size: int = Field(default=96, ge=8)
    intermediate_size: int = Field(default=288, ge=8)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    kv_heads: int = Field(default=2, ge=1)
    head_dim: int = Field(default=32, ge=2, multiple_of=2)
    """Size of one head. vLLM's attention takes 32, 64, 96, 128 and some more, but not any."""
    sliding_window: int = Field(default=24, ge=1)
    sliding_window_pattern: int = Field(default=4, ge=1)
    """Every so many layers one is global, the others local (EXAONE 4: 3 local : 1 global)."""
    max_position_embeddings: int = Field(default=4096, ge=16)
    vocabulary: int = Field(default=0, ge=0)
    """Entries of a tokenizer that is trained on the recipe's own dialogues; 0 takes a token a byte."""

    @model_validator(mode="after")
    def _heads_share_keys(self) -> "CreateModelConfig":
        if self.heads % self.kv_heads:
            raise ValueError(f"heads: {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        return self


REPORT_MODES: dict[Mode, float] = {"reasoning": 1.5, "non_reasoning": 1.0}


class MixConfig(Strict):
    """What the run is made of, in trained tokens: after the chat template, truncation and the loss mask."""

    modes: dict[Mode, float] | None = None
    """Shares of the modes. Without: the report's 1.5 : 1 (arXiv 2507.11407, §2.4.1), or, where one mode is so scarce
    that it would have to be held (`max_repeats`), as the dialogues are."""
    domains: dict[str, float | dict[str, float]] = Field(default_factory=dict)
    """Shares of the domains inside each mode, for both modes at once or by mode. Empty: whatever the sources'
    weights give."""
    max_repeats: float = Field(default=8.0, ge=1)
    """No mode, domain or source is passed over more than so many times while the data is passed over once; what its
    share has beyond that goes to the others, and a warning says so."""

    _modes = field_validator("modes")(lambda modes: None if modes is None else check_modes(modes))

    @property
    def shares_of_modes(self) -> dict[str, float]:
        """The shares of the modes, given or not."""
        return {str(mode): share for mode, share in (self.modes or REPORT_MODES).items()}

    def domains_of(self, mode: str) -> dict[str, float]:
        """Return the shares of the domains inside a mode; empty where the recipe leaves them to the sources."""
        by_mode = {name: value for name, value in self.domains.items() if isinstance(value, dict)}
        if by_mode:
            return by_mode.get(mode, {})
        return {name: value for name, value in self.domains.items() if isinstance(value, float | int)}

    @model_validator(mode="after")
    def _domains_are_one_form(self) -> "MixConfig":
        by_mode = [name for name, value in self.domains.items() if isinstance(value, dict)]
        if by_mode and set(by_mode) != set(self.domains):
            raise ValueError("domains: give shares by domain, or by mode and domain, not both")
        if unknown := set(by_mode) - set(MODES):
            raise ValueError(f"domains: {', '.join(sorted(unknown))} should be {' or '.join(MODES)}")
        shares = [share for mode in MODES for share in self.domains_of(mode).values()]
        if shares and (min(shares) < 0 or max(shares) <= 0):
            raise ValueError("domains: shares should be ≥ 0 with one above 0")
        return self


class DialogueSourceConfig(SourceConfig):
    """One source of dialogues. `weight` is its share of the trained tokens inside each mode (or domain)."""

    limit: int | None = Field(default=None, ge=1)
    """Take only the first so many rows."""


class DialogueDataConfig(DataConfig):
    """Where dialogues come from, and what becomes of those that do not fit."""

    sources: dict[str, DialogueSourceConfig] = Field(default_factory=dict)  # pyright: ignore[reportIncompatibleVariableOverride]
    """Instead of `source`: sources by name."""
    mix: MixConfig = MixConfig()
    order: Literal["shuffled", "source"] = "shuffled"
    """Each pass in another order, or in the source's own, which may be a curriculum."""
    overlong: Literal["refuse", "drop", "truncate"] = "drop"  # pyright: ignore[reportIncompatibleVariableOverride]
    """What to do about dialogues longer than `training.row_tokens`: stop, leave out, or cut at the end."""
    malformed: Literal["refuse", "drop"] = "refuse"
    """What to do about rows that are no dialogues: stop, or leave out. Those left out are in `dropped.jsonl`."""

    @property
    def parts(self) -> dict[str, SourceConfig]:
        """The sources by name; a single one goes by its own."""
        return dict(self.sources) or super().parts


class SFTTrainingConfig(TrainerConfig):
    """How the model is fine-tuned."""

    learning_rate: float = Field(default=5e-3, gt=0)
    rows_per_step: int = Field(default=8, ge=1)
    """Packed rows a step, over all ranks."""
    micro_batch_rows: int = Field(default=0, ge=0)
    """Rows that a rank puts through the model at once; 0 takes its whole share of the step."""
    row_tokens: int = Field(default=128, ge=16)
    """Tokens a packed row, and so the longest dialogue."""

    @property
    def micro_rows(self) -> int:
        """Rows a rank puts through the model at once."""
        return self.micro_batch_rows or self.rows_per_step // self.ranks

    @property
    def accumulation(self) -> int:
        """Micro-batches of a rank a step."""
        return self.rows_per_step // (self.ranks * self.micro_rows)

    @model_validator(mode="after")
    def _parts_fit(self) -> "SFTTrainingConfig":
        self.require_even_parts("rows", self.rows_per_step, self.micro_batch_rows)
        return self


class MeasureConfig(Strict):
    """Greedy accuracy on the test questions, before and after."""

    modes: list[Mode] = Field(default_factory=lambda: list(MODES), min_length=1)
    test_size: int = Field(default=512, ge=1)
    """Questions, shared out by the sources' weights."""
    chunk_prompts: int = Field(default=128, ge=1)
    """Prompts that one actor answers together."""


class SFTRecipe(Recipe):
    """`agapo sft RECIPE`."""

    stage: Literal["sft"] = "sft"  # pyright: ignore[reportIncompatibleVariableOverride]
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; or give `epochs`."""
    epochs: float | None = Field(default=None, gt=0)
    """Train on so many times the tokens that the rows hold, mixed by share (a scarce domain comes more often)."""
    create: CreateModelConfig | None = None
    """Start from random weights instead of `model.path` or `model.start`."""
    data: DialogueDataConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    """Dialogues to train on (docs/data_format.md)."""
    curation: CurationConfig = CurationConfig()
    """Which of them are left out (docs/curation.md)."""
    prompts: DataConfig
    """Questions for the accuracy before and after."""
    reward: RewardConfig
    training: SFTTrainingConfig = SFTTrainingConfig()
    rollout: RolloutConfig = RolloutConfig()
    """How the evaluation samples."""
    evaluation: MeasureConfig = MeasureConfig()
    needle: NeedleConfig | None = None
    """The needle test after training: facts found again at every length and place of the context."""

    @model_validator(mode="after")
    def _one_start(self) -> "SFTRecipe":
        starts = [bool(self.create), bool(self.model.path), bool(self.model.start)]
        if sum(starts) != 1:
            raise ValueError(
                "give one of 'create' (random weights), 'model.path' (a model) and 'model.start' (another SFT recipe)"
            )
        if bool(self.steps) == bool(self.epochs):
            raise ValueError("give either 'steps' or 'epochs', not both or neither")
        return self

    @model_validator(mode="after")
    def _packed_dialogues_stay_apart(self) -> "SFTRecipe":
        # transformers gives flash attention the dialogues' boundaries only in a batch of one row.
        if self.model.attention == "flash_attention_2" and self.training.micro_rows > 1:
            raise ValueError(
                "training.micro_batch_rows: should be 1 with model.attention flash_attention_2, which tells the "
                "dialogues of a packed row apart only in a micro-batch of one row"
            )
        return self
