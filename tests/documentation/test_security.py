"""The numbers of docs/security.md are those of the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+?) \| (\d+) \| `([\w.]+):([\w.]+)` \|$", PAGE, re.MULTILINE)


def _value(module: str, name: str) -> object:
    found: object = importlib.import_module(module)
    for part in name.split("."):
        fields = getattr(found, "model_fields", None) or getattr(found, "__dataclass_fields__", None)
        known = fields.get(part) if fields and isinstance(found, type) else None
        found = known.default if known is not None else getattr(found, part)
    return found


def test_every_row_of_a_table_names_its_place():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| what")]
    assert len(rows) == len(ROWS) > 30


@pytest.mark.parametrize(("what", "number", "module", "name"), ROWS, ids=[name for *_, name in ROWS])
def test_a_number_is_that_of_the_code(what, number, module, name):
    assert _value(module, name) == int(number), what
