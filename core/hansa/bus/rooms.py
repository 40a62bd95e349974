"""The core rooms in memory: views, links and where each log ends. Every change is made by a room's turn."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from hansa.bus import schema
from hansa.bus.joined_rooms import JoinedRooms
from hansa.bus.large_changes import LargeChanges
from hansa.bus.membership_log import membership_writes, since_position, visibility_writes
from hansa.environment import Clock, Random
from hansa.model.errors import LocalProtocolError
from hansa.model.events import Direction, Event, Link
from hansa.model.history_visibility import position_of
from hansa.model.ref import NativeId
from hansa.model.view import RoomInfo, RoomView, ViewDelta
from hansa.store.base import CompareAndSwap, Conflict, Delete, Put, Row, ScopedStore, Write
from hansa.store.bounds import Whole
from hansa.store.conflict_retry import again_on_conflict
from hansa.store.faults import StoreFault
from hansa.store.paging import pages, scan_all

#: Events kept in memory per room, so that a delivery that keeps up reads nothing from disk.
_TAIL = 128

_PAGE_SIZE = 5000
#: The collections that have one row of each link, under its id.
_OF_LINK = ("cursor", "unshown")


@dataclass(slots=True)
class Room:
    """One core room. ``head`` is the seq of its newest event, ``received`` that event's time (ms). ``stale``:
    a commit failed, and the store was not read since. ``generation`` is that of the policies that judged
    what the view says. ``kept`` is its row as it was read or committed last.
    """

    id: str
    view: RoomView
    links: dict[str, Link] = field(default_factory=dict)
    head: int = 0
    received: int = 0
    stale: bool = False
    generation: int = 0
    kept: schema.RoomRow = field(default_factory=schema.RoomRow)
    tail: deque[Event] = field(default_factory=lambda: deque(maxlen=_TAIL))

    @property
    def authority(self) -> Link | None:
        """The link whose native rules decide here, None where the core judges from the view."""
        for link in self.links.values():
            if link.authority:
                return link
        return None

    def hosted_networks(self) -> frozenset[str]:
        """The networks whose native room is ours."""
        return frozenset(link.native.network for link in self.links.values() if link.hosted)

    def link_of(self, network: str) -> Link | None:
        """The first link of a network, None where the room has none of it."""
        return next((link for link in self.links.values() if link.native.network == network), None)


class Rooms:
    """All rooms of this process."""

    def __init__(self, store: ScopedStore, clock: Clock, random: Random) -> None:
        self._store = store
        self._random = random
        self._changes = LargeChanges(store, clock, random)
        self._rooms: dict[str, Room] = {}
        self._joined = JoinedRooms()
        #: Links by network, and there by the native room.
        self._native: dict[str, dict[NativeId, Link]] = {}

    async def load(self) -> None:
        """Read every room, link and member from the store."""
        rows = [row async for row in scan_all(self._store, "room")]
        for row in rows:
            name = str(row.key[0])
            self._rooms[name] = Room(name, RoomView(name, RoomInfo()))
        async for row in scan_all(self._store, "link"):
            link = schema.link_of(row)
            if (holder := self._rooms.get(link.room)) is not None:
                holder.links[link.id] = link
                self._index_link(link)
        for row in rows:
            whole = schema.room_of(row)[-1].change is None
            await self._fill_room(
                self._rooms[str(row.key[0])], row if whole else await self._changes.settled(str(row.key[0]))
            )
        await self._changes.sweep()
        await self._remove_rows_of_ended_links()

    async def reload(self, room: Room) -> None:
        """Make a room's memory what the store holds."""
        await self._fill_room(room, await self._changes.settled(room.id))

    async def stage(self, people: Sequence[Put | Delete], logged: Sequence[Put]) -> schema.Change | None:
        """See ``LargeChanges.stage``."""
        return await self._changes.stage(people, logged)

    async def settle(self, room: Room) -> None:
        """Do what the room's row, as it was committed just now, names. Where that fails, who is next in the
        room does it.
        """
        if room.kept.change is None:
            return
        room.stale = True
        with suppress(StoreFault, Conflict):
            row = await self._changes.settled(room.id)
            if room.kept.change is not None:  # else it was read again meanwhile
                room.kept, room.stale = schema.room_of(row)[-1], False

    async def _fill_room(self, room: Room, row: Row) -> None:
        facts, room.head, room.received, room.generation, room.kept = schema.room_of(row)
        # COMPAT: a head that versions up to d365809 let fall behind its log would be in the way for ever.
        for event in await self._store.scan("event", equal=(room.id,), limit=1, reverse=True):
            room.head = max(room.head, int(event.key[1]))
            room.received = max(room.received, int(event.fields["received"] or 0))
        view = RoomView(room.id, facts)
        view.load(schema.person_of(r) for r in await self._read_members(room.id))
        view.suspect_as(room.view)
        view.report_joined(self._joined.on_joined)
        self._joined.clear()
        room.view = view
        room.tail.clear()
        room.stale = False

    async def _read_members(self, room: str) -> list[Row]:
        found: list[Row] = []
        for network in list(self._native):
            async for page in pages(self._store, "person", equal=(room, network), size=_PAGE_SIZE):
                found += page
        return found

    def __iter__(self) -> Iterator[Room]:
        return iter(list(self._rooms.values()))

    def get(self, room: str) -> Room | None:
        """A room by its id."""
        return self._rooms.get(room)

    def joined_by(self, user: NativeId) -> list[Room]:
        """The rooms in which a person is joined."""
        found = self._joined.find(user, (room.view for room in self._rooms.values()))
        return [self._rooms[name] for name in found if name in self._rooms]

    def _make_room(self, name: str) -> Room:
        room = Room(name, RoomView(name))
        room.view.report_joined(self._joined.on_joined)
        return room

    def link(self, native: NativeId) -> Link | None:
        """The link of a native room."""
        return self._native.get(native.network, {}).get(native)

    def _index_link(self, link: Link) -> None:
        self._native.setdefault(link.native.network, {})[link.native] = link

    def _unindex_link(self, native: NativeId) -> None:
        of_network = self._native[native.network]
        del of_network[native]
        if not of_network:
            del self._native[native.network]

    def room_of(self, native: NativeId) -> Room:
        """The room behind a native room. Raises LocalProtocolError where there is no link."""
        link = self.link(native)
        if link is None:
            raise LocalProtocolError(f"{native} is not linked to a room")
        return self._rooms[link.room]

    def links(self, network: str) -> list[Link]:
        """All links of a network."""
        return list(self._native.get(network, {}).values())

    async def open_link(
        self,
        native: NativeId,
        *,
        room: str | None = None,
        hosted: bool = False,
        authority: bool = False,
        direction: Direction = Direction.BOTH,
        view: ViewDelta | None = None,
        start: int | None = None,
        yields: Link | None = None,
        beside: Callable[[Room], Sequence[Write]] | None = None,
    ) -> Link:
        """Make a link, and its room unless ``room`` names one. A known native room keeps its link, unless
        it is alone in its room and ``room`` names another: then it moves there. The link gets the events
        after ``start``, by default later ones alone. ``yields`` is the link that is the room's authority no
        more: it gets events like any other. ``beside`` gives what else its commit writes, from the
        room as it is before.
        """
        known = self.link(native)
        if known is not None and (room is None or known.room == room):
            if view is not None:
                await again_on_conflict(partial(self.commit_change, self._rooms[known.room], view))
            return known
        if known is not None and len(self._rooms[known.room].links) > 1:
            raise LocalProtocolError(f"{native} is linked to room {known.room} already")
        target = self._rooms.get(room) if room else None
        if room and target is None:
            raise LocalProtocolError(f"there is no room {room}")
        if target is None:
            made = "r" + base64.b32encode(self._random.bytes(10)).decode().lower()
            target = self._make_room(made)
        if yields is not None and (target.authority is None or target.authority.id != yields.id):
            yields = None
        if authority and target.authority is not None and yields is None:
            raise LocalProtocolError(f"room {target.id} has an authority already: {target.authority.id}")
        link = Link(room=target.id, native=native, direction=direction, hosted=hosted, authority=authority)
        change = view or ViewDelta()
        if known is not None:
            change = _moved_delta(self._rooms[known.room].view, change, decides=authority)
        held = target
        plain = link

        async def turn() -> None:
            nonlocal link, plain
            link = replace(link, judged_from=held.head and held.head + 1)
            link_row = schema.link_insert(link) if known is None else schema.link_cas(known, link)
            # In the same commit: a link whose cursor is missing would skip what is committed before it is
            # made.
            begin = held.head if start is None else start
            more = list(beside(held)) if beside is not None else []
            if yields is not None:
                plain = replace(yields, authority=False, judged_from=held.head and held.head + 1)
                more += [schema.link_cas(yields, plain), schema.cursor_put(plain, held.head)]
            await self._commit_rooms([(held, change)], link_row, schema.cursor_put(link, begin), *more)

        await self._commit_link(native, turn)
        if known is not None:
            self._rooms[known.room].links.pop(known.id)
            await self._remove_dead_letters(known.id)
        self._rooms[target.id] = target
        target.view.apply(change)
        target.links[link.id] = link
        self._index_link(link)
        if yields is not None:
            target.links[plain.id] = plain
            self._index_link(plain)
        await self.settle(target)
        return link

    async def supersede(self, native: NativeId, by: NativeId, view: ViewDelta) -> None:
        """Give a native room's link to another native room; the one left gets a room of its own."""
        before = self.link(native)
        if before is None or self.link(by) is not None:
            raise LocalProtocolError(f"{native} has no link, or {by} has one already")
        room = self._rooms[before.room]
        made = "r" + base64.b32encode(self._random.bytes(10)).decode().lower()
        alone = self._make_room(made)
        natives = tuple(p for p in room.view.people.values() if p.user.network == native.network)
        present = {person.user for person in view.upserts}
        change = replace(view, removed=tuple(user for user in room.view.people if user not in present))
        left = ViewDelta(upserts=natives, info=room.view.facts)
        moved, taken = replace(before, room=made), replace(before, native=by)

        async def turn() -> None:
            links = schema.link_cas(before, moved), schema.link_insert(taken)
            cursor = schema.cursor_put(taken, room.head)
            await self._commit_rooms([(room, change), (alone, left)], *links, cursor)

        await self._commit_link(native, turn)
        room.view.apply(change)
        alone.view.apply(left)
        self._rooms[made] = alone
        for link, holder in ((moved, alone), (taken, room)):
            holder.links[link.id] = link
            self._index_link(link)
        room.links.pop(before.id, None)
        await self.settle(room)
        await self.settle(alone)

    async def close_link(self, native: NativeId) -> None:
        """Remove a link; the room and its log stay."""
        link = self.link(native)
        if link is None:
            return
        key = (native.network, native.id)
        await self._store.commit([Delete("link", key), *(Delete(name, (link.id,)) for name in _OF_LINK)])
        self._unindex_link(native)
        self._rooms[link.room].links.pop(link.id, None)
        await self._remove_dead_letters(link.id)

    async def _remove_dead_letters(self, link_id: str) -> None:
        """Those of a link that ended, or left its room: their positions are of the room that it left."""
        async for page in pages(self._store, "dead", equal=(link_id,)):
            await self._store.commit([Delete("dead", row.key) for row in page])

    async def _remove_rows_of_ended_links(self) -> None:
        """Rows that a process left as it ended in the middle, or wrote as a link ended."""
        links = {link.id for room in self._rooms.values() for link in room.links.values()}
        for collection in (*_OF_LINK, "dead"):
            async for page in pages(self._store, collection):
                gone = [Delete(collection, row.key) for row in page if str(row.key[0]) not in links]
                if gone:
                    await self._store.commit(gone)

    def forget(self, room: Room) -> None:
        """Take a room that was removed from the store out of memory."""
        self._rooms.pop(room.id, None)
        self._joined.clear()

    async def commit_change(self, room: Room, change: ViewDelta, *beside: Write) -> None:
        """Store and apply a change that belongs to no event, and what is ``beside`` it. Raises ``Conflict``
        where another writer came between: then the room's next turn reads it again.
        """
        if change:
            try:
                await self._commit_rooms([(room, change)], *beside)
            except Conflict:
                room.stale = True
                raise
            room.view.apply(change)
            await self.settle(room)

    async def _commit_rooms(self, changed: Sequence[tuple[Room, ViewDelta]], *beside: Write) -> None:
        """Commit changes of rooms, and what is beside them, in one moment."""
        writes, rows = list[Write](), list[tuple[Room, CompareAndSwap, schema.Change | None]]()
        for room, change in changed:
            if room.kept.change is not None:
                await self.reload(room)
            people = schema.people_writes(room.id, change)
            logged = list[Put]()
            if room.head:  # what a room begins with has always been so
                position = position_of(room.head, after=True)
                logged = membership_writes(room.view, change, position)
                logged = await since_position(self._store, logged)
                seen = visibility_writes(room.view, change, position)
                writes += await since_position(self._store, seen)
            staged = await self._changes.stage(people, logged)
            writes += [*people, *logged] if staged is None else ()
            row = schema.room_cas(
                room.id,
                room.kept,
                room.view.facts_after(change.info or room.view.facts),
                head=room.head,
                received=room.received,
                generation=room.generation,
                change=staged,
            )
            rows.append((room, row, staged))
        await self._store.commit(Whole([*writes, *(row for _, row, _ in rows), *beside]))
        for room, row, staged in rows:
            room.kept = room.kept.by(row, staged)

    @staticmethod
    async def _commit_link(native: NativeId, turn: Callable[[], Awaitable[None]]) -> None:
        """Commit a link, again where a turn of its room came between. Raises LocalProtocolError where another
        made or closed the same.
        """
        try:
            await again_on_conflict(turn, collections={"room"})
        except Conflict as lost:
            if lost.collection != "link":
                raise
            raise LocalProtocolError(f"the link of {native} was made or closed at this moment") from lost


def _moved_delta(old: RoomView, change: ViewDelta, *, decides: bool) -> ViewDelta:
    """What a link brings into the room that it moves to: its people, and the facts where it ``decides``."""
    taken = {person.user for person in change.upserts}
    people = tuple(p for p in old.people.values() if p.user not in taken)
    return ViewDelta(upserts=people + change.upserts, info=change.info or (old.facts if decides else None))
