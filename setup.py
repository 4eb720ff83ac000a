"""What `pyproject.toml` cannot say: the wheel carries recipes/, rewards/ and data/ as files below agapo/carried/.

A wheel has one import package, so that nobody else's `data` or `rewards` is overwritten in site-packages;
`agapo.built_in` finds these. In an editable install they stand at the root of the clone.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = {"recipes": (".yaml", ".sbatch"), "rewards": (".py",), "data": (".py",)}
"""What each folder is carried with, as in `MANIFEST.in`: data that somebody has put there is theirs."""


def left_out(folder: str, names: list[str]) -> list[str]:
    """Return the names in a folder, which lies in one of `FOLDERS`, that are not carried; for `shutil.copytree`."""
    carried = FOLDERS[Path(folder).parts[0]]
    return [
        name for name in names if name == "__pycache__" or not (name.endswith(carried) or Path(folder, name).is_dir())
    ]


class WithBuiltIns(build_py):
    """Builds the package, and lays the folders beside its modules."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        for name in FOLDERS:
            target = Path(self.build_lib, "agapo", "carried", name)
            # What an earlier build has left may be gone from the sources.
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(name, target, ignore=left_out)


setup(cmdclass={"build_py": WithBuiltIns})
