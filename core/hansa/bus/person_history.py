"""A room's history as one person may read it."""

from __future__ import annotations

from hansa.bus import schema
from hansa.bus.membership_log import MembershipLog
from hansa.bus.rejudging import PolicyRecheck
from hansa.bus.rooms import Room
from hansa.model.events import Event, Link
from hansa.model.history_visibility import can_read_event
from hansa.model.ref import NativeId
from hansa.store.base import ScopedStore

#: Events of one answer, and those that are looked at for it.
MAX_EVENTS, MAX_EXAMINED = 1000, 5000
_PAGE_SIZE = 100


class PersonHistory:
    """Reads the log for persons: what passes the link, at times at which the person may read."""

    def __init__(self, store: ScopedStore, rejudging: PolicyRecheck) -> None:
        self._store = store
        self._rejudging = rejudging
        self.log = MembershipLog(store)

    async def read(
        self,
        room: Room,
        link: Link,
        user: NativeId,
        *,
        limit: int,
        since: int = 0,
        until: int | None = None,
        after_seq: int | None = None,
        upto_seq: int | None = None,
    ) -> list[Event]:
        """See ``hansa.NetworkContext.read_history_for``."""
        visibilities = await self.log.visibilities(room.view)
        memberships = await self.log.memberships(room.view, user)
        forward, limit = after_seq is not None, min(limit, MAX_EVENTS)
        upto = room.head if upto_seq is None else min(upto_seq, room.head)
        position = after_seq if after_seq is not None else upto + 1
        events: list[Event] = []
        for _ in range(MAX_EXAMINED // _PAGE_SIZE):
            page = [
                schema.event_of(row)
                for row in await self._store.scan(
                    "event",
                    equal=(room.id,),
                    after=position,
                    upto=upto if forward else None,
                    limit=_PAGE_SIZE,
                    reverse=not forward,
                )
            ]
            for event in page:
                if len(events) == limit or (event.received < since and not forward):
                    return events if forward else events[::-1]
                if until is not None and event.received >= until and forward:
                    return events
                timely = event.received >= since and (until is None or event.received < until)
                if (
                    timely
                    and can_read_event(visibilities, memberships, event.seq)
                    and await self._rejudging.passes(room, link, event)
                ):
                    events.append(event)
            if len(page) < _PAGE_SIZE:
                break
            position = page[-1].seq
        return events if forward else events[::-1]
