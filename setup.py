"""What `pyproject.toml` cannot say: the wheel carries recipes/, rewards/ and data/ as files below agapo/carried/.

A wheel has one import package, so that nobody else's `data` or `rewards` is overwritten in site-packages;
`agapo.built_in` finds these. In an editable install they stand at the root of the clone.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = ("recipes", "rewards", "data")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "*.jsonl", "*.parquet")


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
            shutil.copytree(name, target, ignore=LEFT_OUT)


setup(cmdclass={"build_py": WithBuiltIns})
