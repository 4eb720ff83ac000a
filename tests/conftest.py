"""Fixtures that tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of public data sets; skip where AGAPO_TEST_DATA does not name one."""
    folder = os.environ.get("AGAPO_TEST_DATA")
    if not folder:
        pytest.skip("AGAPO_TEST_DATA is not set (a folder with gsm8k/, math/, ...)")
    return Path(folder)
