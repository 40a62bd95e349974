"""Commands that a plugin adds to ``hansa``: what they are called and take, and how their answer is printed.

They are declared without opening a network: ``hansa PLUGIN WORDS...`` only asks the running Hansa, whose
network does the work (``hansa.HasAdminCommands``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hansa.model.printable import columns

#: Characters of one cell of a table.
_MAX_CELL = 300


def format_pairs(found: Any) -> str:
    """Small answers: a key and a value a line. A list that is empty is left out."""
    return "\n".join(
        f"{key.replace('_', ' ')}: {_format_value(value)}"
        for key, value in found.items()
        if value not in ([], {})
    )


def _format_value(value: Any) -> str:
    """A value as people say it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_format_value, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_format_value(one)}" for key, one in value.items())
    return str(value)


def format_time(ms: int) -> str:
    """A time in ms since 1970, in UTC."""
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def counted(number: int, one: str, many: str = "") -> str:
    """A number of things in words: ``1 event``, ``2 events``; ``many`` where it is not ``one`` with an s."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def format_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns, as wide as they must be. A cell of over 300 characters is cut; ``--json`` has all of it."""
    if not rows:
        return "(none)"
    cut = [[c if len(c) <= _MAX_CELL else f"{c[:_MAX_CELL]}…" for c in row] for row in [heads, *rows]]
    widths = [max(columns(row[i]) for row in cut) for i in range(len(heads))]
    lines = [
        "  ".join(c + " " * (w - columns(c)) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in cut
    ]
    return "\n".join(lines)


def _good(_found: Any) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One argument. ``name`` with leading dashes (``--limit``) is an option, without a positional one.

    It reaches the network under its name without dashes, inner ones as ``_``. ``number``: a whole number;
    ``switch``: an option that is there or not; ``optional``: a positional one that may be left out (None);
    ``many``: one or more. ``secret``: an option that is never an argument, which everybody could see: it is
    read from the file of ``NAME-file``, or asked for.
    """

    name: str
    help: str
    number: bool = False
    switch: bool = False
    optional: bool = False
    many: bool = False
    secret: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """``hansa PLUGIN WORDS...``. ``words`` are one or two, separated by a space: the name under which the
    network's ``admin_commands`` has it. ``show`` makes text of its answer; ``--json`` prints that as it is.
    ``short``: it is also ``hansa WORDS...``, where no other plugin has such words. ``changes``: it does
    something, which policies are asked about; not so what only looks. ``failed``: whether an answer names
    something that is wrong, after which the exit code is 1.
    """

    words: str
    help: str
    arguments: tuple[Argument, ...] = ()
    show: Callable[[Any], str] = format_pairs
    short: bool = False
    changes: bool = True
    failed: Callable[[Any], bool] = _good


class Commands:
    """The collection to which a plugin adds its commands."""

    def __init__(self) -> None:
        self.found: dict[str, Command] = {}

    def add(self, command: Command) -> None:
        """One more; the same words again replace the former."""
        self.found[command.words] = command
