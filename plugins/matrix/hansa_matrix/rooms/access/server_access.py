"""The access of other servers to rooms: the checks that every answer about a room begins with."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import orjson
from hansa import Busy, NetworkContext

from hansa_matrix.errors import matrix_error
from hansa_matrix.proto import ids
from hansa_matrix.rooms.access.visible_events import for_servers, without_names
from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room import MatrixRoom


class ServerAccess:
    """The rooms and events that a server may ask about; anything else is an error answer."""

    def __init__(self, own: LocalServer) -> None:
        self.own = own
        self.rooms = own.rooms
        self._ctx: NetworkContext = own.ctx

    def require_room(self, room_id: str, origin: str, *, member: bool = True) -> MatrixRoom:
        """A room that we are in and, if ``member``, ``origin`` too. ``Busy`` while it is entered."""
        room = self.rooms.get(room_id)
        if self.rooms.is_blocked(room_id):
            raise matrix_error(403, "M_FORBIDDEN", "this server is not in that room")
        if room is None or not room.resident:
            raise matrix_error(404, "M_NOT_FOUND", "this server is not in that room")
        if self._ctx.get_link(room_id) is None:  # so that it is not known yet who is in
            raise Busy("the room is being entered", after=5.0)
        if member and not self.is_joined(room, origin):
            raise matrix_error(403, "M_FORBIDDEN", f"{origin} is not in that room")
        return room

    async def require_acl_allowed(self, room_id: str, origin: str, *, member: bool = True) -> MatrixRoom:
        """As ``require_room``, and the room's server ACL lets ``origin`` take part."""
        room = self.require_room(room_id, origin, member=member)
        if not await room.allows(origin):
            self._ctx.count("matrix_acl_refused", what="request")
            raise matrix_error(403, "M_FORBIDDEN", f"{origin} is barred from that room by its server ACL")
        return room

    def is_joined(self, room: MatrixRoom, server: str) -> bool:
        """True if a user of a server is joined."""
        view = self._ctx.get_view(room.room_id)
        return view is not None and (self._ctx.id, server) in view.joined_servers

    @staticmethod
    def own_user(user: str, origin: str) -> str:
        """A user of the server that asks."""
        if not ids.is_valid_user_id(user) or ids.domain_of(user) != origin:
            raise matrix_error(403, "M_FORBIDDEN", f"{user[:255]} is not of {origin}")
        return user

    async def require_visible_event(
        self, origin: str, event_id: str, room_id: str = ""
    ) -> tuple[MatrixRoom, StoredEvent]:
        """An event that ``origin`` may have, with its room."""
        rows = await self._ctx.store.get_many("pdu", [(event_id,)])
        row = rows.get((event_id,))
        if row is None or (room_id and row.fields["room_id"] != room_id):
            raise matrix_error(404, "M_NOT_FOUND", "no such event here")
        room = self.require_room(str(row.fields["room_id"]), origin)
        return room, (await room.readable([event_id]))[event_id]

    def as_transaction(self, room: MatrixRoom, stored: Iterable[StoredEvent]) -> dict[str, Any]:
        """Events in the shape of a transaction."""
        now = self._ctx.clock.now()
        return {"origin": self.own.server, "origin_server_ts": now, "pdus": pdus_json(room, stored)}


def pdu_json(room: MatrixRoom, stored: StoredEvent) -> Any:
    """Returns an event as the bytes that it hashes to, never encoded again; one that a local policy withholds
    as a redaction would leave it.
    """
    return orjson.Fragment(for_servers(stored, room.version).pdu.wire)


def pdus_json(room: MatrixRoom, stored: Iterable[StoredEvent], erased: Collection[str] = ()) -> list[Any]:
    """Events of a room as the bytes they hash to; those of a state without the names of the ``erased``."""
    if erased:
        stored = [without_names(one, room.version, erased) for one in stored]
    return [pdu_json(room, one) for one in stored]
