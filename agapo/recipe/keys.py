"""What may change in a recipe while its run is stopped: each key of each section is in one of three classes.

    identity  decides whose run it is: another value is another run, which is refused with the keys named
    later     counts from the next step on: accepted, said, and written to the run's history with the step
    free      how and where the run works, not what it computes: accepted without a word

The classes stand in one table, by section. A key that is in no class (a new one, say) fails a test.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel

from agapo.recipe import (
    algorithm,
    base,
    curation,
    data,
    dialogues,
    eval,
    evaluation,
    filtering,
    learner,
    lora,
    model,
    needle,
    pairs,
    reward,
    rl,
    rollout,
    run,
    sft,
    trainer,
)
from agapo.recipe.base import Recipe

KeyClass = Literal["identity", "later", "free"]


def _keys(*, identity: str = "", later: str = "", free: str = "") -> dict[str, KeyClass]:
    by_class: dict[KeyClass, str] = {"identity": identity, "later": later, "free": free}
    return {name: kind for kind, names in by_class.items() for name in names.split()}


CLASSES: dict[type[BaseModel], dict[str, KeyClass]] = {
    base.Recipe: _keys(identity="stage"),
    run.RunConfig: _keys(identity="seed", free="name output on_step"),
    model.ModelConfig: _keys(
        identity="path start chat_template dtype", later="attention", free="gradient_checkpointing"
    ),
    model.RopeConfig: _keys(identity="type factor original_max_position_embeddings theta max_position_embeddings"),
    data.SetConfig: _keys(identity="source args path"),
    data.SourceConfig: _keys(identity="weight"),
    data.DataConfig: _keys(identity="source args path modes max_prompt_tokens overlong"),
    run.TrackingConfig: _keys(free="wandb project tensorboard samples_every rollout_rows"),
    run.CheckpointConfig: _keys(free="every keep background"),
    run.ClusterConfig: _keys(free="address"),
    # --- rewards and sampling ---
    reward.RewardTerm: _keys(identity="name function form weight domains args", later="deadline_s"),
    reward.RewardConfig: _keys(
        identity="combine verdict correct_at truncated", later="deadline_s max_error_rate", free="workers"
    ),
    rollout.RolloutConfig: _keys(
        identity="group_size temperature top_p stop thinking_budget",
        later="engine max_new_tokens chunk_prompts max_staleness oversample",
        free="actors threads gpus_per_actor weight_transport sleep_while_learning chunk_timeout_s max_restarts",
    ),
    rollout.VLLMConfig: _keys(free="tensor_parallel in_flight gpu_memory cache_gib"),
    rollout.MismatchConfig: _keys(free="stop_above"),
    # --- RL ---
    rl.RLRecipe: _keys(identity="prompts_per_step", later="steps max_sampled_tokens"),
    learner.LearnerConfig: _keys(
        identity="betas eps weight_decay",
        later="learning_rate schedule warmup_steps min_learning_rate max_grad_norm",
        free="ranks zero_stage offload offload_folder micro_batch_tokens layout shared_prompts sequence_parallel "
        "threads early_reference gpus_per_rank gpu_gib timeout_s max_restarts",
    ),
    evaluation.SFTEvaluationConfig: _keys(identity="held_out"),
    evaluation.RLEvaluationConfig: _keys(identity="validation_size pass_at keep sets", later="every"),
    algorithm.AlgorithmConfig: _keys(
        identity="preset all_wrong_penalty drop_all_correct drop_all_wrong aggregation objective "
        "updates_per_batch shuffle_rewards"
    ),
    algorithm.RefillConfig: _keys(identity="max_extra"),
    algorithm.AdvantageConfig: _keys(identity="group group_std global std_floor"),
    algorithm.KLConfig: _keys(identity="coefficient estimator groups"),
    algorithm.ImportanceConfig: _keys(identity="level cap band"),
    algorithm.ClipConfig: _keys(identity="low high"),
    filtering.FilterRecipe: _keys(identity="samples drop_from drop_below"),
    # --- what TRL trains ---
    trainer.TrainerConfig: _keys(
        identity="weight_decay",
        later="learning_rate schedule warmup_steps max_grad_norm",
        free="ranks gpus_per_rank gpu_gib zero_stage offload offload_folder max_restarts threads",
    ),
    lora.LoRAConfig: _keys(identity="rank alpha dropout targets quantize"),
    sft.SFTRecipe: _keys(identity="steps epochs"),
    trainer.SFTTrainingConfig: _keys(identity="rows_per_step row_tokens", free="micro_batch_rows"),
    model.CreateModelConfig: _keys(
        identity="hidden_size intermediate_size layers heads kv_heads head_dim sliding_window sliding_window_pattern "
        "max_position_embeddings vocabulary"
    ),
    dialogues.DialogueSourceConfig: _keys(identity="limit"),
    dialogues.DialogueDataConfig: _keys(identity="order malformed"),
    dialogues.MixConfig: _keys(identity="modes domains max_repeats"),
    trainer.PreferenceTrainingConfig: _keys(
        identity="loss beta epochs pairs_per_step start_logprobs", free="micro_batch_pairs"
    ),
    pairs.PairRowsConfig: _keys(identity="source args path max_tokens malformed"),
    pairs.PairsConfig: _keys(identity="prompts policy rejected longer_by min_margin correct_only"),
    pairs.ReuseConfig: _keys(identity="share path"),
    pairs.GuardsConfig: _keys(later="accuracy_drop chosen_drop length_growth leakage"),
    # --- curation ---
    curation.LengthsConfig: _keys(identity="unit least_answer most_answer least_thinking most_thinking"),
    curation.DegenerationConfig: _keys(identity="times code_times repetition truncated"),
    curation.LanguageConfig: _keys(identity="tolerated thinking"),
    curation.NearDuplicatesConfig: _keys(identity="similarity same_numbers"),
    curation.DistinctConfig: _keys(identity="most similarity choose"),
    # --- measuring ---
    eval.EvalRecipe: _keys(identity="data"),
    evaluation.EvaluationConfig: _keys(identity="modes test_size", later="chunk_prompts"),
    evaluation.SampledEvaluationConfig: _keys(identity="samples thinking_budgets"),
    evaluation.AnswerSamplingConfig: _keys(identity="temperature top_p"),
    needle.NeedleConfig: _keys(
        identity="source args lengths positions per_cell modes green",
        later="max_new_tokens chunk_tokens",
        free="stop",
    ),
}

SHARDED = (
    *("learner.ranks", "learner.zero_stage", "learner.offload"),
    *("training.ranks", "training.zero_stage", "training.offload"),
)
"""Free keys that say how a checkpoint's state is dealt out to the ranks: others cannot read it as it is."""

