"""Definitions that stand in one place only, and are used from everywhere else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "core").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])

#: What it is -> how it is written.
STATED_ONCE = {
    "the version of this server": r'"0\.\d+\.\d+(\.dev\d+)?"',
    "the field of a policy's decision": r'"dev\.hansa\.decision"',
    "the state key of history visibility": r'\((HISTORY_VISIBILITY|"m\.room\.history_visibility"), ""\)',
    "the fields of a stripped event": r'"type", "state_key", "content", "sender", "origin_server_ts"',
}


@pytest.mark.parametrize("pattern", STATED_ONCE.values(), ids=STATED_ONCE)
def test_it_is_stated_once(pattern):
    found = [f.name for f in SOURCES for _ in re.finditer(pattern, f.read_text())]
    assert len(found) == 1, found
