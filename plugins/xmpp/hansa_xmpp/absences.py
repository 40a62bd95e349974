"""Members of a room without a connection to it. They stay members: a closed client, a lost connection or a
restart of the XMPP server does not end a membership. A member who stays away for ``member_idle_days`` leaves.
"""

from __future__ import annotations

from collections.abc import Collection

from hansa import Delete, Insert, NativeId, NetworkContext, Put, Write, again_on_conflict

_UPTIME = ("uptime",)
_DAY_MS = 86_400_000
#: Absences that are looked at in one go.
_PAGE_SIZE = 100


class Absences:
    """Since when members are without a connection: one row per room and bare JID. Only the time counts in
    which the network runs: a wall clock that jumps ends no absence, and who cannot come back because Hansa is
    down is not away.
    """

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx
        self._store = ctx.store
        #: The uptime as the store had it (ms), and when it was read (``Clock.monotonic``).
        self._stored_uptime: int | None = None
        self._read_at = 0.0

    async def _uptime(self) -> int:
        """Milliseconds that the network has run. They begin at the wall clock of the first start: absences
        were noted by that once.
        """
        if self._stored_uptime is None:
            row = await self._store.get("uptime", _UPTIME)
            self._stored_uptime = int(row.fields["ms"] or 0) if row is not None else self._ctx.clock.now()
            self._read_at = self._ctx.clock.monotonic()
        return self._stored_uptime + round((self._ctx.clock.monotonic() - self._read_at) * 1000)

    async def note_absent(self, room: str, users: Collection[NativeId]) -> None:
        """Begins the absence of those who have none yet."""
        keys = list(dict.fromkeys((room, user.id) for user in users))
        if not keys or not self._ctx.config.member_idle_days:
            return

        async def insert_missing() -> None:
            known = await self._store.get_many("absence", keys)
            fields = {"at": await self._uptime()}
            writes: list[Write] = [Insert("absence", key, b"", fields) for key in keys if key not in known]
            for at in range(0, len(writes), _PAGE_SIZE):
                await self._store.commit(writes[at : at + _PAGE_SIZE])

        await again_on_conflict(insert_missing)

    async def end(self, room: str, user: NativeId) -> None:
        """The member is back, or is a member no longer."""
        if await self._store.get("absence", (room, user.id)) is not None:
            await self._store.commit([Delete("absence", (room, user.id))])

    async def list_idle(self) -> list[tuple[str, NativeId]]:
        """Some of those whose absence has lasted too long, by room and user. Each look keeps the uptime, so
        that a restart loses the time since the last one.
        """
        days = self._ctx.config.member_idle_days
        if not days:
            return []
        uptime = await self._uptime()
        await self._store.commit([Put("uptime", _UPTIME, b"", {"ms": uptime})], durability="lazy")
        until = uptime - days * _DAY_MS
        rows = await self._store.scan("absence", index=("at",), upto=until, limit=_PAGE_SIZE)
        return [(str(row.key[0]), NativeId(self._ctx.id, str(row.key[1]))) for row in rows]
