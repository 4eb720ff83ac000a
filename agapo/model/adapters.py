"""LoRA adapters (arXiv 2106.09685) of a model: put in, switched off, merged into its weights, written and read.

    y = W·x + (alpha / rank)·B·A·x        A is drawn at random, B is zero: the model begins as what it was

transformers puts PEFT's layers into the model itself, so that its parameters keep their names: beside
`….q_proj.base_layer.weight` there are `….q_proj.lora_A.default.weight` [rank, inputs] and `….lora_B.default.weight`
[outputs, rank]. Only these are trained, and so only these travel (`weights.py`). A folder is as PEFT writes it.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from agapo.errors import UserError, first_line
from agapo.model.cached import made_once
from agapo.model.loading import export_hf, load_model, load_tokenizer, local_files, replace_folder
from agapo.model.quantized import restored, restored_place
from agapo.model.weights import WeightLayout, trained_parameters, weight_layout
from agapo.recipe.lora import LoRAConfig, quantizes
from agapo.recipe.model import ModelConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The files of an adapter's folder."""
DOWN, UP = ".lora_A.", ".lora_B."
"""What names of A and B have between the module's name and the rest."""


def adapter_config(lora: LoRAConfig) -> Any:
    """Return PEFT's configuration of a recipe's section `lora`."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )


def add_adapters(model: PreTrainedModel, lora: LoRAConfig, seed: int = 0) -> None:
    """Put adapters into the model, in its type; only they are trainable then. The same ones for the same seed.

    Leaves the global random state as it was. Raises UserError where the model has none of the targets.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model.add_adapter(adapter_config(lora))
        except ValueError as error:
            raise UserError(f"learner.lora.targets: {first_line(error)}") from error
    # Beside weights of 4 bits they would be float32.
    for parameter in trained_parameters(model).values():
        parameter.data = parameter.data.to(model.dtype)
    strange = [name for name in weight_layout(model, model.dtype).names if DOWN not in name and UP not in name]
    if strange:
        raise UserError(f"learner.lora.targets: adapters for linear maps alone are supported, not {strange[0]}")


@contextmanager
def adapters_off(model: PreTrainedModel) -> Iterator[None]:
    """Let the model compute without its adapters meanwhile: as what it was before they were trained."""
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()


def adapter_layout(config: PreTrainedConfig, lora: LoRAConfig) -> WeightLayout:
    """Return names and shapes of the adapters that a model of a config gets, without its weights. Raises UserError."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        add_adapters(model, lora)
    return weight_layout(model, model.dtype)


# --- a model's state ---


def save_trained_alone(model: nn.Module) -> None:
    """Leave out of the module's `state_dict` all that is frozen, and what quantized weights keep beside themselves."""

    def leave_out(module: nn.Module, state: dict[str, Any], *_: Any) -> None:
        for name in state.keys() - trained_parameters(module).keys():
            del state[name]

    model.register_state_dict_post_hook(leave_out)


def load_trained(src: Mapping[str, Tensor], dst: nn.Module) -> None:
    """Take what `save_trained_alone` left; the names are DeepSpeed's. Raises UserError where `dst` trains others."""
    found = dst.load_state_dict(src, strict=False)
    if lacking := [*(trained_parameters(dst).keys() - src.keys()), *found.unexpected_keys]:
        raise UserError(f"the checkpoint's adapters are not those of learner.lora: {lacking[0]} differs")


# --- folders ---


def write_adapter(folder: Path, tensors: Mapping[str, Tensor], lora: LoRAConfig, base: str) -> None:
    """Write adapters, by the model's names for them, as PEFT and vLLM read them: whole or not at all."""
    beside = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    config = adapter_config(lora)
    config.base_model_name_or_path = base
    if lora.targets == "all-linear":
        # What it came to: not every reader knows the word.
        config.target_modules = sorted({module_of(name).rpartition(".")[2] for name in tensors})
    config.inference_mode = True
    config.save_pretrained(str(beside))
    save_file({_peft_name(name): values for name, values in tensors.items()}, beside / WEIGHTS, {"format": "pt"})
    replace_folder(beside, folder)


def read_adapter(folder: Path) -> dict[str, Tensor]:
    """Return a folder's adapters by the model's names for them."""
    return {_own_name(name): values for name, values in load_file(folder / WEIGHTS).items()}


def _peft_name(name: str) -> str:
    return "base_model.model." + name.replace(".default.", ".")


def _own_name(name: str) -> str:
    bare = name.removeprefix("base_model.model.")
    return bare.replace(DOWN, f"{DOWN}default.").replace(UP, f"{UP}default.")


def module_of(name: str) -> str:
    """Return the module of an adapter's parameter: of `….up_proj.lora_A.default.weight` it is `….up_proj`."""
    return name.partition(DOWN)[0].partition(UP)[0]


# --- merging ---


def trained_start(base: str, own: ModelConfig, lora: LoRAConfig | None) -> PreTrainedModel:
    """Return the model that training began with, in the recipe's type: with `lora.quantize`, as rounded."""
    rounded = quantizes(lora)
    model = load_model(base, dtype=own.dtype, rope=own.rope_fields, quantized=rounded)
    return restored(model) if rounded else model


def adapted_folder(base: str, dtype: str, lora: LoRAConfig) -> str:
    """Return the model that adapters are trained beside as a folder for vLLM, which rounds otherwise.

    With `lora.quantize` it is made once a version of the base's files, in the user's cache, as large as the model.
    """
    if not quantizes(lora):
        return base
    folder = restored_place(local_files(base), dtype)

    def make() -> None:
        export_hf(restored(load_model(base, dtype=dtype, quantized=True)), load_tokenizer(base), folder)

    return str(made_once(folder, make))


def merged_model(base: str, folder: Path, own: ModelConfig, lora: LoRAConfig) -> PreTrainedModel:
    """Return the model that the adapters of a folder were trained beside, with them merged into its weights."""
    config = json.loads((folder / CONFIG).read_text())
    model = trained_start(base, own, lora)
    merge(model, read_adapter(folder), config["lora_alpha"] / config["r"])
    return model


@torch.no_grad()
def merge(model: PreTrainedModel, tensors: Mapping[str, Tensor], scaling: float) -> None:
    """Add adapters to the weights of a model that has none, W + scaling·B·A: in float32, rounded once."""
    for name in tensors:
        if DOWN not in name:
            continue
        down, up = tensors[name].float(), tensors[name.replace(DOWN, UP)].float()
        module = model.get_submodule(module_of(name))
        weight = module.get_parameter("weight")
        change = scaling * (up @ down)
        # GPT-2's weights are the other way round.
        weight.copy_(weight.float() + (change.T if isinstance(module, Conv1D) else change))
