"""`agapo export`: the model of a checkpoint, of a finished run or of one that was stopped, as a Hugging Face folder.

The `hf/` of a finished run holds what its recipe chose (RL: the best by `evaluation.keep`); this is for the others.
"""

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agapo.errors import UserError
from agapo.hub import push
from agapo.learner.checkpoint import Checkpoint, deepspeed_weights, read_checkpoint, steps_of
from agapo.learner.rl.settings import TAG
from agapo.learner.trl.callbacks import STATE
from agapo.model.adapters import merge, merged_model, trained_start
from agapo.model.loading import export_hf, load_model, load_tokenizer
from agapo.recipe import DPORecipe, Recipe, RLRecipe, SFTRecipe, load_recipe
from agapo.recipe.lora import LoRAConfig
from agapo.recipe.read import recipe_stage
from agapo.tracking import is_finished, make_console
from agapo.tracking.files import write_text_atomic
from agapo.tracking.model_card import checkpoint_card, origin_of_checkpoint
from agapo.tracking.provenance import noted_start

KINDS: dict[str, type[Recipe]] = {"rl": RLRecipe, "sft": SFTRecipe, "dpo": DPORecipe}


def export_model(run: Path, step: int | None, out: Path | None, name: str | None, *, private: bool) -> None:
    """Write the model of a checkpoint to `out`, by default `RUN/exports/step-N`, and send it to the hub as `name`.

    With a name and neither step nor `out`, what is sent is the `hf/` of a finished run. Raises UserError where the
    folder holds no run, the run has no such checkpoint, the checkpoint is not complete, or the hub refuses it.
    """
    recipe = _recipe_of(run)
    finished = name and step is None and out is None and is_finished(run) and (run / "hf").is_dir()
    folder = run / "hf" if finished else _exported(recipe, run, step, out, again=bool(name))
    if name:
        address = push(folder, name, private=private)
        make_console().print(f"Pushed {folder} to {address}", soft_wrap=True, highlight=False)


def _exported(recipe: Recipe, run: Path, step: int | None, out: Path | None, *, again: bool) -> Path:
    """Write a checkpoint's model, unless it is there and may be used again, and return its folder."""
    checkpoint = read_checkpoint(_chosen(run, step))
    number = int(checkpoint.state["step"])
    folder = out or run / "exports" / f"step-{number:06d}"
    if again and out is None and _holds(folder, run, number):
        return folder  # an earlier push did not come through
    if folder.exists():
        raise UserError(f"{folder}: is there already; delete it, or give --out another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    model, tokenizer = _learnt(recipe, run, checkpoint)
    export_hf(model, tokenizer, folder)
    write_text_atomic(folder / "README.md", checkpoint_card(run, recipe, number))
    make_console().print(f"Step {number} of {run} is in {folder}", soft_wrap=True, highlight=False)
    return folder


def _holds(folder: Path, run: Path, step: int) -> bool:
    """Whether a folder's card, which is written last, says that it has this step of this run."""
    card = folder / "README.md"
    return card.is_file() and origin_of_checkpoint(run, step) in card.read_text(encoding="utf-8")


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
        start = noted_start(run) or str(own.path)
        lora = recipe.learner.lora
        model = trained_start(start, own, lora)
        _fill(model, lora, deepspeed_weights(checkpoint, TAG))
        return model, load_tokenizer(start)
    written = checkpoint.path / STATE
    assert isinstance(recipe, SFTRecipe | DPORecipe)
    if lora := recipe.training.lora:
        # The adapter's own note of it is a path, and a project may have been moved since.
        base = noted_start(run) or str(run / "start")
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
