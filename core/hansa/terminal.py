"""The one place where text goes to a terminal: whatever peers put into it, it stays text."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from hansa.model.printable import printable, printable_values


def say(text: str, *, error: bool = False) -> None:
    """One line, at once."""
    out = sys.stderr if error else sys.stdout
    out.write(_escape_unencodable(printable(text), out.encoding) + "\n")
    out.flush()


def announce(text: str) -> None:
    """As ``say``, of a process that goes on: neither a terminal that is gone nor a full disk ends it."""
    with contextlib.suppress(OSError, ValueError):
        say(text)


def show(found: Any, shown: Callable[[Any], str]) -> None:
    """An answer as ``shown`` makes text of it: its lines are those that ``shown`` made."""
    page(shown(printable_values(found)))


def show_json(value: Any) -> None:
    """An answer as JSON, in ASCII: whatever is in it is escaped as JSON does."""
    text = json.dumps(value, indent=2).replace("\x7f", "\\u007f")
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def page(text: str) -> None:
    """Writes lines of Hansa's own text."""
    for line in text.removesuffix("\n").split("\n"):
        sys.stdout.write(_escape_unencodable(printable(line, most=1_000_000), sys.stdout.encoding) + "\n")
    sys.stdout.flush()


def give_up() -> None:
    """The reader has gone: remaining output is dropped, and the process ends without an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _escape_unencodable(text: str, encoding: str | None) -> str:
    """Replaces characters that a terminal's encoding does not have with escapes, so that output never
    fails.
    """
    name = encoding or "utf-8"
    return text.encode(name, "backslashreplace").decode(name)
