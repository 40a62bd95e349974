"""Members of a room without a connection to it. They stay members: a closed client, a lost connection or a
restart of the XMPP server does not end a membership. A member who stays away for ``member_idle_days`` leaves.
"""

from __future__ import annotations

from collections.abc import Collection

from hansa import Delete, Insert, NativeId, NetworkContext, Write, again_on_conflict

_DAY_MS = 86_400_000
#: Absences that are looked at in one go.
_PAGE_SIZE = 100


class Absences:
    """Since when members are without a connection: one row per room and bare JID."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx
        self._store = ctx.store

    async def note_absent(self, room: str, users: Collection[NativeId]) -> None:
        """Begins the absence of those who have none yet."""
        keys = list(dict.fromkeys((room, user.id) for user in users))
        if not keys or not self._ctx.config.member_idle_days:
            return

        async def insert_missing() -> None:
            known = await self._store.get_many("absence", keys)
            fields = {"at": self._ctx.clock.now()}
            writes: list[Write] = [Insert("absence", key, b"", fields) for key in keys if key not in known]
            for at in range(0, len(writes), _PAGE_SIZE):
                await self._store.commit(writes[at : at + _PAGE_SIZE])

        await again_on_conflict(insert_missing)

    async def end(self, room: str, user: NativeId) -> None:
        """The member is back, or is a member no longer."""
        if await self._store.get("absence", (room, user.id)) is not None:
            await self._store.commit([Delete("absence", (room, user.id))])

    async def list_idle(self) -> list[tuple[str, NativeId]]:
        """Some of those whose absence has lasted too long, by room and user."""
        days = self._ctx.config.member_idle_days
        if not days:
            return []
        until = self._ctx.clock.now() - days * _DAY_MS
        rows = await self._store.scan("absence", index=("at",), upto=until, limit=_PAGE_SIZE)
        return [(str(row.key[0]), NativeId(self._ctx.id, str(row.key[1]))) for row in rows]
