"""The pytest plugin that comes with Hansa: it says which seed a run used, and loads nothing else."""

from __future__ import annotations

import os

import pytest

# The suites' own asserts then say what they compared, in whatever distribution they are subclassed.
pytest.register_assert_rewrite("hansa.testing.network_suite", "hansa.testing.policy_suite")

#: Simulations and random tests start from this; set it to replay a failure.
SEED = int(os.environ.get("HANSA_SEED", "1"))


def pytest_report_header() -> str:
    """One line at the top of a run."""
    return f"hansa: seed {SEED} (set HANSA_SEED to change it)"
