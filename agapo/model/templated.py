"""A model that is asked in another chat template than its own, or, a base model, in its first one.

It becomes a folder of links to the model's files, with a tokenizer that has the template: every part that loads models
loads it, and what is trained from it is exported with the template.
"""

import os
import uuid
from hashlib import sha256
from pathlib import Path

from agapo.errors import UserError, first_line
from agapo.model.loading import load_tokenizer, local_files, model_folder, replace_folder
from agapo.model.marks import form_mark
from agapo.recipe.model import ORIGIN


def with_template(model: str, template: Path, place: Path) -> str:
    """Return the folder of a model with a chat template, made below `place` where it is not there.

    `model` is a folder, a GGUF file or a hub name. Its links into the project, where `place` is `outputs/templated`, go
    with it when it is moved. Raises UserError where the template cannot be read or rendered, or a hub's model has no
    weights in safetensors files.
    """
    text = read_template(template)
    # Of a model that was made anew in its place, the tokenizer may be another one.
    mark = sha256(f"{model}|{text}|{form_mark(Path(model_folder(model)))}".encode()).hexdigest()[:12]
    folder = place / f"{Path(model).name}-{mark}"
    # Links lead nowhere once the model has been moved.
    if not folder.is_dir() or not all(path.exists() for path in folder.iterdir()):
        tokenizer = load_tokenizer(model, text)
        files = local_files(model)
        if not Path(model).exists() and not any(files.glob("*.safetensors")):
            raise UserError(
                f"model.chat_template: {model} has no weights in *.safetensors files on the hub, and others are not "
                "fetched; load it with transformers, `save_pretrained` it, and give that folder as model.path"
            )
        new = place / f".{uuid.uuid4().hex}"
        tokenizer.save_pretrained(new)
        for path in files.iterdir():
            if not (new / path.name).exists():
                (new / path.name).symlink_to(_seen_from(folder, path.resolve(), place.parents[1]))
        (new / ORIGIN).write_text(str(_seen_from(folder, Path(model), place.parents[1])), encoding="utf-8")
        replace_folder(new, folder)
    return str(folder)


def _seen_from(folder: Path, path: Path, project: Path) -> str | Path:
    """Return a path from `folder` where both lie in one project; else, and for a hub name, as it is."""
    return os.path.relpath(path, folder.resolve()) if path.is_relative_to(project.resolve()) else path


def read_template(path: Path) -> str:
    """Return a file's chat template. Raises UserError where it cannot be read, or is empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"model.chat_template: cannot read {path}: {first_line(error)}") from None
    if not text.strip():
        raise UserError(f"model.chat_template: {path} is empty")
    return text
