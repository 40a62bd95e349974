"""The names of events, in both directions, and what concerns them: native ids, ids that a sender chose, and
edits and reactions by the event that they are about.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence

from hansa.bus import schema
from hansa.bus.rooms import Room
from hansa.model.content import BLANK, Kind
from hansa.model.crossing_parts import words_of
from hansa.model.events import Event
from hansa.model.lru import LruCache, WeightedLruCache
from hansa.model.ref import NativeId
from hansa.store.base import Conflict, Delete, Put, Remove, ScopedStore
from hansa.store.paging import first_page, pages

#: What is read of one event's edits or reactions.
_MAX_RELATED = 1000
#: The edits of one message. One commit blanks them all when it is retracted, with those of a turn that was
#: under way as the last of them came.
MAX_EDITS, _MAX_RETRACTED = 1000, 3000
#: How long an event is found by an id that its sender chose; rows that are removed at a time.
CHOSEN_TTL_S, _SWEPT = 90 * 86_400, 500
#: Events that are read at a time: one may have 64 KiB of text, and as much payload.
_EVENTS = 50
#: Events that are remembered, and how much they weigh together: characters of text, and some for each.
_MAX_KNOWN, _MAX_WEIGHT, _EVENT = 4000, 4_000_000, 500


class EventNames:
    """Finds events. ``store`` is the core's. Those found by an id are remembered: a popular message gets many
    reactions, and each of them is delivered to each link.
    """

    def __init__(self, store: ScopedStore) -> None:
        self._store = store
        self._known = WeightedLruCache[str, Event](_MAX_KNOWN, _MAX_WEIGHT, _weight_of)
        #: The ids of remembered events by native ids.
        self._native = LruCache[NativeId, str](_MAX_KNOWN)
        #: How often events were edited, by their ids.
        self._edited = LruCache[str, int](_MAX_KNOWN)
        self._forgotten = 0

    def forget(self, events: Iterable[Event]) -> None:
        """These events stand otherwise in the log now."""
        self._forgotten += 1
        for event in events:
            self._known.pop(event.id)

    def forget_all(self) -> None:
        """Another process may have written."""
        self._forgotten += 1
        self._known.clear()
        self._native.clear()
        self._edited.clear()

    def count_edits(self, targets: Iterable[str]) -> None:
        """Edits of these events were committed."""
        for target in targets:
            known = self._edited.get(target)
            if known is not None:
                self._edited.put(target, known + 1)

    async def find(self, ref: NativeId) -> Event | None:
        """The event with a native id."""
        row = await self._store.get("alias", (ref.network, ref.id))
        return await self._at(str(row.fields["room"]), int(row.fields["seq"] or 0)) if row else None

    async def find_many(self, refs: Collection[NativeId]) -> dict[NativeId, Event]:
        """Those of the events with these native ids that there are."""
        found = dict[NativeId, Event]()
        for ref in refs:
            event = self._known.get(self._native.get(ref) or "")
            if event is not None:
                found[ref] = event
        left = {(ref.network, ref.id): ref for ref in refs if ref not in found}
        before = self._forgotten
        named = await self._store.get_many("alias", list(left)) if left else {}
        places = {
            left[str(key[0]), str(key[1])]: (str(row.fields["room"]), int(row.fields["seq"] or 0))
            for key, row in named.items()
        }
        wanted = list(dict.fromkeys(places.values()))
        for at in range(0, len(wanted), _EVENTS):
            rows = await self._store.get_many("event", wanted[at : at + _EVENTS])
            events = {place: schema.event_of(row) for place, row in rows.items()}
            for ref, place in places.items():
                event = events.get(place)
                if event is None:
                    continue
                found[ref] = event
                if before == self._forgotten:  # else it may have been retracted while it was read
                    self._known.put(event.id, event)
                    self._native.put(ref, event.id)
        return found

    async def find_in_room(self, room: Room, event_id: str) -> Event | None:
        """The event of a room with an id of the core."""
        for event in room.tail:
            if event.id == event_id:
                return event
        found = self._known.get(event_id)
        if found is None:
            before = self._forgotten
            found = await self.read(event_id)
            if found is None:
                return None
            if before == self._forgotten:  # else it may have been retracted while it was read
                self._known.put(event_id, found)
        return found if found.room == room.id else None

    async def read(self, event_id: str) -> Event | None:
        """The event of any room with an id of the core, as the store has it."""
        rows = await self._store.scan("event", index=("id",), equal=(event_id,), limit=1)
        return schema.event_of(rows[0]) if rows else None

    async def find_chosen(self, room: str, sender: NativeId, chosen: str) -> Event | None:
        """The latest event of a sender in a room to which the sender gave this id."""
        row = await self._store.get("chosen", chosen_key(room, sender, chosen))
        return await self._at(room, int(row.fields["seq"] or 0)) if row else None

    async def forget_old_chosen_ids(self, now: int) -> int:
        """Remove the ids that senders chose more than ``CHOSEN_TTL_S`` before ``now`` (ms); how many."""
        before, count = now - CHOSEN_TTL_S * 1000, 0
        while rows := await first_page(self._store, "chosen", index=("at",), upto=before, size=_SWEPT):
            try:
                await self._store.commit(
                    [Remove("chosen", row.key, row.body) for row in rows], durability="lazy"
                )
            except Conflict:  # one of them was chosen again at this moment
                break
            count += len(rows)
        return count

    async def native_ids(self, event: Event, network: str) -> list[str]:
        """All ids of an event on a network; the first is the network's own choice, and where the network has
        the event in parts that of the first part.
        """
        rows = await self._store.scan("alias", index=("room", "seq"), equal=(event.room, event.seq))
        rows.sort(key=schema.part_of)
        named = [str(row.key[1]) for row in rows if row.key[0] == network]
        if event.origin.network != network:
            return named
        # An authority gives its own submission an id of its own.
        return [*(one for one in named if one != event.origin.id), event.origin.id]

    async def related(
        self, event: Event, kind: Kind, sender: NativeId | None = None, *, newest_first: bool = False
    ) -> AsyncIterator[Event]:
        """The edits, the reactions or what else of a kind concerns an event, in order; those of ``sender``
        alone, if one is given. Retracted ones are left out, and a thousand are read, a few at a time.
        """
        seqs = await self._related_seqs(event, kind, _MAX_RELATED, sender)
        async for one in self._events_at(event.room, sorted(seqs, reverse=newest_first)):
            if one.content != BLANK:
                yield one

    async def edits(self, event: Event) -> AsyncIterator[Event]:
        """All edits of an event in order, those too that say nothing any more."""
        seqs = await self._related_seqs(event, Kind.EDIT, _MAX_RETRACTED)
        async for edit in self._events_at(event.room, seqs):
            yield edit

    async def _events_at(self, room: str, seqs: Sequence[int]) -> AsyncIterator[Event]:
        """The events at these places of a room's log, in this order: ``_EVENTS`` are in memory at a time."""
        for at in range(0, len(seqs), _EVENTS):
            places = [(room, seq) for seq in seqs[at : at + _EVENTS]]
            found = await self._store.get_many("event", places)
            for place in places:
                if (row := found.pop(place, None)) is not None:
                    yield schema.event_of(row)

    async def has_room_for_edit(self, room: Room, event: Event) -> bool:
        """False if an event was edited ``MAX_EDITS`` times. Only an old event costs a look, once."""
        if room.head - event.seq < MAX_EDITS:
            return True
        edits = self._edited.get(event.id)
        if edits is None:
            before = self._forgotten
            edits = len(await self._related_seqs(event, Kind.EDIT, MAX_EDITS))
            if before == self._forgotten:
                self._edited.put(event.id, edits)
        return edits < MAX_EDITS

    async def _related_seqs(
        self, event: Event, kind: Kind, most: int, sender: NativeId | None = None
    ) -> Sequence[int]:
        """Where in the log of its room they stand: ``most`` of this kind, whatever else concerns the event.
        Those of one sender are in order.
        """
        seqs = list[int]()
        of_sender = (sender_mark(sender),) if sender is not None else ()
        equal = (event.room, event.seq, kind.value, *of_sender)
        async for page in pages(self._store, "relation", equal=equal):
            seqs += [int(row.key[4]) for row in page]
            if len(seqs) >= most:
                break
        return seqs[:most]

    async def _at(self, room: str, seq: int) -> Event | None:
        row = await self._store.get("event", (room, seq))
        return schema.event_of(row) if row else None


def _weight_of(event: Event) -> int:
    return _EVENT + len(event.payload) + sum(map(len, words_of(event.content)))


def chosen_key(room: str, sender: NativeId, chosen: str) -> tuple[str, str]:
    """The key of an id that a sender chose."""
    return (room, schema.hashed_key(sender.network, sender.id, chosen))


def chosen_put(event: Event, chosen: str) -> Put:
    """The row of an id that a sender chose, in the place of what they called so before."""
    key = chosen_key(event.room, event.sender, chosen)
    return Put("chosen", key, b"%d" % event.seq, {"seq": event.seq, "at": event.received})


def sender_mark(sender: NativeId) -> str:
    """A sender in keys: their id may be as long as a network makes it."""
    return schema.hashed_key(sender.network, sender.id)[:32]


def _relation_key(event: Event, target: Event) -> tuple[str, int, str, str, int]:
    return (event.room, target.seq, event.content.kind.value, sender_mark(event.sender), event.seq)


def relation_put(event: Event, target: Event) -> Put:
    """The row by which an event is found from the one that it concerns."""
    return Put("relation", _relation_key(event, target))


def relation_delete(event: Event, target: Event) -> Delete:
    """The end of the same row."""
    return Delete("relation", _relation_key(event, target))
