"""The summary of a room for a user who is not in it. SPEC: client-server API, "Spaces", "Room summary"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hansa_matrix.client_api.rooms.remote_rooms import RemoteRooms
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import JOIN_RULES_KEY
from hansa_matrix.proto.state_content import allowed_rooms, join_rule
from hansa_matrix.rooms.access.user_visibility import UserVisibility
from hansa_matrix.rooms.directory.room_summaries import RoomSummaries
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room import MatrixRoom

#: Join rules under which every user may know of a room.
_OPEN = frozenset({"public", "knock", "knock_restricted"})
_INSIDE = frozenset({"join", "invite", "knock"})
#: Rooms of an ``allow`` that are looked at, and servers that are asked of one room.
_MAX_ALLOWED_ROOMS, _MAX_SERVERS = 50, 3
#: The fields that a summary of another server may have, and their types.
_FIELDS: Mapping[str, type] = {
    "room_id": str,
    "name": str,
    "topic": str,
    "avatar_url": str,
    "canonical_alias": str,
    "room_type": str,
    "join_rule": str,
    "encryption": str,
    "im.nheko.summary.encryption": str,
    "room_version": str,
    "im.nheko.summary.room_version": str,
    "num_joined_members": int,
    "world_readable": bool,
    "guest_can_join": bool,
    "allowed_room_ids": list,
}


class AccessibleSummaries:
    """Of rooms here by their state, of others by what a server says, for one person at a time."""

    def __init__(
        self, own: LocalServer, remote: RemoteRooms, summaries: RoomSummaries, visibility: UserVisibility
    ) -> None:
        self._own = own
        self._remote = remote
        self._spaces = summaries
        self._visibility = visibility

    async def get_summary(
        self, user: str, room_id: str, via: Iterable[str], *, suggested: bool
    ) -> dict[str, Any] | None:
        """Returns the summary of a room with its children; None if there is no such room, or the user may not
        know of it. Servers of ``via`` are asked where this server is not in the room. They answer for the
        whole server: this server decides which of its users may know.
        """
        room = self._own.rooms.get(room_id)
        if room is not None and room.resident:
            if not await self._may_know(user, room):
                return None
            return await self._spaces.hierarchy_entry(room, suggested=suggested)
        for server in [s for s in via if ids.is_valid_server_name(s) and s != self._own.server][
            :_MAX_SERVERS
        ]:
            shown = await self._fetch_summary(server, room_id, suggested=suggested)
            if shown is not None:
                return shown if self._is_for(user, room_id, shown) else None
        return None

    async def _fetch_summary(self, server: str, room_id: str, *, suggested: bool) -> dict[str, Any] | None:
        """Asks another server for the summary of a room; None if it has none."""
        shown = await self._remote.fetch_room(server, room_id, suggested=suggested)
        if not isinstance(shown, dict) or shown.get("room_id") != room_id:
            return None
        if not isinstance(shown.get("join_rule", ""), str):
            return None
        kept = {name: shown[name] for name, kind in _FIELDS.items() if type(shown.get(name)) is kind}
        children = shown.get("children_state")
        if not await self._remote.can_read(server, kept):
            return None
        listed = await self._remote.filter_rooms(server, children if isinstance(children, list) else [])
        return {**kept, "children_state": listed}

    def _is_for(self, user: str, room_id: str, shown: Mapping[str, Any]) -> bool:
        """True if a user may see another server's summary of a room."""
        rule = shown.get("join_rule", "public")  # as the specification has it where it is not said
        if rule in _OPEN or shown.get("world_readable") is True:
            return True
        stay = self._own.memberships.membership_of(user, room_id)
        if stay is not None and stay.membership in _INSIDE:
            return True
        return rule == "restricted" and self._in_one(user, shown.get("allowed_room_ids", ()))

    async def _may_know(self, user: str, room: MatrixRoom) -> bool:
        """True if a user is in a room, is invited, could join, or may read it."""
        stay = self._own.memberships.membership_of(user, room.room_id)
        if stay is not None and stay.membership in _INSIDE:
            return True
        rules = (await room.events_of(await room.state(), [JOIN_RULES_KEY])).get(JOIN_RULES_KEY)
        said = rules.content if rules is not None else None
        rule = join_rule(said)
        if rule in _OPEN or await self._visibility.is_world_readable(room):
            return True
        return rule == "restricted" and self._in_one(user, allowed_rooms(said))

    def _in_one(self, user: str, room_ids: Iterable[Any]) -> bool:
        named = [one for one in list(room_ids)[:_MAX_ALLOWED_ROOMS] if isinstance(one, str)]
        stays = [self._own.memberships.membership_of(user, one) for one in named]
        return any(one is not None and one.membership == "join" for one in stays)
