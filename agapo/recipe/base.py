"""What every recipe has, and how one is read: YAML, then `key.path=value` overrides, then strict validation.

Every mistake becomes one line that names the file, the key and, where there is one, the near name:

    recipes/rl/tiny.yaml: learner.learning_rat: unknown key; did you mean 'learning_rate'?
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from agapo.errors import UserError
from agapo.recipe.yaml_text import Scalar, fit, read_override, read_yaml
from agapo.resolve import did_you_mean
from agapo.schema import MODES, Mode


class Strict(BaseModel):
    """A recipe section: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


def _absolute(path: Path) -> Path:
    return path.expanduser().resolve()


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
"""A local path, made absolute on loading: Ray workers may run elsewhere."""


def _absolute_if_local(name: str) -> str:
    looks_local = name.startswith((".", "/", "~", "outputs/")) or Path(name).exists()
    return str(_absolute(Path(name))) if looks_local else name


ModelName = Annotated[str, AfterValidator(_absolute_if_local)]
"""A local folder, or a name on the Hugging Face hub (`Qwen/Qwen3-0.6B`)."""


class RunConfig(Strict):
    """Where the run lives and what makes it repeatable."""

    name: str = Field(default="", pattern=r"^([\w\-][\w.\-]*)?$")
    """Folder below `<output>/<stage>/`; defaults to the recipe's file name."""
    seed: int = Field(default=0, ge=0)
    output: AbsolutePath = Field(default=Path("outputs"), validate_default=True)


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
    """A Hugging Face folder or hub name."""
    start: AbsolutePath | None = None
    """An SFT recipe whose finished run is the model; it is run first when there is none."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    gradient_checkpointing: bool = False
    rope: RopeConfig | None = None
    """Stretch the model's context; None takes the model as it is."""

    @property
    def rope_fields(self) -> dict[str, Any] | None:
        """`rope` as plain values, for `load_model` and `load_config`."""
        return self.rope.model_dump() if self.rope else None


class SourceConfig(Strict):
    """One source of a mixture."""

    source: str
    """`package.module:function`, called as `function(split, **args)`; yields rows as dicts."""
    args: dict[str, Any] = Field(default_factory=dict)
    path: AbsolutePath | None = None
    """A local file or folder instead of the source's public data set; handed to the source as `path`."""
    weight: float = Field(default=1.0, ge=0)
    """Its share of the rows, relative to the other sources'."""


class DataConfig(Strict):
    """Where rows come from: one source, or several with weights."""

    source: str = ""
    """`package.module:function`, called as `function(split, **args)`; yields rows as dicts."""
    args: dict[str, Any] = Field(default_factory=dict)
    path: AbsolutePath | None = None
    """A local file or folder instead of the source's public data set; handed to the source as `path`."""
    sources: dict[str, SourceConfig] = Field(default_factory=dict)
    """Instead of `source`: sources by name, mixed by weight."""
    modes: dict[Mode, float] = Field(default_factory=lambda: {"reasoning": 1.0})
    """Share of the training prompts asked in each mode."""
    max_prompt_tokens: int = Field(default=1024, ge=1)
    overlong: Literal["refuse", "drop"] = "refuse"
    """What to do about prompts with more tokens: stop before the run, or leave them out and say how many."""

    @property
    def parts(self) -> dict[str, SourceConfig]:
        """The sources by name; a single one goes by its own."""
        return self.sources or {self.source: SourceConfig(source=self.source, args=self.args, path=self.path)}

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> "DataConfig":
        if bool(self.source) == bool(self.sources):
            raise ValueError("give either 'source' (one) or 'sources' (several, with weights), not both or neither")
        if self.sources and (self.args or self.path):
            raise ValueError("with 'sources', 'args' and 'path' belong to each source (sources.NAME.path)")
        if self.sources and not any(source.weight for source in self.sources.values()):
            raise ValueError("sources: at least one weight should be above 0")
        return self


class TrackingConfig(Strict):
    """What people see."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto`: online where a W&B key is configured, offline otherwise."""
    project: str = "agapo"
    samples_every: int = Field(default=20, ge=0)
    """Show one sampled response every so many steps; 0 never."""
    rollout_rows: int = Field(default=8, ge=0)
    """Responses a step that go into the W&B rollout table (`rollouts.jsonl` has them all)."""


class CheckpointConfig(Strict):
    """How often the state that a resumed run needs is saved."""

    every: int = Field(default=50, ge=1)
    keep: int = Field(default=2, ge=1)


class ClusterConfig(Strict):
    """The Ray cluster."""

    address: str | None = None
    """An existing cluster (`auto`, `ray://host:10001`); None starts one on this machine."""


