"""Fixtures that tests share."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# An example that takes long says that the machine is busy. What else the profile of the day has (CI's) is kept.
settings.register_profile("agapo", settings.default, deadline=None)
settings.load_profile("agapo")
# Read when the hub's library is imported: no test asks the hub for anything, and without a network it tries for long.
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of public data sets; skip where AGAPO_TEST_DATA does not name one."""
    folder = os.environ.get("AGAPO_TEST_DATA")
    if not folder:
        pytest.skip("AGAPO_TEST_DATA is not set (a folder with gsm8k/, math/, ...)")
    return Path(folder)


def finished_run(output: Path, stage: str, name: str, age: int, **summary: Any) -> Path:
    """Leave what tells a finished run: its summary, `age` seconds old at some moment, and a folder for its model."""
    run = output / stage / name
    (run / "hf").mkdir(parents=True)
    (run / "summary.json").write_text(json.dumps({"finished": True, "stage": stage, **summary}))
    os.utime(run / "summary.json", (1e9 - age, 1e9 - age))
    return run
