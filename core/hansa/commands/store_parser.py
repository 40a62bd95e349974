"""The words of `hansa store`, apart from what they do, which is imported when it is asked for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_STORE = (
    "sqlite:FILE, another store's URL, or a configuration whose store is meant (a path that ends in .toml)"
)


def add_parsers(top: Any, listing: argparse.ArgumentParser) -> None:
    """Add `store` and its actions to the command line."""
    actions = top.add_parser("store", help="check, back up, restore, copy the database").add_subparsers(
        dest="action", required=True
    )
    actions.add_parser("check", parents=[listing], help="read everything once and say what is wrong")
    backup = actions.add_parser("backup", parents=[listing], help="copy SQLite and files, also while running")
    backup.add_argument("folder", type=Path, help="where; made if it is not there")
    restore = actions.add_parser("restore", parents=[listing], help="put a backup in its place")
    restore.add_argument("folder", type=Path, help="what `hansa store backup` made")
    restore.add_argument(
        "--replace", action="store_true", help="keep a database that is there under another name"
    )
    copy = actions.add_parser("copy", parents=[listing], help="copy one store into another, of any kind")
    copy.add_argument("source", metavar="FROM", help=_STORE)
    copy.add_argument("target", metavar="TO", help="the same; empty, or a copy that was broken off")
