"""`agapo export`: the model of a checkpoint, of a finished run or of one that was stopped, as a Hugging Face folder.

The `hf/` of a finished run holds what its recipe chose (RL: the best by `evaluation.keep`); this is for the others.
"""

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agapo.errors import UserError
from agapo.learner.checkpoint import Checkpoint, deepspeed_weights, read_checkpoint, steps_of
from agapo.learner.rl.settings import TAG
from agapo.learner.trl.callbacks import STATE
from agapo.model.adapters import CONFIG as ADAPTER
from agapo.model.adapters import adapted_start, merge, merged_model
from agapo.model.loading import export_hf, load_model, load_tokenizer
from agapo.recipe import DPORecipe, Recipe, RLRecipe, SFTRecipe, load_recipe
from agapo.recipe.lora import LoRAConfig
from agapo.recipe.read import recipe_stage
from agapo.tracking import make_console, read_json
from agapo.tracking.files import write_text_atomic
from agapo.tracking.model_card import checkpoint_card

KINDS: dict[str, type[Recipe]] = {"rl": RLRecipe, "sft": SFTRecipe, "dpo": DPORecipe}


def export_checkpoint(run: Path, step: int | None, out: Path | None) -> None:
    """Write the model of a checkpoint to `out`, by default `RUN/exports/step-N`.

    Raises UserError where the folder holds no run, the run has no such checkpoint, or the checkpoint is not complete.
    """
    recipe = _recipe_of(run)
    checkpoint = read_checkpoint(_chosen(run, step))
    number = int(checkpoint.state["step"])
    folder = out or run / "exports" / f"step-{number:06d}"
    if folder.exists():
        raise UserError(f"{folder}: is there already; delete it, or give --out another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    model, tokenizer = _learnt(recipe, run, checkpoint)
    export_hf(model, tokenizer, folder)
    write_text_atomic(folder / "README.md", checkpoint_card(run, recipe, number))
    make_console().print(f"Step {number} of {run} is in {folder}", soft_wrap=True, highlight=False)


def _recipe_of(run: Path) -> Recipe:
    written = run / "recipe.yaml"
    if not written.is_file():
        raise UserError(f"{run}: is no run's folder (it has no recipe.yaml); give one, such as outputs/rl/tiny")
    stage = recipe_stage(written)
    if stage not in KINDS:
        raise UserError(f"{run}: a run of '{stage}' has no checkpoints; give one of {', '.join(KINDS)}")
    return load_recipe(KINDS[stage], written)


def _chosen(run: Path, step: int | None) -> Path:
    steps = steps_of(run / "checkpoints")
    if not steps:
        raise UserError(f"{run}: has no checkpoint yet")
    if step is None:
        return steps[max(steps)]
    if step not in steps:
        raise UserError(f"--step {step}: {run} has checkpoints of the steps {', '.join(map(str, steps))} alone")
    return steps[step]


def _learnt(recipe: Recipe, run: Path, checkpoint: Checkpoint) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the checkpoint's model, in the recipe's type, and its tokenizer."""
    own = recipe.model
    if isinstance(recipe, RLRecipe):
        start = str((read_json(run / "provenance.json") or {}).get("start") or own.path)
        lora = recipe.learner.lora
        model = adapted_start(start, own, lora) if lora else load_model(start, dtype=own.dtype, rope=own.rope_fields)
        _fill(model, lora, deepspeed_weights(checkpoint, TAG))
        return model, load_tokenizer(start)
    written = checkpoint.path / STATE
    assert isinstance(recipe, SFTRecipe | DPORecipe)
    if lora := recipe.training.lora:
        base = (read_json(written / ADAPTER) or {})["base_model_name_or_path"]
        return merged_model(base, written, own, lora), load_tokenizer(base)
    return load_model(written, dtype=own.dtype), load_tokenizer(written)


@torch.no_grad()
def _fill(model: PreTrainedModel, lora: LoRAConfig | None, weights: dict[str, Tensor]) -> None:
    """Copy what the policy has learnt, in names that begin with the learner's wrapper, into the model it began as."""
    learnt = {name.removeprefix("model."): values for name, values in weights.items()}
    if lora:
        merge(model, {name: values.to(model.dtype) for name, values in learnt.items()}, lora.alpha / lora.rank)
        return
    for name, parameter in model.named_parameters():
        parameter.copy_(learnt[name])
