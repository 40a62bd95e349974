"""Changes of a room's members that are too many for one commit.

They are written first to rows of their own, which no reader looks at. They take effect with the commit of the
room's row, which names them. Then they are copied to the rows of the members, and to those of the membership
log, in pieces. Until the last piece the room's row names the change, and nothing else is committed in that
room. A crash before the commit leaves rows that nothing names, which a later start removes; after it, the
first reader of the room finishes the work.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator, Sequence

import orjson

from hansa.bus import schema
from hansa.environment import Clock, Random
from hansa.model.errors import LocalProtocolError
from hansa.model.ref import NativeId
from hansa.store.base import CompareAndSwap, Delete, Insert, Put, Row, ScopedStore, Write
from hansa.store.bounds import cut, pieces
from hansa.store.conflict_retry import again_on_conflict
from hansa.store.paging import pages

#: People whose rows go into the room's own commit.
AT_ONCE = 1000
#: People, and bytes of them, in one row of a change.
_PART, _PART_BYTES = 1000, 256 * 1024
#: Milliseconds after which rows that no room names are removed: their writer has gone.
_ORPHANED_AFTER = 3_600_000


class LargeChanges:
    """Those of all rooms of this process."""

    def __init__(self, store: ScopedStore, clock: Clock, random: Random) -> None:
        self._store = store
        self._clock = clock
        self._random = random
        self._one = asyncio.Lock()

    async def stage(self, people: Sequence[Put | Delete], logged: Sequence[Put]) -> schema.Change | None:
        """Keep the writes of many people, and those of the membership log, for the commit of the room's row
        that names what this returns; None where they are few, and go into that commit themselves.
        """
        if len(people) <= AT_ONCE:
            return None
        name = base64.b32encode(self._random.bytes(10)).decode().lower()
        fields = {"at": self._clock.now()}
        rows: list[Write] = [
            Insert("people_change", (name, at), body, fields)
            for at, body in enumerate(_encode_parts([*people, *logged]))
        ]
        for piece in pieces(rows):
            await self._store.commit(piece)
        return schema.Change(name, len(rows))

    async def settled(self, room: str) -> Row:
        """A room's row once all that it names is done. Raises LocalProtocolError for a room that is not
        there.
        """
        row = await self._room_row(room)
        if schema.room_of(row)[-1].change is None:
            return row
        async with self._one:
            return await again_on_conflict(lambda: self._settle_row(room))

    async def _room_row(self, room: str) -> Row:
        row = await self._store.get("room", (room,))
        if row is None:
            raise LocalProtocolError(f"room {room} is not in the store")
        return row

    async def _settle_row(self, room: str) -> Row:
        row = await self._room_row(room)
        change = schema.room_of(row)[-1].change
        if change is None:
            return row
        names = [(change.name, part) for part in range(change.parts)]
        # Another process may have done it meanwhile.
        same = CompareAndSwap("room", (room,), row.body, row.body)
        for name in names:
            part = await self._store.get("people_change", name)
            if part is None:
                raise LocalProtocolError(f"a part of what changed in room {room} is not in the store")
            await self._store.commit([same, *_part_writes(room, part.body)])
        done = schema.room_settled(row)
        await self._store.commit([done, *(Delete("people_change", name) for name in names)])
        return await self._room_row(room)

    async def sweep(self) -> None:
        """Remove what no room has come to name. For a start, once every room is settled."""
        until = self._clock.now() - _ORPHANED_AFTER
        async for rows in pages(self._store, "people_change", index=("at",), upto=until, size=100):
            await self._store.commit([Delete("people_change", row.key) for row in rows])


async def staged_memberships(
    store: ScopedStore, room: str, change: schema.Change, user: NativeId
) -> list[Put]:
    """The rows of the membership log that a change which holds has for a person; none of those that are in
    their places already, once the change is done.
    """
    found = list[Put]()
    for part in range(change.parts):
        row = await store.get("people_change", (change.name, part))
        for write in _part_writes(room, row.body) if row is not None else ():
            if isinstance(write, Put) and write.collection == "membership_log":
                found += [write] if write.key[1:3] == (user.network, user.id) else []
    return found


def _encode_parts(writes: Sequence[Put | Delete]) -> Iterator[bytes]:
    for piece in cut(writes, _PART, _PART_BYTES):
        yield orjson.dumps(
            [
                # Network and user; in the membership log the position follows the body.
                (*write.key[1:3], write.body.decode() if isinstance(write, Put) else None, *write.key[3:])
                for write in piece
            ]
        )


def _part_writes(room: str, body: bytes) -> list[Write]:
    return [_part_write(room, *entry) for entry in orjson.loads(body)]


def _part_write(
    room: str, network: str, user: str, body: str | None, position: int | None = None
) -> Put | Delete:
    if position is not None:
        return Put("membership_log", (room, network, user, position), (body or "").encode())
    if body is None:
        return Delete("person", (room, network, user))
    return Put("person", (room, network, user), body.encode())
