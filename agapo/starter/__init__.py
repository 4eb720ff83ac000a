"""`agapo init`: a project's folder, for someone who has installed agapo and has no clone.

Everything built in is found without it. What is laid out is there to be read and changed: the recipes, and below
`files/` a reward, a data source and a recipe that belong together.
"""

import shutil
from pathlib import Path

from agapo.built_in import BUILT_IN
from agapo.errors import UserError

OWN = Path(__file__).parent / "files"
LEFT_OUT = shutil.ignore_patterns("__pycache__")


def lay_out(folder: Path) -> None:
    """Lay a project out in `folder`, which is made, and say what there is.

    Raises UserError, before anything is written, where a file is there already.
    """
    sources = {BUILT_IN / "recipes": folder / "recipes", OWN: folder}
    for source, target in sources.items():
        _refuse_overwriting(source, target)
    try:
        for source, target in sources.items():
            shutil.copytree(source, target, ignore=LEFT_OUT, dirs_exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot lay a project out: {error.strerror}; give another folder") from None
    print(f"{folder}: a project; {folder / 'README.md'} says what is where. To begin with:\n")
    print(f"  cd {folder} && agapo check recipes/rl/doubles.yaml && agapo rl recipes/rl/doubles.yaml")


def _refuse_overwriting(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        there = target / path.relative_to(source)
        # A folder that is there is added to; a file in a folder's place is as much in the way.
        if there.exists() and not (path.is_dir() and there.is_dir()) and "__pycache__" not in path.parts:
            raise UserError(f"{there}: is there already, and nothing was written; give an empty or a new folder")
