"""Room aliases of this server. An alias belongs to a room because a row of this server says so, never because
a room's state does; its owner can only be changed by a writer that has read the present one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from hansa import (
    CompareAndSwap,
    Insert,
    Remove,
    Row,
    ScopedStore,
    Write,
    scan_all,
)

_ALIAS = "room_alias"


@dataclass(frozen=True, slots=True)
class RoomAlias:
    """One name, its room, and who gave it. ``body`` is the row as it was read."""

    name: str
    room_id: str
    by: str
    body: bytes


def _alias_from_row(row: Row) -> RoomAlias:
    """A row; one of before holds who gave the name alone, or nothing where an operator did."""
    by = row.body.decode()
    if by.startswith("{"):
        by = str(orjson.loads(row.body)["by"])
    return RoomAlias(str(row.key[0]), str(row.fields["room_id"]), by, row.body)


def _row_body(room_id: str, by: str) -> bytes:
    return orjson.dumps({"by": by, "room_id": room_id})


async def room_id_of(store: ScopedStore, name: str) -> str | None:
    """The id of the room that a name of this server leads to; None if the name is free."""
    known = await alias_of(store, name)
    return known.room_id if known is not None else None


async def alias_of(store: ScopedStore, name: str) -> RoomAlias | None:
    """A name of a room here, None if there is no such name."""
    row = await store.get(_ALIAS, (name,))
    return _alias_from_row(row) if row is not None else None


async def aliases_of(store: ScopedStore, room_id: str) -> list[RoomAlias]:
    """The names of one room."""
    return [
        _alias_from_row(row) async for row in scan_all(store, _ALIAS, index=("room_id",), equal=(room_id,))
    ]


def insert_alias_write(name: str, room_id: str, by: str) -> Insert:
    """The write that gives a room a name; a ``Conflict`` if a room has it already."""
    return Insert(_ALIAS, (name,), _row_body(room_id, by), {"room_id": room_id})


def move_alias_write(alias: RoomAlias, room_id: str) -> CompareAndSwap:
    """The write by which a name becomes another room's; a ``Conflict`` if it was given to another room, or
    taken away, meanwhile.
    """
    fields: dict[str, Any] = {"room_id": room_id}
    return CompareAndSwap(_ALIAS, (alias.name,), alias.body, _row_body(room_id, alias.by), fields)


def remove_alias_writes(alias: RoomAlias) -> list[Write]:
    """The writes that end a name; a ``Conflict`` if it became another room's meanwhile."""
    return [Remove(_ALIAS, (alias.name,), alias.body)]
