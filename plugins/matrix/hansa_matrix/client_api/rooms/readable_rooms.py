"""The rooms and events that one user may read. SPEC: client-server API, "Room history visibility"."""

from __future__ import annotations

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.errors import matrix_error
from hansa_matrix.rooms.access.user_visibility import UserVisibility
from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room import MatrixRoom


class ReadableRooms:
    """Finds a room or event for one user, or raises the error answer."""

    def __init__(self, own: LocalServer, visibility: UserVisibility) -> None:
        self._attendance = own.memberships
        self._rooms = own.rooms
        self._visibility = visibility

    async def require_room(self, caller: Requester, room_id: str) -> MatrixRoom:
        """Returns a room that a user was in, or may look into. Raises the error answer for any other."""
        room, stay = self._rooms.get(room_id), self._attendance.membership_of(caller.user, room_id)
        if room is not None:
            if stay is not None and stay.membership in {"join", "leave", "ban"}:
                return room
            if await self._visibility.is_world_readable(room):
                return room
        raise matrix_error(403, "M_FORBIDDEN", f"{caller.user} is not in that room")

    async def require_event(
        self, caller: Requester, room_id: str, event_id: str
    ) -> tuple[MatrixRoom, StoredEvent]:
        """Returns an event that a user may see. Raises the error answer for any other."""
        room = self._rooms.get(room_id)
        found = (await room.events.load([event_id], room.version)).get(event_id) if room is not None else None
        if room is not None and found is not None and found.after and found.pdu.room_id == room_id:
            seen = await self._visibility.filter_visible(caller.user, room, [found])
            if seen:
                return room, found
        raise matrix_error(404, "M_NOT_FOUND", "the event does not exist, or you may not see it")
