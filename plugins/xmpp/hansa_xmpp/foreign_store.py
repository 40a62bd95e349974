"""Rows of rooms elsewhere: how far a room was read, the puppets in it, and messages that it reflected."""

from __future__ import annotations

from dataclasses import dataclass

from hansa import Delete, NativeId, NetworkContext, Put, Value, first_page, scan_all

#: Days for which a reflected message can be corrected, and reflections between two looks for older ones.
_KEPT_DAYS, _PRUNED_EVERY, _PRUNED = 7, 200, 500
_DAY_MS = 86_400_000
#: The ``removed`` of a puppet that is banned.
_BANNED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPosition:
    """The room's id of the last message that was read, empty if it gives none, and when it came (ms)."""

    last: str = ""
    at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPuppet:
    """A puppet of a person. ``removed``: the room removed it, and the person has not asked for it since.
    ``banned``: for good.
    """

    person: NativeId
    nick: str
    occupant: str = ""
    removed: bool = False
    banned: bool = False


class ForeignStore:
    """The rows of one component."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx
        self._count = 0

    async def position(self, room: str) -> ReadPosition | None:
        """How far a room was read, None if it never was."""
        row = await self._ctx.store.get("foreign_room", (room,))
        if row is None:
            return None
        return ReadPosition(last=str(row.fields["last"] or ""), at=int(row.fields["at"] or 0))

    async def put_position(self, room: str, position: ReadPosition) -> None:
        """Stores how far a room was read."""
        fields: dict[str, Value] = {"last": position.last, "at": position.at}
        await self._ctx.store.commit([Put("foreign_room", (room,), b"", fields)])

    async def puppets(self, room: str) -> list[StoredPuppet]:
        """The puppets that a room has, or had."""
        return [
            StoredPuppet(
                person=NativeId(str(row.key[1]), str(row.key[2])),
                nick=str(row.fields["nick"] or ""),
                occupant=str(row.fields["occupant"] or ""),
                removed=bool(row.fields["removed"]),
                banned=row.fields["removed"] == _BANNED,
            )
            async for row in scan_all(self._ctx.store, "foreign_puppet", equal=(room,))
        ]

    async def put_puppet(self, room: str, puppet: StoredPuppet) -> None:
        """Stores a puppet."""
        key = (room, puppet.person.network, puppet.person.id)
        fields: dict[str, Value] = {
            "nick": puppet.nick,
            "occupant": puppet.occupant,
            "removed": _BANNED if puppet.banned else int(puppet.removed),
        }
        await self._ctx.store.commit([Put("foreign_puppet", key, b"", fields)])

    async def reflected(self, room: str, message: str) -> str | None:
        """The native id of a message that we sent with the id ``message``, None if it was not reflected."""
        row = await self._ctx.store.get("reflected", (room, message))
        return None if row is None else str(row.fields["native"])

    async def put_reflected(self, room: str, message: str, native: str) -> None:
        """A room has reflected a message."""
        fields: dict[str, Value] = {"native": native, "at": self._ctx.clock.now()}
        await self._ctx.store.commit([Put("reflected", (room, message), b"", fields)])
        self._count += 1
        if self._count % _PRUNED_EVERY == 1:
            await self._prune()

    async def message_of(self, native: str) -> str | None:
        """The id with which we sent the message that has a native id, None if that is not known any more."""
        rows = await first_page(self._ctx.store, "reflected", index=("native",), equal=(native,), size=1)
        return str(rows[0].key[1]) if rows else None

    async def _prune(self) -> None:
        before = self._ctx.clock.now() - _KEPT_DAYS * _DAY_MS
        rows = await first_page(self._ctx.store, "reflected", index=("at",), upto=before, size=_PRUNED)
        await self._ctx.store.commit([Delete("reflected", row.key) for row in rows])

    async def forget_room(self, room: str) -> None:
        """Removes the rows of a room that is not linked any more."""
        rows = [row async for row in scan_all(self._ctx.store, "foreign_puppet", equal=(room,))]
        writes = [Delete("foreign_puppet", row.key) for row in rows]
        for at in range(0, len(writes), _PRUNED):
            await self._ctx.store.commit(writes[at : at + _PRUNED])
        await self._ctx.store.commit([Delete("foreign_room", (room,))])
