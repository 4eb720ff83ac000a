"""The form of a model: what decides, beside its weights, what it reads and writes."""

import hashlib
from pathlib import Path

FORM = ("config.json", "tokenizer*", "*.jinja", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json")
"""Its config, tokenizer and chat template, as files."""


def form_mark(folder: Path) -> str | None:
    """Return a hash of the form of the model in a folder; None where it has no such files (a hub name, say)."""
    files = sorted({path for pattern in FORM for path in folder.glob(pattern) if path.is_file()})
    found = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        found.update(f"{path.name} {len(content)}".encode() + content)
    return found.hexdigest()[:16] if files else None
