"""Servers that speak in a room by events that cannot be verified: nobody of them is in its state.

What cannot be verified is passed over (ADR 0013), the join of a server that a policy denies too, as its keys
are not asked for. Other servers of the room let it in, and hand on to it what is said there: policies take it
for being in the room. That ends when the events can be verified, or the room's server ACL bars the server.
"""

from __future__ import annotations

from collections.abc import Collection

from hansa import LruCache, NetworkContext

from hansa_matrix.rooms.room import MatrixRoom

#: Seconds for which an event counts that nobody cites: what others follow is a hole by then. Servers that are
#: noted so of one room, and rooms.
_NOTED_TTL_S, _MAX_SERVERS, _MAX_ROOMS = 3600.0, 100, 10_000


class UnverifiedServers:
    """Tells the core of them. Nothing is stored: holes are."""

    def __init__(self, ctx: NetworkContext, server: str) -> None:
        self._ctx = ctx
        self._server = server
        self._told: dict[str, frozenset[str]] = {}
        #: Until when servers count whose events were dropped, by room.
        self._noted: LruCache[str, LruCache[str, float]] = LruCache(_MAX_ROOMS)

    async def note(self, room: MatrixRoom, servers: Collection[str]) -> None:
        """An event of these servers came to a room and could not be verified."""
        if not servers or not self._ctx.has_policies:
            return
        noted = self._noted.get(room.room_id)
        if noted is None:
            noted = LruCache(_MAX_SERVERS)
            self._noted.put(room.room_id, noted)
        for server in servers:
            noted.put(server, self._ctx.clock.monotonic() + _NOTED_TTL_S)
        await self.settle(room)

    async def settle(self, room: MatrixRoom) -> None:
        """Tell of a room's servers as they are now."""
        before, noted = self._told.get(room.room_id, frozenset()), self._recent_servers(room.room_id)
        if not before and not noted and not room.holes.by_id:
            return
        signers = {server for hole in room.holes.listed() for server, _ in hole.keys}
        servers = frozenset([s for s in (signers | noted) - {self._server} if await room.allows(s)])
        if servers == before:
            return
        self._ctx.set_suspected_servers(room.room_id, servers)
        if servers:
            self._told[room.room_id] = servers
        else:
            self._told.pop(room.room_id, None)

    def _recent_servers(self, room_id: str) -> set[str]:
        noted, now = self._noted.get(room_id), self._ctx.clock.monotonic()
        if noted is None:
            return set()
        for server in [server for server, until in noted.items() if until <= now]:
            noted.pop(server)
        if not len(noted):
            self._noted.pop(room_id)
        return {server for server, _ in noted.items()}
