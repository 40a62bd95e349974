"""Gaps in the client stream: events from a time when no local user was in the room, or in a gap that was too
wide to fill. No client got them as they happened; they are fetched when a user reads back to them.

A gap ends before the return of the local users, or before the first event behind it. It begins behind the
last streamed event, by depth. The history visibility decides who may read it, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hansa import LruCache

from hansa_matrix.local.client_stream import ClientStream, StreamItem
from hansa_matrix.rooms.room import MatrixRoom

#: Absences that are remembered, of all rooms.
_MAX_CACHED = 1000


@dataclass(frozen=True, slots=True)
class StreamGap:
    """``since`` is the place in the stream of what was told last before, ``upto`` that of our return, or of
    the first event behind a gap. Events between have at least the depth ``floor``, by this server's count,
    and a smaller one than that event, ``top``.
    """

    since: int
    upto: int
    floor: int
    top: int

    def is_incomplete(self, room: MatrixRoom) -> bool:
        """True if a part of the gap is not stored here."""
        below = room.head.below
        return any(self.floor < below.get(event_id, 0) <= self.top for event_id in room.head.behind)


class StreamGaps:
    """Found by our returns and by gaps, of which a room has a hundred at most."""

    def __init__(self, news: ClientStream) -> None:
        self._news = news
        self._known: LruCache[tuple[str, str], StreamGap] = LruCache(_MAX_CACHED)

    async def gaps_of(self, room: MatrixRoom) -> list[StreamGap]:
        """Every absence from a room, oldest first. Without any told event before it, a return is where the
        room's timeline begins.
        """
        if not room.timeline_breaks:
            return []
        found: list[StreamGap] = []
        first: Sequence[StreamItem] = ()
        for event_id in room.timeline_breaks:
            known = self._known.get((room.room_id, event_id))
            if known is not None:
                found.append(known)
                continue
            first = first or await self._news.first_items(room.room_id, 0, 1)
            upto = await self._news.position_of(room.room_id, event_id)
            before = await self._news.last_items(room.room_id, upto, 1) if upto else []
            if not before:
                continue
            named = (event_id, before[0].ref, first[0].ref)
            loaded = await room.events.load(named, room.version)
            back, last, begin = (loaded.get(name) for name in named)
            if back is None or last is None or begin is None:
                continue
            floor = max(last.depth, begin.depth) + 1
            one = StreamGap(since=before[0].position, upto=upto, floor=floor, top=back.depth)
            self._known.put((room.room_id, event_id), one)
            found.append(one)
        return sorted(found, key=lambda one: one.upto)


def items_since_return(room: MatrixRoom, items: Sequence[StreamItem]) -> Sequence[StreamItem]:
    """Returns the items from the last return or gap on, if it is among them: the items before it do not lead
    to those after it.
    """
    breaks = frozenset(room.timeline_breaks)
    if not breaks:
        return items
    back = next((at for at in range(len(items) - 1, 0, -1) if items[at].ref in breaks), 0)
    return items[back:]
