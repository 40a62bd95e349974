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
    actions.add_parser("check", parents=[listing], help="read every row once and report what is wrong")
    backup = actions.add_parser(
        "backup", parents=[listing], help="back up SQLite and files, also while Hansa runs"
    )
    backup.add_argument("folder", type=Path, help="folder; created if it does not exist")
    restore = actions.add_parser("restore", parents=[listing], help="restore a backup")
    restore.add_argument("folder", type=Path, help="folder of a backup")
    restore.add_argument(
        "--replace", action="store_true", help="move an existing database to another name first"
    )
    copy = actions.add_parser("copy", parents=[listing], help="copy one store into another, of any kind")
    copy.add_argument("source", metavar="FROM", help=_STORE)
    copy.add_argument("target", metavar="TO", help="the same; must be empty, or an interrupted copy")
