"""The list of published rooms, and the search for an event by time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import AdminCommand, Delete, LocalProtocolError, NetworkContext, Put, ScopedStore, scan_all

from hansa_matrix.proto.event import Pdu
from hansa_matrix.rooms.event_store import StoredEvent, is_shown
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.room_registry import RoomRegistry

#: Rooms in the public list.
MAX_PUBLISHED = 5000
#: Events around the place that a search by depth finds, among which the nearest in time is.
_AROUND = 50


async def is_list_full(store: ScopedStore) -> bool:
    """True if no further room can be published."""
    return await store.count("published") >= MAX_PUBLISHED


def publish_write(room_id: str, by: str) -> Put:
    """The write that publishes a room. ``by`` is who does, empty for an operator."""
    return Put("published", (room_id,), by.encode())


async def publish_room(store: ScopedStore, room_id: str, by: str = "") -> None:
    """List a room. ``by`` is who wants it, empty for an operator. Raises LocalProtocolError if too many are
    listed.
    """
    if await is_list_full(store):
        raise LocalProtocolError(f"{MAX_PUBLISHED} rooms are published already")
    await store.commit([publish_write(room_id, by)])


async def is_published(store: ScopedStore, room_id: str) -> bool:
    """True if a room is in the public list."""
    return await store.get("published", (room_id,)) is not None


class PublicRoomList:
    """The public list: a room is in it because a row of this server says so, which its state cannot
    change.
    """

    def __init__(self, ctx: NetworkContext, rooms: RoomRegistry) -> None:
        self._ctx = ctx
        self._rooms = rooms

    def admin_commands(self) -> Mapping[str, AdminCommand]:
        """See ``hansa.HasAdminCommands.admin_commands``."""
        return {"rooms publish": self._publish_command, "rooms unpublish": self._unpublish_command}

    async def set_published(self, room_id: str, *, listed: bool, by: str = "") -> None:
        """List a room, or list it no more. ``by`` is who wants it, empty for an operator. Raises
        LocalProtocolError if too many are listed.
        """
        if listed:
            await publish_room(self._ctx.store, room_id, by)
        else:
            await self._ctx.store.commit([Delete("published", (room_id,))])

    async def _publish_command(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        room = self._rooms.require_resident(str(arguments["room"]))
        await self.set_published(room.room_id, listed=True)
        return {"published": room.room_id}

    async def _unpublish_command(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        room_id = str(arguments["room"])
        await self.set_published(room_id, listed=False)
        return {"unpublished": room_id}

    async def list_rooms(self) -> list[str]:
        """Their ids."""
        return [str(row.key[0]) async for row in scan_all(self._ctx.store, "published")]

    async def event_nearest_timestamp(self, room: MatrixRoom, ts: int, *, forwards: bool) -> Pdu | None:
        """The event of a room that is nearest to a time (ms) on one side of it. Times rise with the depth
        that we count but for clocks that are wrong, so the place is searched by depth and its neighbours are
        compared.
        """
        low, high = 0, room.head.last + 1
        while low < high:
            middle = (low + high) // 2
            at = await self._shown_events(room, middle - 1, 1)
            if at and at[0].pdu.origin_server_ts < ts:
                low = middle + 1
            else:
                high = middle
        found = await self._shown_events(room, max(0, low - _AROUND), 2 * _AROUND)
        if forwards:
            later = [one for one in found if one.pdu.origin_server_ts >= ts]
            return _pdu_of(min(later, key=_time_key, default=None))
        earlier = [one for one in found if one.pdu.origin_server_ts <= ts]
        return _pdu_of(max(earlier, key=_time_key, default=None))

    async def _shown_events(self, room: MatrixRoom, after: int, limit: int) -> list[StoredEvent]:
        rows = await self._ctx.store.scan(
            "pdu", index=("room_id", "depth"), equal=(room.room_id,), after=after, limit=limit
        )
        shown = {str(row.key[0]) for row in rows if is_shown(row)}
        return list((await room.events.load(sorted(shown), room.version)).values())


def _time_key(stored: StoredEvent) -> tuple[int, int]:
    return stored.pdu.origin_server_ts, stored.depth


def _pdu_of(stored: StoredEvent | None) -> Pdu | None:
    return stored.pdu if stored is not None else None
