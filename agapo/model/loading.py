"""Models and tokenizers: created from nothing, loaded from a folder or the hub, exported for transformers and vLLM."""

import copy
import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Exaone4Config,
    Exaone4ForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from agapo.errors import UserError, first_line
from agapo.hub import missing_way
from agapo.model.cached import made_once
from agapo.model.gguf import is_gguf, read_gguf, unpacked_place
from agapo.model.quantized import compute_alike, quantization
from agapo.model.rope import extend_context

# A bar for every weight shard read or written drowns a run's own progress; the hub's download bars stay.
transformers_logging.disable_progress_bar()


WEIGHTS = "model.safetensors"
SAFETENSORS_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TWIN_VOCABULARY, TWIN_SPREAD = 1024, 10


def create_model(
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    hidden_size: int = 96,
    intermediate_size: int = 288,
    layers: int = 4,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 32,
    sliding_window: int = 24,
    sliding_window_pattern: int = 4,
    max_position_embeddings: int = 4096,
) -> Exaone4ForCausalLM:
    """Return an EXAONE 4 model with random weights (float32, CPU), the same for the same seed.

    Every `sliding_window_pattern`-th layer attends globally, the others over `sliding_window` tokens. Matrices start
    at a standard deviation of 1/√hidden_size and embeddings at 1: EXAONE 4 normalises what each branch adds to the
    residual stream, so embeddings of the usual 0.02 would drown (five times the steps to the same loss). Leaves
    the global random state as it was.
    """
    config = Exaone4Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,  # pyright: ignore[reportCallIssue]
        sliding_window=sliding_window,
        sliding_window_pattern=sliding_window_pattern,
        max_position_embeddings=max_position_embeddings,
        initializer_range=hidden_size**-0.5,
        tie_word_embeddings=False,
        **_token_ids(tokenizer),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Exaone4ForCausalLM(config)
        torch.nn.init.normal_(model.model.embed_tokens.weight)
    model.generation_config = GenerationConfig(**_token_ids(tokenizer))
    return model


def _token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: getattr(tokenizer, name) for name in names}


def load_model(
    path: str | Path,
    *,
    dtype: str = "float32",
    attention: str = "sdpa",
    gradient_checkpointing: bool = False,
    rope: Mapping[str, Any] | None = None,
    mapped: bool = False,
    quantized: bool = False,
) -> PreTrainedModel:
    """Return the causal language model at `path` (a local folder, a GGUF file or a hub name), in training mode.

    `rope`: the fields of a recipe's `model.rope`, to stretch its context (`agapo.model.rope`). `mapped`: weights are
    taken out of the files' pages, which processes share, where transformers would read all of them into each process
    first (ZeRO-3). `quantized`: linear maps are held in 4 bits (`agapo.model.quantized`). Raises UserError when there
    is no such folder, the hub cannot be reached, the folder holds no model, or it has no RoPE to stretch.
    """
    path = model_folder(path)
    config = load_config(path, rope)
    how: dict[str, Any] = {"config": config, "dtype": dtype, "attn_implementation": attention}
    if quantized:
        how["quantization_config"] = quantization(config, dtype)
    try:
        # Of a model with several parts transformers itself finds the one that is the language model.
        plain = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and config.get_text_config() is config
        if mapped and plain and (weights := mapped_weights(local_files(path))):
            kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
            model = kind.from_pretrained(None, state_dict=weights, **how)
        else:
            model = AutoModelForCausalLM.from_pretrained(str(path), **how)
    except (OSError, ValueError, ImportError) as error:
        raise _load_error("model", path, error) from error
    if quantized:
        compute_alike(model)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def mapped_weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a model's safetensors files, which lie in the files.

    None where the folder has no such files, or values of other types than these, and transformers is to read them.
    Raises ValueError for a file that is none.
    """
    found: dict[str, Tensor] = {}
    for file in _weight_files(folder):
        with file.open("rb") as start:
            length = int.from_bytes(start.read(8), "little")
            if not 2 <= length <= file.stat().st_size - 8:
                raise ValueError(f"{file.name} is no safetensors file, or is cut off")
            header = json.loads(start.read(length))
        if not {about["dtype"] for name, about in header.items() if name != "__metadata__"} <= SAFETENSORS_TYPES.keys():
            return {}
        pages = torch.UntypedStorage.from_file(str(file), shared=False, nbytes=file.stat().st_size)
        for name, about in header.items():
            if name == "__metadata__":
                continue
            begin, end = (8 + length + place for place in about["data_offsets"])
            raw = torch.empty(0, dtype=torch.uint8)
            raw.set_(pages, begin, (end - begin,))  # pyright: ignore[reportCallIssue, reportArgumentType]
            dtype = SAFETENSORS_TYPES[about["dtype"]]
            # Where a file was written without padding, values are not where their type may lie.
            raw = raw if begin % dtype.itemsize == 0 else raw.clone()
            found[name] = raw.view(dtype).view(about["shape"])
    return found


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers would read: the one of a fixed name, or those that the index names."""
    index = folder / f"{WEIGHTS}.index.json"
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not index.is_file():
        return []
    return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]


