"""A model that is asked in another chat template than its own, or, a base model, in its first one.

It becomes a folder of links to the model's files, with a tokenizer that has the template: every part that loads models
loads it, and what is trained from it is exported with the template.
"""

import uuid
from hashlib import sha256
from pathlib import Path

from agapo.errors import UserError, first_line
from agapo.model.loading import load_tokenizer, local_files, replace_folder
from agapo.recipe.model import ORIGIN


def with_template(model: str, template: Path, place: Path) -> str:
    """Return the folder of a model with a chat template, made below `place` where it is not there.

    `model` is a folder, a GGUF file or a hub name. Raises UserError where the template cannot be read or rendered.
    """
    text = read_template(template)
    mark = sha256(f"{model}|{text}".encode()).hexdigest()[:12]
    folder = place / f"{Path(model).name}-{mark}"
    # Links lead nowhere once the model has been moved.
    if not folder.is_dir() or not all(path.exists() for path in folder.iterdir()):
        tokenizer = load_tokenizer(model, text)
        new = place / f".{uuid.uuid4().hex}"
        tokenizer.save_pretrained(new)
        for path in local_files(model).iterdir():
            if not (new / path.name).exists():
                (new / path.name).symlink_to(path.resolve())
        (new / ORIGIN).write_text(model, encoding="utf-8")
        replace_folder(new, folder)
    return str(folder)


def read_template(path: Path) -> str:
    """Return a file's chat template. Raises UserError where it cannot be read, or is empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"model.chat_template: cannot read {path}: {first_line(error)}") from None
    if not text.strip():
        raise UserError(f"model.chat_template: {path} is empty")
    return text
