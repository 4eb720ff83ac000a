"""The mark of tests that run model-written code."""

import os

import pytest

from agapo.sandbox import problem

reason = problem()
if reason and os.environ.get("AGAPO_REQUIRE_SANDBOX"):  # the gate: there, a skipped sandbox test would be a hole
    raise RuntimeError(f"AGAPO_REQUIRE_SANDBOX is set, but {reason}")

needs_sandbox = pytest.mark.skipif(reason is not None, reason=reason or "")