def local_files(path: str) -> Path:
    """Return the folder of a hub's model, which is downloaded unless it is in the cache; a local one as it is."""
    path = model_folder(path)
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(path, allow_patterns=["*.json", "model*.safetensors"]))


def small_twin(
    config: PreTrainedConfig, *, dtype: str, attention: str, device: str, window: int | None = None
) -> PreTrainedModel:
    """Return a model of the same kind with random weights (the same ones), few layers and a small vocabulary.

    To try on it what the architecture does, where the model itself is in shards. It has layers of each kind, and its
    logits are large enough for a cap on them to be seen. `window`: of layers that have one, so that short sequences
    reach it.
    """
    config = copy.deepcopy(config.get_text_config())
    for name in ("sliding_window", "attention_chunk_size"):
        if window and getattr(config, name, None):
            setattr(config, name, window)
    kinds = getattr(config, "layer_types", None) or [""] * config.num_hidden_layers
    config.num_hidden_layers = max(2, 1 + max(kinds.index(kind) for kind in kinds))
    if getattr(config, "layer_types", None):
        config.layer_types = kinds[: config.num_hidden_layers]
    config.vocab_size = min(config.vocab_size, TWIN_VOCABULARY)
    config.pad_token_id = None
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        twin = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype), attn_implementation=attention)
    with torch.no_grad():
        twin.get_output_embeddings().weight.mul_(TWIN_SPREAD)
    return twin.train()


def load_config(path: str | Path, rope: Mapping[str, Any] | None = None) -> PreTrainedConfig:
    """Return the config of the model at `path`, its context stretched as `rope` says. Raises UserError."""
    path = model_folder(path)
    try:
        config = AutoConfig.from_pretrained(str(path))
    except (OSError, ValueError, ImportError) as error:
        raise _load_error("model", path, error) from error
    if rope:
        extend_context(config, rope)
    return config


def parameter_names(path: str | Path, rope: Mapping[str, Any] | None = None) -> frozenset[str]:
    """Return the names of the model's parameters (tied ones once), without loading any. Raises UserError."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(load_config(path, rope))
    return frozenset(name for name, _ in model.named_parameters())


def load_tokenizer(path: str | Path, template: str = "") -> PreTrainedTokenizerBase:
    """Return the tokenizer at `path`, padding on the left; its padding token falls back to the end-of-sequence token.

    `template`: a chat template (Jinja) in place of its own. Raises UserError when it cannot be loaded, has no chat
    template, or cannot render the one that is given.
    """
    path = model_folder(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), padding_side="left")
    except (OSError, ValueError, ImportError) as error:
        raise _load_error("tokenizer", path, error) from error
    if template:
        use_template(tokenizer, template)
    if not tokenizer.chat_template:
        raise UserError(
            f"model.path: {path} has no chat template; use an instruction-tuned model, or give model.chat_template (a "
            "file)"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def use_template(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    """Give a tokenizer another chat template. Raises UserError where it cannot be rendered."""
    tokenizer.chat_template = template
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "?"}], add_generation_prompt=True, tokenize=False)
    except Exception as error:  # a template may raise anything
        raise UserError(f"model.chat_template: cannot be rendered: {first_line(error)}") from None


def model_folder(path: str | Path) -> str:
    """Return a model's local folder, or its hub name. A GGUF file is unpacked to a folder first, once.

    A hub name is `organisation/name` or `name`; anything else that does not exist is a missing folder. The way to the
    hub is looked for before it is asked: without one its libraries would try again for a minute. Raises UserError.
    """
    if Path(path).is_dir():
        return str(path)
    if is_gguf(path):
        folder = unpacked_place(path)
        return str(made_once(folder, lambda: export_hf(*read_gguf(path), folder)))
    looks_local = Path(path).is_absolute() or str(path).startswith((".", "~")) or str(path).count("/") > 1
    if looks_local:
        raise UserError(f"model.path: {path}: no such folder; run the stage that makes it, or give a hub name")
    missing_way()
    return str(path)


def _load_error(what: str, path: str | Path, error: Exception) -> UserError:
    if Path(path).is_dir():
        mend = "give a folder that `save_pretrained` wrote"
    else:
        mend = "check the name and the network, or download it and give its folder"
    reason = first_line(error)
    if not Path(path).is_dir() and (why := missing_way()):
        reason = f"{why}, and it is not in the cache"
    return UserError(f"model.path: cannot load the {what} '{path}' ({reason.rstrip('.')}); {mend}")


def export_hf(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write model and tokenizer to `directory` so that plain transformers and vLLM load them.

    The folder appears complete or not at all: it is written beside its place and then renamed; an older one is
    replaced.
    """
    config = model.config.get_text_config()
    in_training = getattr(config, "use_cache", None)
    beside = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}")
    beside.mkdir(parents=True)
    try:
        # Trainers switch the KV cache off; a saved config that says so makes everyone's generation quadratic.
        config.use_cache = True
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        replace_folder(beside, directory)
    finally:
        config.use_cache = in_training
        shutil.rmtree(beside, ignore_errors=True)


def replace_folder(new: Path, place: Path) -> None:
    """Rename a folder to `place`; what is there, which cannot be renamed over, steps aside first and is removed."""
    old = place.with_name(f"{new.name}.old")
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)
