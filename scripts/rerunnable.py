"""Print the failed tests that may be run once more, alone: a node id a line, or nothing.

    rerunnable.py LASTFAILED

``LASTFAILED`` is the file in which pytest keeps the failures of a run. Tests with real peers, databases,
clients and browsers share two cores with other tests, and a peer's own time-out may pass; so do tests that
measure time or memory. Tests that look for lost events and the like are not among them: they are there for
failures that only happen sometimes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

#: More failures than this are not the machine's.
MAX_FAILURES = 3
#: Tests with real parts, and those that measure.
REAL = tuple(
    Path("tests", name) for name in ("e2e", "clients", "core/store", "load", "hostile", "matrix/oracle")
)
#: Tests in which a failure that does not come again is a finding.
FINAL = (
    "test_kills",
    "test_kinds_kills",
    "test_takeover",
    "test_standby",
    "test_store_faults",
    "test_hostile",
    "test_seeded_partitions",
)


def rerunnable(failed: list[str]) -> list[str]:
    """``failed`` if each of them may be run again, else nothing."""
    files = [Path(node.partition("::")[0]) for node in failed]
    again = all(any(map(file.is_relative_to, REAL)) and file.stem not in FINAL for file in files)
    return sorted(failed) if again and len(failed) <= MAX_FAILURES else []


if __name__ == "__main__":
    kept = Path(sys.argv[1])
    print("\n".join(rerunnable(list(json.loads(kept.read_text())) if kept.exists() else [])))