class Recipe(Strict):
    """What every stage's recipe has."""

    stage: Literal["sft", "rl", "dpo", "filter", "eval"]
    run: RunConfig = RunConfig()
    model: ModelConfig
    data: DataConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def run_directory(self) -> Path:
        """`<output>/<stage>/<name>`."""
        return self.run.output / self.stage / self.run.name

    @property
    def hf_directory(self) -> Path:
        """Where the finished model is exported for transformers and vLLM."""
        return self.run_directory / "hf"


R = TypeVar("R", bound=Recipe)
V = TypeVar("V")


def load_recipe(kind: type[R], path: Path, overrides: list[str] | None = None) -> R:
    """Read `path`, apply `key.path=value` overrides and validate.

    Raises UserError, one line a mistake, each naming file and key.
    """
    content = _read_yaml(path)
    for override in overrides or []:
        _apply(content, override)
    content, mistakes = fit(kind, content)
    run = content.setdefault("run", {})
    if isinstance(run, dict) and run.get("name") in (None, ""):
        run["name"] = path.stem
    stage = kind.model_fields["stage"].default
    if content.setdefault("stage", stage) != stage:
        raise UserError(f"{path}: stage: this is a recipe for '{content['stage']}'; run 'agapo {content['stage']}'")
    if mistakes:
        raise UserError("\n".join(f"{path}: {line}" for line in mistakes))
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {line}" for line in _explain(kind, error))) from None


def recipe_stage(path: Path) -> str:
    """Return the stage that a recipe file says it is for (`sft`, `rl`, `dpo` or `eval`)."""
    stage = fit(dict[str, Any], _read_yaml(path))[0].get("stage")
    if stage not in ("sft", "rl", "dpo", "eval"):
        raise UserError(f"{path}: stage: is {stage!r}; should be 'sft', 'rl', 'dpo' or 'eval'")
    return stage


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        near = [str(item) for item in Path("recipes").glob("*/*.yaml")]
        raise UserError(f"{path}: no such recipe{did_you_mean(str(path), near)}")
    content = read_yaml(path.read_text(), str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path}: should be a YAML mapping of keys to values")
    return content


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"override '{override}': should be key.path=value, e.g. learner.learning_rate=1e-4")
    *parents, last = key.split(".")
    section: Any = content
    for parent in parents:
        section = _enter(section, parent, override)
    _assign(section, last, read_override(value, override), override)


_NOTHING = Scalar(None, "")
"""A section's name with nothing under it."""


def _enter(section: Any, name: str, override: str) -> Any:
    if isinstance(section, list):
        return section[_index(section, name, override)]
    if not isinstance(section, dict):
        raise UserError(f"override '{override}': '{name}' lies inside a plain value")
    if section.get(name) in (None, _NOTHING):
        section[name] = {}
    return section[name]


def _assign(section: Any, name: str, value: Any, override: str) -> None:
    if isinstance(section, list):
        section[_index(section, name, override)] = value
    elif isinstance(section, dict):
        section[name] = value
    else:
        raise UserError(f"override '{override}': '{name}' lies inside a plain value")


def _index(section: list[Any], name: str, override: str) -> int:
    if not name.isdigit() or int(name) >= len(section):
        raise UserError(f"override '{override}': '{name}' should be an index below {len(section)}")
    return int(name)


def _explain(kind: type[BaseModel], error: ValidationError) -> list[str]:
    return [_explain_one(kind, item["loc"], item["type"], item["msg"], item.get("input")) for item in error.errors()]


def _explain_one(kind: type[BaseModel], place: tuple[int | str, ...], problem: str, message: str, value: Any) -> str:
    key = ".".join(str(part) for part in place)
    if problem == "extra_forbidden":
        return f"{key}: unknown key{did_you_mean(str(place[-1]), _known_keys(kind, place[:-1]))}"
    if problem == "missing":
        return f"{key}: is required"
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    prefix = f"{key}: " if key else ""
    shown = f" (is {value!r})" if isinstance(value, str | int | float | bool | None) else ""
    return f"{prefix}{message[0].lower()}{message[1:]}{shown}"


def _known_keys(kind: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    for part in place:
        if isinstance(part, int):
            continue
        field = next((f for name, f in kind.model_fields.items() if part in (name, f.alias)), None)
        section = _section_of(field.annotation) if field else None
        if section is None:
            return []
        kind = section
    return [field.alias or name for name, field in kind.model_fields.items()]


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_section_of(item) for item in getattr(annotation, "__args__", ()))
    return next((item for item in inner if item), None)


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
