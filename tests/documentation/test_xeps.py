"""The table of XEPs in ``docs/xmpp.md``: every row names a test that exists, and every XEP that the code names has
a row.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "plugins" / "xmpp" / "hansa_xmpp"
_ROW = re.compile(r"\| (\d{4}) \| ([\d.]+) \| (\w+) \| ([^|]+) \| ([^|]*)\|")
#: An old form that is read as one of another XEP.
_NO_ROWS = {"0091"}


def rows() -> list[tuple[str, ...]]:
    page = (ROOT / "docs" / "xmpp.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if re.match(r"\| \d", line)]
    matches = [_ROW.fullmatch(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    return [match.groups() for match in matches if match]


def test_every_row_has_a_level_and_a_test_that_exists() -> None:
    found = rows()
    assert len(found) > 40
    assert [row[0] for row in found] == sorted({row[0] for row in found})
    for number, _, level, _, test in found:
        assert level in {"whole", "part", "not"}, number
        path, _, name = test.strip().strip("`").partition("::")
        assert bool(name) is (level != "not"), number
        if name:
            source = (ROOT / "tests" / "xmpp" / path).read_text(encoding="utf-8")
            assert f"def {name}(" in source, (number, test)


def test_every_xep_that_the_code_names_has_a_row() -> None:
    sources = [path.read_text(encoding="utf-8") for path in PLUGIN.rglob("*.py")]
    named = set(re.findall(r"XEP-(\d{4})", "\n".join(sources)))
    assert len(named) > 20
    assert named - _NO_ROWS <= {row[0] for row in rows()}
