"""Occupants that survive a restart: the stored connections to each room, and the check whether they still
exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from hansa import (
    Collection,
    Delete,
    Insert,
    Put,
    Random,
    Schema,
    ScopedStore,
    again_on_conflict,
    scan_all,
)

from hansa_xmpp.proto import render
from hansa_xmpp.proto.render import OutboundStanza, xml_element
from hansa_xmpp.proto.stanza import NS_PING, Stanza

SCHEMA = Schema(
    owner="xmpp",
    version=1,
    collections=[
        Collection(
            name="occupant",
            key={"room": str, "jid": str},
            fields={"nick": str, "joined_seq": int},
        ),
        Collection(name="secret", key={"name": str}),
        Collection(name="uptime", key={"name": str}, fields={"ms": int}),
        Collection(name="absence", key={"room": str, "user": str}, fields={"at": int}, indexes=(("at",),)),
        Collection(name="foreign_room", key={"room": str}, fields={"last": str, "at": int}),
        Collection(
            name="foreign_puppet",
            key={"room": str, "network": str, "user": str},
            fields={"nick": str, "occupant": str, "removed": int},
        ),
        Collection(
            name="reflected",
            key={"room": str, "message": str},
            fields={"native": str, "at": int},
            indexes=(("native",), ("at",)),
        ),
    ],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """One connection as stored. ``joined_seq`` is the event up to which it was given the log."""

    room: str
    jid: str
    nick: str
    joined_seq: int


class OccupantStore:
    """The stored occupants."""

    def __init__(self, store: ScopedStore) -> None:
        self._store = store

    async def load(self, room: str) -> list[StoredSession]:
        """Those of one room."""
        return [
            StoredSession(
                room=room,
                jid=str(row.key[1]),
                nick=str(row.fields["nick"]),
                joined_seq=int(row.fields["joined_seq"] or 0),
            )
            async for row in scan_all(self._store, "occupant", equal=(room,))
        ]

    async def put(self, kept: Iterable[StoredSession]) -> None:
        """Write connections, known or new."""
        await self._store.commit(
            [
                Put("occupant", (k.room, k.jid), b"", {"nick": k.nick, "joined_seq": k.joined_seq})
                for k in kept
            ]
        )

    async def remove(self, room: str, jids: Iterable[str]) -> None:
        """Forget connections."""
        writes = [Delete("occupant", (room, jid)) for jid in jids]
        if writes:
            await self._store.commit(writes)

    async def salt(self, random: Random) -> bytes:
        """Returns the secret salt of occupant ids (XEP-0421): random, made once, then stored."""

        async def made() -> bytes:
            row = await self._store.get("secret", ("occupant-id",))
            if row is not None:
                return row.body
            salt = random.bytes(32)
            await self._store.commit([Insert("secret", ("occupant-id",), salt)])
            return salt

        return await again_on_conflict(made)


class SelfPing:
    """Pings (XEP-0199) under way."""

    def __init__(self, random: Random, timeout: float) -> None:
        self._random = random
        self._timeout = timeout
        self._waiting: dict[tuple[str, str], asyncio.Future[bool]] = {}

    def make(self, room: str, full: str) -> tuple[OutboundStanza, asyncio.Future[bool]]:
        """A ping of a connection by a room, and what will become of it."""
        name = "ping-" + self._random.bytes(9).hex()
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[full, name] = future
        future.add_done_callback(lambda _: self._waiting.pop((full, name), None))
        return render.stanza("iq", room, [full], xml_element("ping", NS_PING), type_="get", id_=name), future

    async def alive(self, future: asyncio.Future[bool]) -> bool:
        """Wait for the answer; an error and none in time both mean that nobody is there."""
        try:
            async with asyncio.timeout(self._timeout):
                return await future
        except TimeoutError:
            return False

    def answered(self, stanza: Stanza) -> bool:
        """Takes an iq result or error; False if it does not answer a ping of this component."""
        future = self._waiting.get((stanza.sender.full, stanza.id))
        if future is None:
            return False
        if not future.done():
            future.set_result(stanza.type == "result")
        return True
