"""The events of a room that the users of a server may read. SPEC: client-server API, "Room History
Visibility".

A server in the room gets every event that any of its users could read. It gets the others as a redaction
would leave them, since it needs every event to continue.
"""

from __future__ import annotations

from hansa import LruCache

from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import HISTORY_VISIBILITY_KEY, MEMBER
from hansa_matrix.proto.history_visibility import memberships_that_read, visibility_of
from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.room import MatrixRoom

_MAX_CACHED = 2000
_MAX_BATCH = 100


class ServerVisibility:
    """Answers are remembered by the state that an event stood in."""

    def __init__(self) -> None:
        self._known: LruCache[tuple[str, int, str], bool] = LruCache(_MAX_CACHED)

    async def can_see(self, room: MatrixRoom, stored: StoredEvent, server: str) -> bool:
        """True if a user of ``server``, which is in the room, could read an event. A change of the
        visibility, or of a membership, can be read if either side of the change allows it.
        """
        if ids.domain_of(stored.pdu.sender) == server:
            return True
        if await self._can_see_in_group(room, stored.after, server):
            return True
        return stored.before != stored.after and await self._can_see_in_group(room, stored.before, server)

    async def was_in_room(self, room: MatrixRoom, stored: StoredEvent, server: str) -> bool:
        """True if a user of ``server`` was in the room when an event happened."""
        if await _any_of(room, stored.after, server, frozenset({"join"})):
            return True
        return stored.before != stored.after and await _any_of(
            room, stored.before, server, frozenset({"join"})
        )

    async def _can_see_in_group(self, room: MatrixRoom, group: int, server: str) -> bool:
        key = (room.room_id, group, server)
        known = self._known.get(key)
        if known is None:
            known = await self._group_allows(room, group, server)
            self._known.put(key, known)
        return known

    async def _group_allows(self, room: MatrixRoom, group: int, server: str) -> bool:
        state = await room.groups.load(group)
        found = await room.events_of(state, [HISTORY_VISIBILITY_KEY])
        enough = memberships_that_read(visibility_of(found.get(HISTORY_VISIBILITY_KEY)))
        return enough is None or await _any_of(room, group, server, enough)


async def _any_of(room: MatrixRoom, group: int, server: str, memberships: frozenset[str]) -> bool:
    """True if any user of a server has one of some memberships in a state."""
    state = await room.groups.load(group)
    theirs = [key for key in state if key[0] == MEMBER and ids.domain_of(key[1]) == server]
    for at in range(0, len(theirs), _MAX_BATCH):
        members = await room.events_of(state, theirs[at : at + _MAX_BATCH])
        if any(p.membership in memberships for k, p in members.items() if k[0] == MEMBER):
            return True
    return False
