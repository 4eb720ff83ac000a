"""What tells a folder's model from others: its weights, and its form, which decides what it reads and writes."""

import hashlib
from pathlib import Path

FORM = ("config.json", "tokenizer*", "*.jinja", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json")
"""Its config, tokenizer and chat template, as files."""


def weights_mark(folder: Path, *, samples: int = 64, size: int = 4096) -> str | None:
    """Return a hash that tells a folder's weights from others; None where there are none (a hub name, say).

    Of each file its size and `samples` pieces of `size` bytes, evenly spread: training moves every matrix, and reading
    60 GB takes minutes.
    """
    files = sorted(folder.glob("*.safetensors"))
    found = hashlib.sha256()
    for path in files:
        length = path.stat().st_size
        found.update(f"{path.name} {length}".encode())
        with path.open("rb") as file:
            for number in range(samples):
                file.seek(length * number // samples)
                found.update(file.read(size))
    return found.hexdigest()[:16] if files else None


def form_mark(folder: Path) -> str | None:
    """Return a hash of the form of the model in a folder; None where it has no such files (a hub name, say)."""
    files = sorted({path for pattern in FORM for path in folder.glob(pattern) if path.is_file()})
    found = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        found.update(f"{path.name} {len(content)}".encode() + content)
    return found.hexdigest()[:16] if files else None
