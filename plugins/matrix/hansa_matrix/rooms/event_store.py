"""Events out of the store, and the few thousand that are needed again and again in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Protocol

from hansa import Insert, Put, Row, ScopedStore, Value, WeightedLruCache
from hansa.model.bounded_json import values_in
from hansa.model.fast_dataclass import quick

from hansa_matrix.proto.auth_rules.state_keys import CREATE
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.hashing import reference_hash
from hansa_matrix.proto.pdu import pdu_from_wire
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.streaming.packed_pdus import unpack_pdu

#: Events kept, and bytes of them as they were on the wire; parsed they take several times that.
_MAX_CACHED = 5000
_KEPT_BYTES = 8 * 1024 * 1024
#: Bytes of most events for each of their keys and values, and of memory for one.
_PER_VALUE, _VALUE = 8, 75


#: Bits of the field ``marks``.
_LIVE, _REDACTED = 1, 2
#: How far the generation is shifted in it.
_GENERATION = 2
#: The prefix of the reason of an event that a policy server did not recommend.
POLICY = "policy: "
#: The prefixes of the reason of a withheld event: the decision of a local policy, or a redaction that does
#: not apply.
DECISION, NO_REDACTION = "decision: ", "redaction: "


class Status(StrEnum):
    """The result of the checks on receipt. Dropped events are not stored."""

    ACCEPTED = "accepted"
    WITHHELD = "withheld"
    SOFT_FAILED = "soft_failed"
    REJECTED = "rejected"
    OUTLIER = "outlier"


@quick
@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event with its status and the state groups before and after it. ``after`` is 0 for an event that
    has no place in the DAG yet: an outlier.
    """

    pdu: Pdu
    status: Status
    before: int = 0
    after: int = 0
    #: The rule that a rejected or soft-failed event broke, and how.
    reason: str = ""
    #: True if it has its place in the live timeline of clients.
    live: bool = False
    #: True if another event redacted it.
    redacted: bool = False
    #: The policies that judged it: under others it is judged again before it is read. 0 for none.
    generation: int = 0
    #: Its place in the room by our own count, greater than that of everything it follows: see
    #: ``room.RoomHead``. What the event itself says of its depth is its sender's choice. 0 for what has no
    #: place.
    depth: int = 0

    @property
    def policy_server_refused(self) -> bool:
        """True if it is soft-failed only because the room's policy server did not recommend it."""
        return self.status is Status.SOFT_FAILED and self.reason.startswith(POLICY)

    @property
    def shown(self) -> bool:
        """True if users may see its content. Every reader asks this, and nothing else."""
        return self.status is Status.ACCEPTED

    @property
    def by_policy(self) -> bool:
        """True if it stands in the DAG, and a local policy withholds its content from everybody: other
        servers get it as a redaction would leave it.
        """
        return self.status is Status.WITHHELD and not self.reason.startswith(NO_REDACTION)

    @property
    def size(self) -> int:
        """Its bytes that are kept beside what is parsed, and what is parsed where that is more than of most
        events: 64 KiB of empty objects take 2 MiB.
        """
        wire = self.pdu.wire
        dense = max(0, values_in(wire) - len(wire) // _PER_VALUE)
        return len(wire) + len(self.pdu.signable) + dense * _VALUE

    def as_live(self) -> StoredEvent:
        """The same with its place in the timeline."""
        return StoredEvent(
            self.pdu,
            self.status,
            self.before,
            self.after,
            self.reason,
            live=True,
            redacted=self.redacted,
            generation=self.generation,
            depth=self.depth,
        )

    def _row_fields(self) -> dict[str, Value]:
        return {
            "room_id": self.pdu.room_id,
            "status": self.status.value,
            "depth": self.depth,
            "before": self.before,
            "after": self.after,
            "reason": self.reason[:200],
            "marks": self.live * _LIVE + self.redacted * _REDACTED + (self.generation << _GENERATION),
        }

    def put(self) -> Put:
        """The write that keeps it."""
        return Put("pdu", (self.pdu.event_id,), self.pdu.wire, self._row_fields())

    def insert(self) -> Insert:
        """The write that keeps it unless the event is stored already: then it is a Conflict."""
        return Insert("pdu", (self.pdu.event_id,), self.pdu.wire, self._row_fields())


def same_event(one: Pdu, other: Pdu, version: RoomVersion) -> bool:
    """True if two events with one id are one event: they may differ in signatures, and in the fields that a
    redaction removes.
    """
    if one.room_id != other.room_id:
        return False
    return not version.server_made_event_ids or (
        reference_hash(one.raw, version) == reference_hash(other.raw, version)
    )


def is_live(row: Row) -> bool:
    """True if the event of a row has its place in the timeline."""
    return bool(int(row.fields["marks"] or 0) & _LIVE)


def is_shown(row: Row) -> bool:
    """``StoredEvent.shown`` of a row's event."""
    return row.fields["status"] == Status.ACCEPTED.value


def is_withheld(row: Row) -> bool:
    """True if the event of a row is withheld, for whatever reason."""
    return row.fields["status"] == Status.WITHHELD.value


class PolicyRechecker(Protocol):
    """Judges events again that were judged by other policies, or by nobody."""

    @property
    def active(self) -> bool:
        """True if there is a policy that could deny an event."""
        ...

    async def __call__(self, found: Mapping[str, StoredEvent]) -> Mapping[str, StoredEvent]:
        """The same events, those withheld that are denied now."""
        ...


class EventStore:
    """Reads through a bounded memory. ``version`` is asked per event's room."""

    def __init__(self, store: ScopedStore, rechecks: PolicyRechecker | None = None) -> None:
        self._store = store
        #: Called with events that are about to be read.
        self.judge = rechecks
        self._kept: WeightedLruCache[str, StoredEvent] = WeightedLruCache(
            _MAX_CACHED, _KEPT_BYTES, attrgetter("size")
        )

    async def load(self, ids: Iterable[str], version: RoomVersion) -> dict[str, StoredEvent]:
        """Those of the events that are stored."""
        found: dict[str, StoredEvent] = {}
        missing: list[str] = []
        for event_id in ids:
            kept = self._kept.get(event_id)
            if kept is None:
                missing.append(event_id)
            else:
                found[event_id] = kept
        if missing:
            rows = await self._store.get_many("pdu", [(event_id,) for event_id in missing])
            for key, row in rows.items():
                event_id = str(key[0])
                stored = StoredEvent(
                    pdu_from_wire(event_id, row.body, version),
                    Status(str(row.fields["status"])),
                    int(row.fields["before"] or 0),
                    int(row.fields["after"] or 0),
                    str(row.fields["reason"] or ""),
                    bool(int(row.fields["marks"] or 0) & _LIVE),
                    bool(int(row.fields["marks"] or 0) & _REDACTED),
                    int(row.fields["marks"] or 0) >> _GENERATION,
                    int(row.fields["depth"] or 0),
                )
                found[event_id] = stored
                self.keep([stored])
        return found

    def keep(self, stored: Iterable[StoredEvent]) -> None:
        """Remember what was just written or read."""
        for one in stored:
            self._kept.put(one.pdu.event_id, one)

    def at_hand(self, event_id: str) -> StoredEvent | None:
        """An event if it is in memory, where it stays longer for it."""
        return self._kept.get(event_id)

    def forget(self, room_id: str) -> None:
        """Drop the events of a room: what they are in the store may be something else."""
        for event_id in [e for e, one in self._kept.items() if one.pdu.room_id == room_id]:
            self._kept.pop(event_id)


class RoomEvents:
    """The events of one room. A peer may name any id: an event of another room is not found here, however
    well it is known.
    """

    def __init__(self, events: EventStore, room_id: str) -> None:
        self._all = events
        self._room_id = room_id

    async def load(self, ids: Iterable[str], version: RoomVersion) -> dict[str, StoredEvent]:
        """Those of the events that are stored and of the room."""
        found = await self._all.load(ids, version)
        for one in found.values():
            if one.pdu.room_id != self._room_id:
                return {e: one for e, one in found.items() if one.pdu.room_id == self._room_id}
        return found

    async def readable(self, ids: Iterable[str], version: RoomVersion) -> Mapping[str, StoredEvent]:
        """As ``load``, for who reads them: withheld is also what the policies of now deny."""
        return await self.recheck_policies(await self.load(ids, version))

    async def recheck_policies(self, found: Mapping[str, StoredEvent]) -> Mapping[str, StoredEvent]:
        """Events as they may be read now."""
        judge = self._all.judge
        return found if judge is None or not judge.active else await judge(found)

    @property
    def is_ungoverned(self) -> bool:
        """True if events may be read as they are stored, because there are no policies."""
        return self._all.judge is None or not self._all.judge.active

    async def load_foreign(self, ids: Iterable[str], version: RoomVersion) -> dict[str, StoredEvent]:
        """Those of the ids that are events of other rooms: to say that they are, and for nothing else."""
        found = await self._all.load(ids, version)
        return {e: one for e, one in found.items() if one.pdu.room_id != self._room_id}

    async def taken_ids(self, pdus: Sequence[Pdu], version: RoomVersion) -> set[str]:
        """The ids of those events that are ids of other events here, of this room or of another. Only where
        servers make ids (versions 1 and 2) can two events have one: the first stored event keeps it, since
        states and auth chains name it.
        """
        if not version.server_made_event_ids:
            return set()
        found = await self._all.load([pdu.event_id for pdu in pdus], version)
        known = [(pdu, found[pdu.event_id].pdu) for pdu in pdus if pdu.event_id in found]
        return {p.event_id for p, had in known if not same_event(had, unpack_pdu(p, version), version)}

    def keep(self, stored: Iterable[StoredEvent]) -> None:
        """See ``EventStore.keep``."""
        self._all.keep(stored)

    def forget(self) -> None:
        """See ``EventStore.forget``."""
        self._all.forget(self._room_id)

    def at_hand(self, event_id: str) -> StoredEvent | None:
        """See ``EventStore.at_hand``."""
        one = self._all.at_hand(event_id)
        return one if one is not None and one.pdu.room_id == self._room_id else None

    async def auth_chain(self, roots: Iterable[str], version: RoomVersion) -> dict[str, StoredEvent]:
        """Every event of the room reachable by ``auth_events`` from ``roots``, which are in it only if
        reached. The create event authorises every other, also in rooms whose events do not cite it.
        """
        chain: dict[str, StoredEvent] = {}
        loaded = await self.load(roots, version)
        edge = {a for one in loaded.values() for a in one.pdu.auth_events}
        if version.room_id_is_create_hash and any(one.pdu.type != CREATE for one in loaded.values()):
            # COMPAT: Dendrite looks for it in the auth chain alone.
            edge.add("$" + self._room_id[1:])
        while edge:
            found = await self.load(sorted(edge), version)
            chain.update(found)
            edge = {a for one in found.values() for a in one.pdu.auth_events if a not in chain}
        return chain