BEFORE_TRAINING = {"dpo": ("pairs", "training", "guards", "rollout.group_size")}
"""By stage: what may still change while nothing is trained. The sampled responses stay, and are paired anew."""


def key_class(recipe: type[Recipe], key: str) -> KeyClass:
    """Return the class of a dotted key of a resolved recipe. A section that comes or goes whole is `identity`.

    So is a key that the recipe does not have (any more).
    """
    section: type[BaseModel] | None = recipe
    parts = key.split(".")
    while parts and section:
        name, *parts = parts
        if found := classes_of(section).get(name):
            return found
        section, inside = section_at(section, name)
        parts = parts[inside:]
    return "identity"


def classes_of(section: type[BaseModel]) -> dict[str, KeyClass]:
    """Return the class of each key that a section has itself, those of the sections that it extends included."""
    found: dict[str, KeyClass] = {}
    for kind in reversed(section.__mro__):
        found |= CLASSES.get(kind, {})
    return found


def section_at(section: type[BaseModel], name: str) -> tuple[type[BaseModel] | None, int]:
    """Return (the section that a key holds, how many names come before its keys: 1 in a list or by name), or None."""
    fields = {field.alias or key: field for key, field in section.model_fields.items()}
    return _section_in(fields[name].annotation) if name in fields else (None, 0)


def _section_in(annotation: Any) -> tuple[type[BaseModel] | None, int]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, 0
    container = getattr(annotation, "__origin__", None) in (list, dict)
    for item in getattr(annotation, "__args__", ()):
        section, inside = _section_in(item)
        if section:
            return section, inside + container
    return None, 0


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return leaves by dotted key; an empty section is a leaf, so that it differs from an absent one."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None or not value:
        return {prefix: value} if prefix else {}
    leaves: dict[str, Any] = {}
    for key, item in items:
        leaves |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain values, every key there."""
    return recipe.model_dump(mode="json", by_alias=True)


HOW_LONG = ("steps", "max_sampled_tokens")
"""Keys of RL that end a run: with more of them a finished one goes on."""


def fingerprint(recipe: Recipe) -> str:
    """Return a hash of everything that decides what the run computes: of all keys that are not free.

    Without how long RL is to go on (`HOW_LONG`), which may be longer later. Paths in the project, which is where the
    output folder lies, count as they are seen from there: a project may be moved.
    """
    project = f"{run.project_of(recipe.run.output)}/"
    content = {
        key: value.removeprefix(project) if isinstance(value, str) else value
        for key, value in flatten(resolved(recipe)).items()
        if _counts(type(recipe), key)
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _counts(recipe: type[Recipe], key: str) -> bool:
    return key_class(recipe, key) != "free" and not (recipe is rl.RLRecipe and key in HOW_LONG)


ABSENT = "(absent)"

Change = tuple[str, Any, Any]
"""A dotted key, its value before and its value now; `(absent)` where there is none."""


def changes(recipe: Recipe, old: Mapping[str, Any]) -> Iterator[tuple[KeyClass, Change]]:
    """Yield the class and the change of every key in which a recipe differs from the resolved recipe `old`."""
    before, after = flatten(old), flatten(resolved(recipe))
    for key in {**before, **after}:
        was, now = before.get(key, ABSENT), after.get(key, ABSENT)
        if was != now:
            yield key_class(type(recipe), key), (key, was, now)
