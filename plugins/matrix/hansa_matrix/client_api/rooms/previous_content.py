"""The previous content of state events. SPEC: client-server API, "Room event format" (``prev_content``).

A user who may read a state event may read the state before it too: ``/context`` shows it. A user who joined
later reads the current value of a state, and not its previous one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.rooms.access.user_visibility import UserVisibility
from hansa_matrix.rooms.access.visible_events import of_erased
from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.room import MatrixRoom

#: Events whose predecessors are read together, and the bytes of all that one answer has: behind that it names
#: them and no longer says what they said.
_PAGE_SIZE, MAX_BYTES = 50, 4 * 1024 * 1024


class PreviousContent:
    """``erased`` are people whose words are given to nobody who was not there."""

    def __init__(self, erased: Collection[str], visibility: UserVisibility) -> None:
        self._erased = erased
        self._visibility = visibility

    def unsigned_fields(self, room: MatrixRoom, before: Pdu, *, there: bool) -> dict[str, Any]:
        """Members of ``unsigned`` by the event that stood there before. ``there``: the reader was in the
        room.
        """
        if not there:
            before = of_erased(before, room.version, self._erased)
        return {
            "prev_content": before.content,
            "prev_sender": before.sender,
            "replaces_state": before.event_id,
        }

    async def unsigned_of_state(
        self, user: str, room: MatrixRoom, events: Sequence[StoredEvent]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Members of ``unsigned`` of the events of one state, by their ids."""
        wanted = {one.pdu.key: one.before for one in events if one.before}
        earlier = await room.groups.values(wanted) if wanted else {}
        ids = {one.pdu.key: one.pdu.event_id for one in events}
        replacing = [one for one in events if earlier.get(one.pdu.key) not in {None, one.pdu.event_id}]
        readable = await self._visibility.of_state(user, room, replacing) if replacing else set()
        keys = [one.pdu.key for one in replacing if one.pdu.event_id in readable]
        found: dict[str, Mapping[str, Any]] = {}
        size = 0
        for at in range(0, len(keys), _PAGE_SIZE):
            part: dict[StateKey, str] = {key: earlier[key] for key in keys[at : at + _PAGE_SIZE]}
            if size > MAX_BYTES:
                found |= {ids[key]: {"replaces_state": event_id} for key, event_id in part.items()}
                continue
            for key, before in (await room.shown_of(part)).items():
                size += len(before.wire)
                found[ids[key]] = self.unsigned_fields(room, before, there=False)
        return found
