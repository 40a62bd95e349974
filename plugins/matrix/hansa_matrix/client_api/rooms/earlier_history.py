"""What was said in a room before this server joined it, for people of other networks.

Other servers have it, and are asked when a person reads it (``rooms/inbound/backfill.py``). SPEC:
server-server API, "Backfilling and retrieving missing events".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hansa import (
    Content,
    EarlierEvent,
    EarlierPage,
    Edit,
    Encrypted,
    Link,
    Location,
    Message,
    NativeId,
    PollStart,
)

from hansa_matrix.client_api.rooms.pagination import FetchBudget, PaginationToken, RoomPaginator
from hansa_matrix.proto.auth_rules.state_keys import CREATE_KEY, HISTORY_VISIBILITY_KEY
from hansa_matrix.proto.history_visibility import visibility_of
from hansa_matrix.rooms.content_in_room import content_of_pdu
from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room import MAX_COUNT, MatrixRoom

_DEPTH = re.compile(r"d([0-9]{1,19})", re.ASCII)
#: What is told apart from its room: all else concerns events that readers may not have.
_TOLD = Message | Edit | Location | PollStart | Encrypted


class EarlierRoomHistory:
    """Implements ``hansa.FetchesHistory`` for rooms that this server has joined elsewhere."""

    def __init__(self, own: LocalServer, timeline: RoomPaginator) -> None:
        self._own = own
        self._timeline = timeline

    async def fetch_before(
        self, link: Link, before: str, *, limit: int, ask_others: bool
    ) -> EarlierPage | None:
        """See ``FetchesHistory.fetch_before``. A place is an event id, or ``d5`` for all before depth 5."""
        room = self._own.rooms.get(link.native.id)
        if room is None or not room.head.join_depth:
            return None if before else EarlierPage()
        depth, event_id = await self._depth_of(room, before)
        if depth is None:
            return None
        place = PaginationToken(depth=depth)
        budget = FetchBudget(int(ask_others))
        found, end = await self._timeline.page_back(room, place, limit + bool(event_id), budget)
        if event_id:  # those of its depth come together with it
            at = next((n for n, one in enumerate(found) if one.pdu.event_id == event_id), None)
            if at is None:
                return None
            found = found[at + 1 :]
        if len(found) > limit:
            found = found[:limit]
            following: str | None = found[-1].pdu.event_id
        else:
            following = None if end is None else str(end)
            if not found and end == place:
                following = before or following  # no server gives it now
        return EarlierPage(events=await self._events_of(room, found[::-1]), before=following)

    async def _depth_of(self, room: MatrixRoom, before: str) -> tuple[int | None, str]:
        """The depth before which to read, and the event to begin after; None for a place that is not
        known.
        """
        if not before:
            return room.head.join_depth, ""
        match = _DEPTH.fullmatch(before)
        if match is not None:
            return min(int(match[1]), room.head.join_depth, MAX_COUNT), ""
        stored = (await room.events.load([before], room.version)).get(before)
        if stored is None or stored.live or not 0 < stored.depth < room.head.join_depth:
            return None, ""
        return stored.depth + 1, before

    async def _events_of(self, room: MatrixRoom, found: Sequence[StoredEvent]) -> list[EarlierEvent]:
        events, visibilities = list[EarlierEvent](), dict[int, str]()
        for one in await room.judged(found):
            pdu = one.pdu
            if not one.shown or one.redacted or pdu.state_key is not None:
                continue
            content = await content_of_pdu(self._own, pdu)
            if not isinstance(content, _TOLD):
                continue
            if one.before not in visibilities:
                visibilities[one.before] = await self._visibility_at(room, one.before)
            events.append(
                EarlierEvent(
                    native=pdu.event_id,
                    sender=await self._own.views.ids.home_of(pdu.sender),
                    content=content,
                    ts=pdu.origin_server_ts,
                    visibility=visibilities[one.before],
                    target_sender=await self._target_sender(room, content),
                )
            )
        return events

    @staticmethod
    async def _visibility_at(room: MatrixRoom, group: int) -> str:
        """The history visibility of a state; empty, which lets nobody read, where the state is not known."""
        state = await room.groups.load(group)
        if CREATE_KEY not in state:
            return ""
        event = (await room.events_of(state, [HISTORY_VISIBILITY_KEY])).get(HISTORY_VISIBILITY_KEY)
        if event is None and HISTORY_VISIBILITY_KEY in state:
            return ""
        return visibility_of(event)

    async def _target_sender(self, room: MatrixRoom, content: Content) -> NativeId | None:
        """The sender of the message that an edit changes, None where it is not here or was redacted."""
        if not isinstance(content, Edit):
            return None
        stored = (await room.events.load([content.target], room.version)).get(content.target)
        if stored is None:
            return None
        (judged,) = await room.judged([stored])
        if judged.pdu.room_id != room.room_id or not judged.shown or judged.redacted:
            return None
        return await self._own.views.ids.home_of(judged.pdu.sender)
