"""The state of an event that came after others were put behind it: what follows it counts it in.

A hole leaves the state as it was before it. Once its event is here, the groups of everything that descends
from it get what is another state now, unless that was changed since. Events of one group share the new one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace

from hansa import ScopedStore, Write, pages

from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.state_res.conflicts import state_delta
from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.room import MAX_COUNT, MatrixRoom, RoomHead
from hansa_matrix.rooms.state.holes import Hole
from hansa_matrix.rooms.state.state_groups import StateIds

#: Rows that are read at a time; events behind a hole that are gone through, and bytes of them.
_PAGE_SIZE, _MAX_EVENTS, _MAX_BYTES = 200, 5000, 32 * 1024 * 1024


class StatePropagation:
    """One event's effect on what descends from it. ``drafted`` are events of the turn, ``holes`` those of it
    and of the room; ``since`` is the depth by our count of the first that descends from it.
    """

    def __init__(
        self,
        room: MatrixRoom,
        store: ScopedStore,
        drafted: Mapping[str, StoredEvent],
        holes: Iterable[Hole],
        since: int = 0,
    ) -> None:
        self._room = room
        self._store = store
        self._changes: dict[StateKey, tuple[str | None, str]] = {}
        self._drafted = drafted
        self._since = since
        #: False where more descends from it than is gone through: then nothing changes.
        self.complete = True
        self._holes = {hole.event_id: hole for hole in holes}
        self._groups: dict[int, int] = {}
        self.writes: list[Write] = []
        #: The events and holes that changed.
        self.events: dict[str, StoredEvent] = {}
        self.holes: dict[str, Hole] = {}

    async def go(self, pdu: Pdu, was: StateIds, now: StateIds, head: RoomHead) -> RoomHead:
        """The head with the groups as they are afterwards. What follows the event was put behind a state
        that ``was``, and there is another ``now``.
        """
        self._changes = {k: (was.get(k), now[k]) for k in state_delta(was, now) if k in now}
        if not self._changes:
            return head
        prev: dict[str, tuple[str, ...]] = {hole.event_id: hole.prev for hole in self._holes.values()}
        found: dict[str, StoredEvent] = {}
        async for page in self._pages_newest_first():
            found |= page
            prev |= {e: one.pdu.prev_events for e, one in page.items()}
        if not self.complete:
            return head
        descend = _descendants(pdu.event_id, prev)
        for event_id in sorted(descend):
            one, hole = found.get(event_id), self._holes.get(event_id)
            if one is not None and one.after:
                group, after = await self._changed_group(one.before), await self._changed_group(one.after)
                if (group, after) != (one.before, one.after):
                    self.events[event_id] = changed = replace(one, before=group, after=after)
                    self.writes.append(changed.put())
            elif hole is not None and hole.group:
                self.holes[event_id] = replace(hole, group=await self._changed_group(hole.group))
                self.writes.append(self.holes[event_id].row())
        ends = {e: await self._changed_group(g) if e in descend else g for e, g in head.extremities.items()}
        return replace(head, extremities=ends)

    async def _changed_group(self, group: int) -> int:
        """The group that holds what changed beside what ``group`` holds."""
        if group not in self._groups:
            state = await self._room.groups.load(group)
            more = {k: new for k, (former, new) in self._changes.items() if state.get(k) == former}
            self._groups[group] = group
            if more:
                self._groups[group] = self._room.groups.grow(group, state, {**state, **more})
        return self._groups[group]

    async def _pages_newest_first(self) -> AsyncIterator[dict[str, StoredEvent]]:
        """Yields the events with a place in the room, the newest first, within the limits of the search."""
        yield dict(self._drafted)
        read, size, before = 0, 0, MAX_COUNT
        found = pages(
            self._store,
            "pdu",
            index=("room_id", "depth"),
            equal=(self._room.room_id,),
            upto=1,
            reverse=True,
            size=_PAGE_SIZE,
        )
        async for rows in found:
            if before < self._since:
                return
            size += sum(len(row.body) for row in rows)
            if read >= _MAX_EVENTS or size > _MAX_BYTES:
                self.complete = False
                return
            read += len(rows)
            ids = [str(row.key[0]) for row in rows]
            loaded = await self._room.events.load(ids, self._room.version)
            yield {e: one for e, one in loaded.items() if e not in self._drafted}
            before = int(rows[-1].fields["depth"] or 0)


def _descendants(event_id: str, prev: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Returns the descendants of an event."""
    following: dict[str, list[str]] = {}
    for one, cited in prev.items():
        for before in cited:
            following.setdefault(before, []).append(one)
    found, edge = set[str](), [event_id]
    while edge:
        new = [e for e in following.get(edge.pop(), ()) if e not in found]
        found.update(new)
        edge += new
    return found - {event_id}
