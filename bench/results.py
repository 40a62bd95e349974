"""``bench/RESULTS.md``: a section for each kind of row, replaced whenever it is measured again."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from collections.abc import Sequence
from pathlib import Path

from matrix.oracle.client import DEFAULT

_FILE = Path(__file__).with_name("RESULTS.md")
_HEAD = """# What was measured

Written by `scripts/bench ROW --record`, each section by the command that it names. What the columns mean is
in docs/performance.md; ratios count, absolute figures change with the machine and the hour.
"""


def record(row: str, arguments: Sequence[str], lines: Sequence[str]) -> None:
    """Put what was printed into the file, under its row's name."""
    text = _FILE.read_text() if _FILE.exists() else _HEAD
    head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    found = {section.partition("\n")[0]: section for section in sections}
    command = " ".join(["scripts/bench", *(a for a in arguments if a != "--record")])
    table = "\n".join(line.rstrip() for line in lines)
    found[row] = f"{row}\n\n`{command}`, {_versions()}\n\n```\n{table}\n```\n\n"
    _FILE.write_text(head + "".join(f"## {found[name]}" for name in sorted(found)).rstrip() + "\n")


def _versions() -> str:
    python, sqlite = platform.python_version(), sqlite3.sqlite_version
    return f"Python {python}, SQLite {sqlite}, {_synapse()}, {os.cpu_count()} cores"


def _synapse() -> str:
    ask = "import importlib.metadata as m; print(m.version('matrix-synapse'))"
    path = Path(os.environ.get("HANSA_SYNAPSE_PYTHON") or DEFAULT)
    if not path.is_file():
        return "no Synapse here"
    done = subprocess.run([path, "-c", ask], capture_output=True, text=True, check=True)
    return f"Synapse {done.stdout.strip()}"
