"""The rooms of this server that are in memory, and the rooms that an operator blocked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from hansa import Delete, LocalProtocolError, NetworkContext, Put, scan_all

from hansa_matrix.local.memberships import LocalMemberships
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.room_listeners import RoomListeners


class RoomRegistry(Mapping[str, MatrixRoom]):
    """Rooms by their ids. Rooms that this server left stay until they are purged."""

    def __init__(self, ctx: NetworkContext, memberships: LocalMemberships) -> None:
        self._ctx = ctx
        self._memberships = memberships
        self._rooms: dict[str, MatrixRoom] = {}
        self._blocked: set[str] = set()
        #: Rooms that are being read again.
        self._rereading: set[str] = set()
        self.listeners = RoomListeners()

    async def load_blocked(self) -> None:
        """Read which rooms are blocked. Runs once, at the start."""
        async for row in scan_all(self._ctx.store, "blocked"):
            self._blocked.add(str(row.key[0]))

    def __getitem__(self, room_id: str) -> MatrixRoom:
        return self._rooms[room_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rooms)

    def __len__(self) -> int:
        return len(self._rooms)

    def __contains__(self, room_id: object) -> bool:
        return room_id in self._rooms

    def get(self, room_id: str, default: None = None, /) -> MatrixRoom | None:  # type: ignore[override]
        """A room that this server is or was in; None if it is not known."""
        return self._rooms.get(room_id, default)

    def get_resident(self, room_id: str) -> MatrixRoom | None:
        """A room that this server is in; None if it is not."""
        room = self._rooms.get(room_id)
        return room if room is not None and room.resident else None

    def require_resident(self, room_id: str) -> MatrixRoom:
        """A room that this server is in. Raises LocalProtocolError."""
        room = self.get_resident(room_id)
        if room is None:
            raise LocalProtocolError(f"this server is not in {room_id}: `hansa matrix rooms ls` lists rooms")
        return room

    def add(self, room: MatrixRoom) -> None:
        """Put a room into the registry, in the place of one of the same id."""
        self._rooms[room.room_id] = room

    def restore_room(self, room: MatrixRoom) -> None:
        """Put back a room that was removed, unless its id is taken again."""
        self._rooms.setdefault(room.room_id, room)

    def remove(self, room_id: str) -> None:
        """Take a room out of the registry, if it is there."""
        self._rooms.pop(room_id, None)

    def is_blocked(self, room_id: str) -> bool:
        """True if an operator has blocked a room."""
        return room_id in self._blocked

    async def block(self, room_id: str) -> None:
        """Take nothing more of a room, from now on and after a restart."""
        await self._ctx.store.commit([Put("blocked", (room_id,))])
        self._blocked.add(room_id)

    async def unblock(self, room_id: str) -> None:
        """Take part in a room again."""
        await self._ctx.store.commit([Delete("blocked", (room_id,))])
        self._blocked.discard(room_id)

    async def refresh_room(self, room: MatrixRoom) -> None:
        """Read a room again if memory may be older than the store. See ``MatrixRoom.fresh``."""
        await room.fresh(partial(self._memberships.reload_room, room.room_id))

    def refresh_soon(self, room: MatrixRoom) -> None:
        """Read a room again as soon as the store answers, before its next turn or in it."""
        if room.room_id not in self._rereading and self._rooms.get(room.room_id) is room:
            self._rereading.add(room.room_id)
            self._ctx.spawn(partial(self._refresh_room, room), f"read {room.room_id} again")

    async def _refresh_room(self, room: MatrixRoom) -> None:
        try:
            await self.refresh_room(room)
        except LocalProtocolError as problem:  # it was never kept, or is removed
            self._ctx.log.warning("not read again: %s", problem)
        self._rereading.discard(room.room_id)
