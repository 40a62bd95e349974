"""The core rooms in memory: views, links and where each log ends. Every change is made by a room's turn."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hansa import tables
from hansa.pure.errors import LocalProtocolError
from hansa.pure.model import Direction, Event, Link, Ref
from hansa.pure.view import RoomView, ViewChange
from hansa.seams import Random
from hansa.store.base import Delete, Row, Scoped, Write
from hansa.store.paging import pages, scan_all

#: Events kept in memory per room, so that a delivery that keeps up reads nothing from disk.
_TAIL = 128

_PAGE = 5000


@dataclass(slots=True)
class Room:
    """One core room. ``head`` is the seq of its newest event, ``received`` that event's time (ms). ``stale``:
    a turn failed, and the store could not be read since. ``generation`` is that of the policies that judged
    what the view says.
    """

    id: str
    view: RoomView
    links: dict[str, Link] = field(default_factory=dict)
    head: int = 0
    received: int = 0
    stale: bool = False
    generation: int = 0
    tail: deque[Event] = field(default_factory=lambda: deque(maxlen=_TAIL))

    @property
    def authority(self) -> Link | None:
        """The link whose native rules decide here, None where the core judges from the view."""
        for link in self.links.values():
            if link.authority:
                return link
        return None


class Rooms:
    """All rooms of this process."""

    def __init__(self, store: Scoped, random: Random) -> None:
        self._store = store
        self._random = random
        self._rooms: dict[str, Room] = {}
        self._by_native: dict[Ref, Link] = {}

    async def load(self) -> None:
        """Read every room, link and member from the store."""
        async for row in scan_all(self._store, "room"):
            facts, head, received, generation = tables.room_of(row)
            name = str(row.key[0])
            self._rooms[name] = Room(
                name, RoomView(name, facts), head=head, received=received, generation=generation
            )
        for name in self._rooms:
            async for row in scan_all(self._store, "link", index=("room",), equal=(name,)):
                link = tables.link_of(row)
                self._rooms[name].links[link.id] = link
                self._by_native[link.native] = link
        for room in self._rooms.values():
            await self.reload(room)

    async def reload(self, room: Room) -> None:
        """Make a room's memory what the store holds."""
        row = await self._store.get("room", (room.id,))
        if row is None:
            raise LocalProtocolError(f"room {room.id} is not in the store")
        facts, room.head, room.received, room.generation = tables.room_of(row)
        view = RoomView(room.id, facts)
        view.load(tables.person_of(r) for r in await self._people(room.id))
        view.suspect_as(room.view)
        room.view = view
        room.tail.clear()
        room.stale = False

    async def _people(self, room: str) -> list[Row]:
        found: list[Row] = []
        for network in {link.native.network for link in self._by_native.values()}:
            async for page in pages(self._store, "person", equal=(room, network), size=_PAGE):
                found += page
        return found

    def __iter__(self) -> Iterator[Room]:
        return iter(list(self._rooms.values()))

    def get(self, room: str) -> Room | None:
        """A room by its id."""
        return self._rooms.get(room)

    def link(self, native: Ref) -> Link | None:
        """The link of a native room."""
        return self._by_native.get(native)

    def of(self, native: Ref) -> Room:
        """The room behind a native room. Raises LocalProtocolError where there is no link."""
        link = self._by_native.get(native)
        if link is None:
            raise LocalProtocolError(f"{native} is not linked to a room")
        return self._rooms[link.room]

    def links(self, network: str) -> list[Link]:
        """All links of a network."""
        return [link for link in self._by_native.values() if link.native.network == network]

    async def open_link(
        self,
        native: Ref,
        *,
        room: str | None = None,
        hosted: bool = False,
        authority: bool = False,
        direction: Direction = Direction.BOTH,
        view: ViewChange | None = None,
    ) -> Link:
        """Make a link, and its room unless ``room`` names one. A known native room keeps its link, unless
        it is alone in its room and ``room`` names another: then it moves there.
        """
        known = self._by_native.get(native)
        if known is not None and (room is None or known.room == room):
            if view is not None:
                await self.commit_change(self._rooms[known.room], view)
            return known
        if known is not None and len(self._rooms[known.room].links) > 1:
            raise LocalProtocolError(f"{native} is linked to room {known.room} already")
        target = self._rooms.get(room) if room else None
        if room and target is None:
            raise LocalProtocolError(f"there is no room {room}")
        if target is None:
            made = "r" + base64.b32encode(self._random.bytes(10)).decode().lower()
            target = Room(made, RoomView(made))
        if authority and target.authority is not None:
            raise LocalProtocolError(f"room {target.id} has an authority already: {target.authority.id}")
        link = Link(room=target.id, native=native, direction=direction, hosted=hosted, authority=authority)
        change = view or ViewChange()
        if known is not None:
            change = _merged(self._rooms[known.room].view, change)
        # In the same commit: a link whose cursor is missing would skip what is committed before it is made.
        writes = [*self.writes(target, change), tables.link_put(link), tables.cursor_put(link, target.head)]
        await self._store.commit(writes)
        if known is not None:
            self._rooms[known.room].links.pop(known.id)
        self._rooms[target.id] = target
        target.view.apply(change)
        target.links[link.id] = link
        self._by_native[native] = link
        return link

    async def supersede(self, native: Ref, by: Ref, view: ViewChange) -> None:
        """Give a native room's link to another native room; the one left gets a room of its own."""
        before = self._by_native.get(native)
        if before is None or by in self._by_native:
            raise LocalProtocolError(f"{native} has no link, or {by} has one already")
        room = self._rooms[before.room]
        made = "r" + base64.b32encode(self._random.bytes(10)).decode().lower()
        alone = Room(made, RoomView(made))
        natives = tuple(p for p in room.view.people.values() if p.user.network == native.network)
        present = {person.user for person in view.people}
        change = replace(view, gone=tuple(user for user in room.view.people if user not in present))
        left = ViewChange(people=natives, facts=room.view.facts)
        moved, taken = replace(before, room=made), replace(before, native=by)
        writes = [*self.writes(room, change), *self.writes(alone, left)]
        writes += [tables.link_put(moved), tables.link_put(taken), tables.cursor_put(taken, room.head)]
        await self._store.commit(writes)
        room.view.apply(change)
        alone.view.apply(left)
        self._rooms[made] = alone
        for link, holder in ((moved, alone), (taken, room)):
            holder.links[link.id] = link
            self._by_native[link.native] = link
        room.links.pop(before.id, None)

    async def close_link(self, native: Ref) -> None:
        """Remove a link; the room and its log stay."""
        link = self._by_native.get(native)
        if link is None:
            return
        await self._store.commit([Delete("link", (native.network, native.id))])
        del self._by_native[native]
        self._rooms[link.room].links.pop(link.id, None)

    async def commit_change(self, room: Room, change: ViewChange) -> None:
        """Store and apply a change that belongs to no event."""
        if change:
            await self._store.commit(self.writes(room, change))
            room.view.apply(change)

    def writes(self, room: Room, change: ViewChange) -> list[Write]:
        """The writes of a change, with the room's own row."""
        writes: list[Write] = [tables.person_put(room.id, person) for person in change.people]
        writes += [Delete("person", (room.id, user.network, user.id)) for user in change.gone]
        facts = change.facts or room.view.facts
        writes.append(tables.room_put(room.id, facts, room.head, room.received, room.generation))
        return writes


def _merged(old: RoomView, change: ViewChange) -> ViewChange:
    taken = {person.user for person in change.people}
    people = tuple(p for p in old.people.values() if p.user not in taken)
    return ViewChange(people=people + change.people, facts=change.facts)
