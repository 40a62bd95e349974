#!/usr/bin/env python3
"""Compares what coverage.py measured with the floor of each package. ``scripts/coverage`` calls it.

scripts/coverage_floors.py --folders               the folders that have a floor, one a line
scripts/coverage_floors.py FILE [--no-floors]      prints shares; exit code 1 if one is below its floor
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def floors() -> dict[str, float]:
    """The least percentage of lines that tests must reach, by folder."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(table["tool"]["hansa"]["coverage"])


def shares(report: dict[str, dict[str, dict[str, dict[str, int]]]], folders: list[str]) -> dict[str, float]:
    """The percentage of lines that were reached, by folder; a folder counts what is below it too.

    :param report: what coverage.py writes as JSON.
    """
    found = {}
    for folder in folders:
        lines = [
            file["summary"]
            for name, file in report["files"].items()
            if Path(name).is_relative_to(folder) or Path(name).is_relative_to(ROOT / folder)
        ]
        statements = sum(summary["num_statements"] for summary in lines)
        reached = sum(summary["covered_lines"] for summary in lines)
        found[folder] = 100 * reached / statements if statements else 0.0
    return found


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--folders", action="store_true")
    parser.add_argument("--no-floors", action="store_true")
    options = parser.parse_args()
    least = floors()
    if options.folders:
        # A folder within another is measured with it.
        print(
            "\n".join(
                f for f in least if not any(f != other and Path(f).is_relative_to(other) for other in least)
            )
        )
        return 0
    below = 0
    for folder, share in shares(json.loads(options.file.read_text(encoding="utf-8")), list(least)).items():
        low = not options.no_floors and share < least[folder]
        below += low
        note = "" if options.no_floors else f", floor {least[folder]:.0f} %" + (" : TOO LOW" if low else "")
        print(f"{folder}: {share:.1f} %{note}")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
