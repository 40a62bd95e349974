"""Events that others cite and that cannot be had or verified: passed over, their place in the DAG known.

A hole never enters the state, an auth chain or a timeline. The events that follow it are judged by the state
there: the one that the events before it give, or one that several servers of the room agree on. See ADR 0013.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import orjson
from hansa import Backoff, Clock, Delete, Put, Row, ScopedStore, Write, scan_all

from hansa_matrix.proto.event import StateKey

#: Holes that are remembered of a room, and of those the share of one server that cited them. What follows an
#: older one has its place already; only the try to fill it is given up.
MAX_HOLES, MAX_HOLES_OF_ONE = 200, 100
#: Times that an event is asked for before it is passed over, at least.
TRIES = 4
#: Events whose tries are counted, of all rooms; of one server.
_SUSPECTS, _SUSPECTS_OF_ONE = 5000, 500
#: Events that were rejected as they cite a hole in ``auth_events``, remembered to be judged again.
_REJECTS = 50
#: Seconds until a hole is tried again, doubled each time up to the second.
_BACKOFF = Backoff(first=60.0, most=6 * 3600.0)


class Why(StrEnum):
    """The reason why an event is not accepted."""

    #: The keys of its server may not be asked for, by policy; were not given; are named by an operator.
    DENIED = "denied"
    KEYLESS = "keyless"
    DISTRUSTED = "distrusted"
    #: Its signatures are not valid.
    UNSIGNED = "unsigned"
    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    WRONG_ROOM = "wrong_room"
    #: It cites in ``auth_events`` what cannot be had.
    UNVERIFIABLE = "unverifiable"
    #: It was had, and has no place here, as it follows an event of another room.
    REFUSED = "refused"
    NOT_FOUND = "not_found"
    #: It is here now, and what was rejected for want of it is to be judged again.
    FILLED = "filled"


#: Reasons that no other attempt changes.
DEFINITE = frozenset({Why.DENIED, Why.DISTRUSTED, Why.REFUSED})
#: Reasons that only a key changes.
FOR_A_KEY = frozenset({Why.DENIED, Why.KEYLESS, Why.DISTRUSTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """``group`` holds the state there, 0 until an event that follows it has its place; ``since`` and
    ``again`` (when it is tried next) are in ms. ``keys`` are ``(server, key id)`` of what signed it.
    """

    room_id: str
    event_id: str
    why: Why
    cited_by: str
    origin: str
    since: int
    again: int
    attempts: int = 0
    asked: tuple[str, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()
    #: Its ``prev_events``, where they are certain.
    prev: tuple[str, ...] = ()
    rejects: tuple[str, ...] = ()
    group: int = 0
    #: The state before it that servers give; it is not stored, ``group`` is.
    state: Mapping[StateKey, str] | None = field(default=None, compare=False)

    def row(self) -> Put:
        """The write that keeps it."""
        body = {
            "cited_by": self.cited_by,
            "attempts": self.attempts,
            "asked": self.asked,
            "keys": self.keys,
            "prev": self.prev,
            "rejects": self.rejects,
            "group": self.group,
        }
        fields = {"why": self.why.value, "origin": self.origin, "since": self.since, "again": self.again}
        return Put("hole", (self.room_id, self.event_id), orjson.dumps(body), fields)

    def delete(self) -> Delete:
        """The write that forgets it."""
        return Delete("hole", (self.room_id, self.event_id))

    def with_rejected(self, event_id: str) -> Hole:
        """With one more event that is rejected for it."""
        return replace(self, rejects=tuple(dict.fromkeys((*self.rejects, event_id)))[-_REJECTS:])

    def tried(self, now: int, servers: Iterable[str] = (), why: Why | None = None) -> Hole:
        """After one more try in vain at ``now`` (ms)."""
        pause = _BACKOFF.delay(self.attempts + 1)
        return replace(
            self,
            attempts=self.attempts + 1,
            again=now + int(pause * 1000),
            asked=tuple(dict.fromkeys((*self.asked, *servers)))[:10],
            why=why or self.why,
        )

    def told(self) -> dict[str, Any]:
        """Returns the entry for an operator."""
        return {
            "event": self.event_id,
            "why": self.why.value,
            "cited_by": self.cited_by,
            "origin": self.origin,
            "since": self.since,
            "attempts": self.attempts,
            "asked": list(self.asked),
            "servers": sorted({server for server, _ in self.keys}),
        }


def hole_of(row: Row) -> Hole:
    """A hole out of its row."""
    data = orjson.loads(row.body)
    return Hole(
        room_id=str(row.key[0]),
        event_id=str(row.key[1]),
        why=Why(str(row.fields["why"])),
        cited_by=data["cited_by"],
        origin=str(row.fields["origin"] or ""),
        since=int(row.fields["since"] or 0),
        again=int(row.fields["again"] or 0),
        attempts=data["attempts"],
        asked=tuple(data["asked"]),
        keys=tuple((server, key_id) for server, key_id in data["keys"]),
        prev=tuple(data["prev"]),
        rejects=tuple(data["rejects"]),
        group=data["group"],
    )


class Holes:
    """The holes of one room. Those without a row yet are kept in memory until what cites them is judged."""

    def __init__(self, room_id: str) -> None:
        self._room_id = room_id
        self.by_id: dict[str, Hole] = {}

    async def load(self, store: ScopedStore) -> None:
        """Take up what was known before a restart."""
        rows = scan_all(store, "hole", equal=(self._room_id,))
        self.by_id = {hole.event_id: hole async for row in rows if (hole := hole_of(row))}

    def __contains__(self, event_id: object) -> bool:
        hole = self.by_id.get(event_id) if isinstance(event_id, str) else None
        return hole is not None and hole.why is not Why.FILLED

    def __len__(self) -> int:
        return sum(event_id in self for event_id in self.by_id)

    def listed(self) -> list[Hole]:
        """All of them, the oldest first."""
        return sorted((h for h in self.by_id.values() if h.event_id in self), key=lambda h: h.since)

    def add(self, hole: Hole) -> None:
        """Passes over one more event from now on; what is already known stays."""
        self.by_id.setdefault(hole.event_id, hole)

    def excess_holes(self, more: Mapping[str, Hole]) -> list[Hole]:
        """Those to forget once ``more`` are there: the oldest, of the server that cited the most."""
        kept = {**self.by_id, **more}
        of = Counter(hole.origin for hole in kept.values())
        gone: list[Hole] = []
        by_age = sorted(
            (h for h in kept.values() if h.event_id not in more), key=lambda h: (h.since, h.event_id)
        )
        while by_age and (len(kept) > MAX_HOLES or (of and of.most_common(1)[0][1] > MAX_HOLES_OF_ONE)):
            most = of.most_common(1)[0][0]
            oldest = next((h for h in by_age if h.origin == most), by_age[0])
            by_age.remove(oldest)
            del kept[oldest.event_id]
            of[oldest.origin] -= 1
            gone.append(oldest)
        return gone


@dataclass(slots=True)
class _Suspect:
    origin: str
    since: float
    tries: int = 0


class Suspects:
    """Events that were asked for in vain: how often, and since when."""

    def __init__(self, clock: Clock, patience: float) -> None:
        self._clock = clock
        self._patience = patience
        self._known: OrderedDict[tuple[str, str], _Suspect] = OrderedDict()
        self._of: Counter[str] = Counter()

    def tried(self, room_id: str, event_id: str, origin: str) -> bool:
        """Count one more try. True for an event that is counted for the first time."""
        key = room_id, event_id
        known = self._known.get(key)
        if known is None:
            known = _Suspect(origin, self._clock.monotonic())
            if self._of[origin] >= _SUSPECTS_OF_ONE:
                self.forget(*next(k for k, one in self._known.items() if one.origin == origin))
            elif len(self._known) >= _SUSPECTS:
                self.forget(*next(iter(self._known)))
            self._known[key] = known
            self._of[origin] += 1
        known.tries += 1
        return known.tries == 1

    def is_ripe(self, room_id: str, event_id: str) -> bool:
        """True if an event was requested often enough, and for long enough."""
        known = self._known.get((room_id, event_id))
        if known is None:
            return False
        return known.tries >= TRIES and self._clock.monotonic() - known.since >= self._patience

    def tries(self, room_id: str, event_id: str) -> int:
        """How often an event was asked for."""
        known = self._known.get((room_id, event_id))
        return known.tries if known is not None else 0

    def forget(self, room_id: str, event_id: str) -> None:
        """It is here, or passed over."""
        gone = self._known.pop((room_id, event_id), None)
        if gone is not None:
            self._of[gone.origin] -= 1
            if not self._of[gone.origin]:
                del self._of[gone.origin]


def forget_hole_writes(holes: Iterable[Hole]) -> list[Write]:
    """The writes that forget some holes."""
    return [hole.delete() for hole in holes]
