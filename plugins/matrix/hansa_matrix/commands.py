"""``hansa matrix ...``: what an operator may ask of a Matrix network."""

from __future__ import annotations

from typing import Any

from hansa import Command, Commands
from hansa.pure.commands import table


def _rooms(found: Any) -> str:
    rows = [
        [r["room"], r["version"], "yes" if r["resident"] else "no", str(r["extremities"]), str(r["waiting"])]
        for r in found
    ]
    return table(["room", "version", "joined", "extremities", "waiting"], rows)


def register(commands: Commands) -> None:
    """Every command."""
    commands.add(Command(words="rooms ls", help="the rooms as Matrix has them", show=_rooms))
