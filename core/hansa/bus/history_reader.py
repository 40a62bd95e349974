"""A room's history: what may pass a link, and of that what one person may read."""

from __future__ import annotations

from hansa.bus import schema
from hansa.bus.membership_reader import MembershipLog
from hansa.bus.rejudging import PolicyRecheck
from hansa.bus.rooms import Room
from hansa.model.events import Event, HistoryPage, Link
from hansa.model.history_visibility import readable_ranges
from hansa.model.ref import NativeId
from hansa.store.base import ScopedStore

#: Events of one page, and those that are looked at for it.
MAX_EVENTS, MAX_EXAMINED = 1000, 5000
_PAGE_SIZE, _MIN_PAGE_SIZE = 100, 10


class HistoryReader:
    """Reads the log in pages, in both directions. ``store`` is the core's."""

    def __init__(self, store: ScopedStore, rejudging: PolicyRecheck) -> None:
        self._store = store
        self._rejudging = rejudging
        self.log = MembershipLog(store)

    async def read(
        self,
        room: Room,
        link: Link,
        user: NativeId | None,
        *,
        limit: int,
        since: int = 0,
        until: int | None = None,
        after_seq: int | None = None,
        upto_seq: int | None = None,
    ) -> HistoryPage:
        """See ``hansa.NetworkContext.read_history_for``. Without ``user`` the network itself reads, to which
        no membership applies.
        """
        forward, limit = after_seq is not None, min(limit, MAX_EVENTS)
        first = 1 if after_seq is None else after_seq + 1
        last = room.head if upto_seq is None else min(upto_seq, room.head)
        if since > 0:
            first = max(first, await self._first_since(room, since))
        if until is not None:
            last = min(last, await self._first_since(room, until) - 1)
        ranges = [(first, last)] if first <= last else []
        if user is not None:
            visibilities = await self.log.visibilities(room.view)
            memberships = await self.log.memberships(room, user)
            ranges = readable_ranges(visibilities, memberships, first, last)
        events, examined = list[Event](), 0
        for start, end in ranges if forward else ranges[::-1]:
            position = start - 1 if forward else end + 1
            while position < end if forward else position > start:
                if len(events) >= limit or examined >= MAX_EXAMINED:
                    return _page_of(events, position if forward else position - 1, forward=forward)
                rows = await self._store.scan(
                    "event",
                    equal=(room.id,),
                    after=position,
                    upto=end if forward else start,
                    limit=min(_PAGE_SIZE, max(limit - len(events), _MIN_PAGE_SIZE)),
                    reverse=not forward,
                )
                if not rows:
                    break
                for row in rows:
                    if len(events) >= limit:
                        break
                    event = schema.event_of(row)
                    examined, position = examined + 1, event.seq
                    if await self._rejudging.passes(room, link, event):
                        events.append(event)
        return _page_of(events, None, forward=forward)

    async def _first_since(self, room: Room, ms: int) -> int:
        """The seq of the first event of a room that was received at this time or later, the one after the
        last if there is none. Times never fall within a room.
        """
        low, high = 1, room.head + 1
        while low < high:
            middle = (low + high) // 2
            rows = await self._store.scan("event", equal=(room.id,), after=middle - 1, upto=high - 1, limit=1)
            if rows and int(rows[0].fields["received"] or 0) < ms:
                low = int(rows[0].key[1]) + 1
            else:
                high = middle
        return low


def _page_of(events: list[Event], next_seq: int | None, *, forward: bool) -> HistoryPage:
    return HistoryPage(events=tuple(events if forward else events[::-1]), next_seq=next_seq)
