"""The Hugging Face hub: the way to it, and models that are sent there.

The way is looked for once: without one, the hub's libraries would try for a minute each time.
"""

import os
import socket
import sys
import threading
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from agapo.errors import UserError, first_line

PATIENCE_S = 5.0
"""How long the hub may take to answer, the look-up of its name included."""


@cache
def missing_way() -> str:
    """Return '' where the hub may be asked; else why not, having told its libraries, which then use their cache only.

    With the user's `HF_HUB_OFFLINE` they know already, and what lies behind a proxy cannot be looked at from here.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        # A fork's were imported before it got this variable.
        _go_offline()
        return ""
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
    if getproxies() or not endpoint.hostname or _answers(endpoint.hostname, port):
        return ""
    _go_offline()
    return f"there is no way to {endpoint.hostname}"


def _answers(host: str, port: int) -> bool:
    reached, done = threading.Event(), threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=PATIENCE_S).close()
            reached.set()
        except OSError:
            pass
        finally:
            done.set()

    # In a thread: the look-up of a name has no timeout of its own.
    threading.Thread(target=connect, daemon=True).start()
    done.wait(PATIENCE_S)
    return reached.is_set()


def _go_offline() -> None:
    """Tell the libraries: by the environment those that are imported later, and the processes started later."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    for module in ("huggingface_hub.constants", "datasets.config"):
        if module in sys.modules:
            sys.modules[module].HF_HUB_OFFLINE = True  # pyright: ignore[reportAttributeAccessIssue]


def push(folder: Path, name: str, *, private: bool) -> str:
    """Send a model's folder, its card included, to the hub as `name`, and return its address there.

    A repository of that name is made (`private` or public) where there is none; else it gets a new commit. Raises
    UserError where the hub cannot be reached or refuses, or one that should be private is public.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        HFValidationError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage] of whatever client it has
    )

    why = missing_way() or ("HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "")
    if why:
        raise UserError(f"--push {name}: {why}; the model is in {folder}: push it from where there is one")
    api = HfApi()
    try:
        made = api.create_repo(name, private=private, exist_ok=True)
        if private and not api.repo_info(made.repo_id).private:
            raise UserError(
                f"--push {name}: --private, but {made} is a public repository already; make it private in its "
                "settings on the hub, or give another name"
            )
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Upload with agapo")
    except (OSError, HTTPError, HFValidationError) as error:
        mend = "name it ORGANISATION/NAME or NAME, and log in with 'hf auth login' or HF_TOKEN (with write access)"
        raise UserError(f"--push {name}: the hub refuses it ({first_line(error)}); {mend}") from None
    return str(made)
