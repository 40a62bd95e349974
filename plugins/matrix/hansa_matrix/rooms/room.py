"""One Matrix room that we are in: where its DAG ends and what its state is now."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import orjson
from hansa import CompareAndSwap, LocalProtocolError, LruCache, Remove, ScopedStore, Write
from hansa.model.fast_dataclass import quick

from hansa_matrix.proto.auth_rules.rules import PowerLevelCache
from hansa_matrix.proto.auth_rules.state_keys import ACL_KEY, CREATE_KEY, MEMBER
from hansa_matrix.proto.canonical_json import copy_compact
from hansa_matrix.proto.event import MAX_DEPTH, Pdu, StateKey
from hansa_matrix.proto.ids import domain_of
from hansa_matrix.proto.room_versions import VERSIONS, RoomVersion
from hansa_matrix.proto.servers.policy_server import POLICY_KEY, PolicyServer, policy_server
from hansa_matrix.proto.servers.server_acl import parse_acl
from hansa_matrix.proto.state_res.v2 import MissingAuthEvents, resolve_steps
from hansa_matrix.rooms.access.visible_events import places_of, shown_of
from hansa_matrix.rooms.event_store import EventStore, RoomEvents, Status, StoredEvent
from hansa_matrix.rooms.redactions import PendingRedactions
from hansa_matrix.rooms.state.holes import Holes
from hansa_matrix.rooms.state.state_groups import StateGroups, StateIds
from hansa_matrix.rooms.third_party_check import THIRD_PARTY_OK

_MERGED = 64
#: Member events that are read at a time.
_PEOPLE = 50
_T = TypeVar("_T")


#: So many predecessors that we lack are remembered; only an event that comes after all hope needs them.
BEHIND = 200
#: Gaps of one room that are remembered, the last ones.
MAX_GAPS = 100
#: Forward extremities that are remembered, and states of branches that are resolved with every event.
MAX_ENDS, MAX_BRANCHES = 200, 20
#: The end of our count.
MAX_COUNT = 2**63 - 1
#: Our count where we join a room, and what it leaves out for what lies in a gap.
FIRST, GAP = 2**52, 2**32


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class RoomHead:
    """The part of a room that changes with every event: forward extremities (id -> group after it), the
    current state's group, the greatest depth that an event claims.

    ``last`` is the greatest depth that this server counted, which no sender chooses: a new event is one
    deeper than all before it, and a backfilled one is less deep than the events that follow it. ``floor`` is
    the depth of this server's join: a less deep event is history from before it.

    ``behind`` are missing events that stored events follow: if one of them arrives, it is not an extremity.
    ``below`` has an upper bound of the depth of each.

    ``gaps`` are events that were streamed first after one whose past is missing: the events between are not
    stored. ``gap``: the next event is one.
    """

    extremities: Mapping[str, int] = field(default_factory=dict)
    group: int = 0
    depth: int = 0
    behind: tuple[str, ...] = ()
    join_depth: int = 0
    last: int = 0
    below: Mapping[str, int] = field(default_factory=dict)
    gaps: tuple[str, ...] = ()
    gap: bool = False

    @property
    def next_depth(self) -> int:
        """Returns the depth of an event that follows all others."""
        return min(self.depth + 1, MAX_DEPTH)

    def is_before_join(self, event_id: str) -> bool:
        """True if a missing event is history from before the join of this server."""
        return event_id in self.behind and self.below.get(event_id, 0) <= self.join_depth


class _CachedState(Generic[_T]):
    """A value read from one event of the current state, and read again when another event has taken its
    place.
    """

    def __init__(self, key: StateKey, read: Callable[[Mapping[str, Any]], _T | None]) -> None:
        self._key = key
        self._read = read
        #: The state group it was read in, the event, and what that says.
        self._found: tuple[int, str | None, _T | None] = (-1, None, None)

    async def of(self, room: MatrixRoom) -> _T | None:
        """None where there is no such event, or none that says anything."""
        group, known, value = self._found
        if group != room.head.group:
            group = room.head.group
            state = await room.groups.load(group)
            if state.get(self._key) != known:
                known = state.get(self._key)
                event = (await room.events_of(state, [self._key])).get(self._key)
                value = self._read(event.content) if event is not None else None
            self._found = group, known, value
        return value


class MatrixRoom:
    """A room in memory. Only its one writer changes ``head``.

    Every commit of its writer compares the room's row with ``kept``, the row that memory was read from. Where
    it fails, for whatever reason, memory may be older than the store: the room is ``stale``, and nothing
    happens in it before ``fresh``.
    """

    def __init__(self, room_id: str, version: RoomVersion, store: ScopedStore, events: EventStore) -> None:
        self.room_id = room_id
        self.version = version
        self.kept: bytes | None = None
        #: How often the row was committed, which makes each another one.
        self.commits = 0
        self.stale = False
        #: True if its events have depths of this server's own count.
        self.counted = True
        self._store = store
        self._reading = asyncio.Lock()
        self.head = RoomHead()
        self.groups = StateGroups(room_id, store, 0)
        self.events = RoomEvents(events, room_id)
        self.levels = PowerLevelCache(8)
        self._acl = _CachedState(ACL_KEY, parse_acl)
        self._policy = _CachedState(POLICY_KEY, policy_server)
        #: The resolved states of branches, by their groups; the states are kept or read by ``groups``.
        self._merged: LruCache[frozenset[int], int] = LruCache(_MERGED)
        #: How many of the events that come next are looked for before they are taken for new.
        self.doubted = 0
        self.awaited = PendingRedactions(room_id)
        self.holes = Holes(room_id)
        #: False once our last person left: we are then as good as strangers.
        self.resident = True
        #: True if a local user has been in it: from then on its events are a timeline.
        self.attended = False
        #: Joins by which this server came back after no local user was there: events follow each other up to
        #: one.
        self.returns: tuple[str, ...] = ()

    def room_writes(
        self, head: RoomHead, *, resident: bool = True, attended: bool | None = None
    ) -> list[Write]:
        """The writes that keep the room at ``head``, with the state groups that were made: a ``Conflict``
        where another writer has kept it elsewhere. After they are committed, ``committed``.
        """
        body = {
            "version": self.version.id,
            "extremities": dict(head.extremities),
            "group": head.group,
            "last_group": self.groups.last,
            "depth": head.depth,
            "behind": head.behind,
            "floor": head.join_depth,
            "last": head.last,
            "below": {e: head.below[e] for e in head.behind if e in head.below},
            "resident": resident,
            "attended": self.attended if attended is None else attended,
            "returns": self.returns,
            "gaps": head.gaps,
            "gap": head.gap,
            "commits": self.commits + 1,
        }
        row = CompareAndSwap("room", (self.room_id,), self.kept, orjson.dumps(body))
        return [row, *self.groups.drafts()]

    def unchanged_writes(self) -> list[Write]:
        """The write that only compares: for what is kept beside the room's row, in parts. Nothing where the
        room has no row yet.
        """
        return (
            [CompareAndSwap("room", (self.room_id,), self.kept, self.kept)] if self.kept is not None else []
        )

    def remove(self) -> Remove:
        """Returns the write that ends the room: a ``Conflict`` if it was joined meanwhile."""
        return Remove("room", (self.room_id,), self.kept)

    def committed(self, writes: Sequence[Write]) -> None:
        """Writes of ``room_writes`` are durable."""
        for write in writes:
            if isinstance(write, CompareAndSwap):
                self.kept = copy_compact(write.body)
                self.commits += 1
        self.groups.committed()

    async def fresh(self, attend: Callable[[StateIds], Awaitable[None]]) -> None:
        """Make memory what the store holds, if a commit failed since it was read; ``attend`` takes up its
        people. Raises ``StoreFault``, and the room is stale as before.
        """
        if not self.stale:
            return
        async with self._reading:
            if not self.stale:
                return
            row = await self._store.get("room", (self.room_id,))
            if row is None:
                raise LocalProtocolError(f"room {self.room_id} is not in the store")
            await self.awaited.load(self._store)
            await self.holes.load(self._store)
            await self.groups.catch_up()
            self.forget()
            self.events.forget()
            self._load_body(row.body)
            await attend(await self.state())
            self.stale = False

    @classmethod
    def load(cls, room_id: str, body: bytes, store: ScopedStore, events: EventStore) -> MatrixRoom:
        """A room out of its row."""
        room = cls(room_id, VERSIONS[orjson.loads(body)["version"]], store, events)
        room._load_body(body)
        return room

    def _load_body(self, body: bytes) -> None:
        data = orjson.loads(body)
        self.kept, self.counted = body, "last" in data
        self.head = RoomHead(
            extremities=data["extremities"],
            group=data["group"],
            depth=data["depth"],
            behind=tuple(data.get("behind", ())),
            join_depth=data.get("floor", 0),
            last=data.get("last", data["depth"]),
            below=data.get("below", {}),
            gaps=tuple(data.get("gaps", ())),
            gap=data.get("gap", False),
        )
        self.commits = data.get("commits", 0)
        self.groups.last = max(self.groups.last, data["last_group"])
        self.resident = data["resident"]
        self.attended = data.get("attended", False)
        self.returns = tuple(data.get("returns", ()))

    @property
    def timeline_breaks(self) -> tuple[str, ...]:
        """Events that do not follow what was told before them: see ``returns`` and ``RoomHead.gaps``."""
        return (*self.returns, *self.head.gaps) if self.head.gaps else self.returns

    async def state(self) -> dict[StateKey, str]:
        """The current state, by event ids."""
        return await self.groups.load(self.head.group)

    async def allows(self, server: str) -> bool:
        """True if the room's server ACL lets a server take part; without an ACL every server may."""
        acl = await self._acl.of(self)
        return acl is None or acl.allows(server)

    async def policy(self) -> PolicyServer | None:
        """The policy server that the current state names, whether it is in the room or not."""
        return await self._policy.of(self)

    async def events_of(self, state: StateIds, keys: Iterable[StateKey]) -> dict[StateKey, Pdu]:
        """The events of some keys of a state; the create event always."""
        wanted = {key: state[key] for key in {*keys, CREATE_KEY} if key in state}
        stored = await self.events.load(wanted.values(), self.version)
        return {key: stored[event_id].pdu for key, event_id in wanted.items() if event_id in stored}

    async def shown_of(self, state: StateIds, keys: Iterable[StateKey] | None = None) -> dict[StateKey, Pdu]:
        """The events of some keys of a state, or of all, as people may see them (``visible_events``)."""
        return await shown_of(state, keys, self.readable, self.groups, self.version)

    async def places_of(
        self, state: StateIds, keys: Iterable[StateKey] | None = None
    ) -> dict[StateKey, StoredEvent]:
        """As ``shown_of``, with the places of the events in the room."""
        return await places_of(state, keys, self.readable, self.groups, self.version)

    async def shown_in_steps(
        self, state: StateIds, keys: Sequence[StateKey]
    ) -> AsyncIterator[dict[StateKey, Pdu]]:
        """As ``shown_of``, some keys at a time: 500 events may take 900 MB."""
        for at in range(0, len(keys), _PEOPLE):
            yield await self.shown_of(state, keys[at : at + _PEOPLE])

    async def readable(self, event_ids: Iterable[str]) -> Mapping[str, StoredEvent]:
        """Stored events for who reads them: see ``RoomEvents.readable``."""
        return await self.events.readable(event_ids, self.version)

    async def judged(self, events: Sequence[StoredEvent]) -> list[StoredEvent]:
        """Events as they may be read now, in order."""
        if self.events.is_ungoverned:
            return list(events)
        return list((await self.events.recheck_policies({one.pdu.event_id: one for one in events})).values())

    async def joined_users_of(self, server: str, first: str = "") -> AsyncIterator[str]:
        """The user ids of a server's joined people, ``first`` before the others if it is one, some read at a
        time: a room may have thousands of them.
        """
        state = await self.state()
        users = [key[1] for key in state if key[0] == MEMBER and domain_of(key[1]) == server]
        users.sort(key=lambda user: (user != first, user))
        async for user in self.joined_of(state, users):
            yield user

    async def joined_of(self, state: StateIds, users: Sequence[str]) -> AsyncIterator[str]:
        """Those of some people who are joined by a state, in their order."""
        for at in range(0, len(users), _PEOPLE):
            keys = [(MEMBER, user) for user in users[at : at + _PEOPLE]]
            members = await self.events_of(state, keys)
            for key in keys:
                if key in members and members[key].membership == "join":
                    yield key[1]

    async def state_events(self, state: StateIds) -> list[Pdu]:
        """Every event of a state."""
        stored = await self.events.load(state.values(), self.version)
        return [one.pdu for one in stored.values()]

    async def resolve_state(
        self, groups: Iterable[int], draft: Callable[[str], StoredEvent | None] = lambda _: None
    ) -> tuple[int, dict[StateKey, str]]:
        """The state that several groups resolve to, and a group that holds exactly it (0: none yet).

        ``draft`` gives events of a turn that is not committed yet.
        """
        several = frozenset(groups)
        if len(several) == 1:
            (group,) = several
            return group, await self.groups.load(group)
        merged = self._merged.get(several)
        if merged is not None:
            return merged, await self.groups.load(merged)
        distinct = sorted(several)
        sets = [await self.groups.load(group) for group in distinct]
        known: dict[str, StoredEvent] = {}

        def fetch(event_id: str) -> Pdu | None:
            stored = known.get(event_id) or draft(event_id) or self.events.at_hand(event_id)
            if stored is None:
                return None
            known[event_id] = stored
            return stored.pdu

        while True:
            steps = resolve_steps(
                self.version, sets, fetch, rejected=_Rejected(known), third_party_ok=THIRD_PARTY_OK
            )
            try:
                state = await _run_with_yields(steps)
                break
            except MissingAuthEvents as missing:
                loaded = await self.events.load(missing.ids, self.version)
                if not loaded:
                    raise
                known.update(loaded)
        for group, one in zip(distinct, sets, strict=True):
            if one == state:
                self._cache_resolution(several, group)
                return group, one
        return 0, state

    async def joined(
        self, groups: Iterable[int], parent: int, draft: Callable[[str], StoredEvent | None]
    ) -> tuple[int, dict[StateKey, str]]:
        """As ``resolve_state``, with a group in any case: a new one is a difference to ``parent``."""
        several = frozenset(groups)
        group, state = await self.resolve_state(several, draft)
        if group or several == {0}:
            return group, state
        group = self.groups.grow(parent, await self.groups.load(parent), state)
        self._cache_resolution(several, group)
        return group, state

    def _cache_resolution(self, several: frozenset[int], group: int) -> None:
        """The branches of a fork meet in every event that follows: what they resolve to does not change."""
        self._merged.put(several, group)

    def forget(self) -> None:
        """Drop the groups that are not durable: the turn that made them was not committed."""
        if self.groups.forget():
            self._merged.clear()


async def _run_with_yields(steps: Generator[None, None, dict[StateKey, str]]) -> dict[StateKey, str]:
    """The result of a resolution that lets others go on between its steps."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            state: dict[StateKey, str] = done.value
            return state
        await asyncio.sleep(0)


class _Rejected:
    """The rejected among the events that a resolution has seen."""

    def __init__(self, known: Mapping[str, StoredEvent]) -> None:
        self._known = known

    def __contains__(self, event_id: object) -> bool:
        stored = self._known.get(event_id) if isinstance(event_id, str) else None
        return stored is not None and stored.status is Status.REJECTED


def advance_head(
    head: RoomHead,
    pdu: Pdu,
    after: int,
    group: int,
    last: int,
    *,
    behind_holes: Collection[str] = (),
    followed: bool = False,
) -> RoomHead:
    """The head once an event is in the DAG, with ``group`` as the current state and ``last`` as the depth
    that we count for it: a forward extremity unless what follows it came before it. It follows its
    ``prev_events`` and what is ``behind_holes`` among them. Where it is known to be ``followed`` the
    extremities stay as they are.
    """
    behind = head.behind
    if pdu.event_id in behind:
        behind = tuple(e for e in behind if e != pdu.event_id)
    left = head.extremities
    if not followed:
        left = {e: g for e, g in left.items() if e not in pdu.prev_events and e not in behind_holes}
        if behind is head.behind or not left:
            left[pdu.event_id] = after
    # Made with every event: ``replace`` takes four times as long.
    return RoomHead(
        extremities=left,
        group=group,
        depth=max(head.depth, pdu.depth),
        behind=behind,
        join_depth=head.join_depth,
        last=max(head.last, last),
        below=head.below,
        gaps=head.gaps,
        gap=head.gap,
    )


def bound_extremities(head: RoomHead) -> RoomHead:
    """The head with no more ends, and branches, than each further event may cost: where there are more, all
    stand at the current state, in which every one of them was counted, as if an event had tied them together.
    The oldest ends are left to others to follow.
    """
    ends = head.extremities
    if len(ends) <= MAX_ENDS and len(set(ends.values())) <= MAX_BRANCHES:
        return head
    return replace(head, extremities=dict.fromkeys(list(ends)[-MAX_ENDS:], head.group))


def advance_with_gap(head: RoomHead, pdu: Pdu, missing: Collection[str], depth: int = 0) -> RoomHead:
    """The head once an event is in the DAG, at a depth by our count, of which ``missing`` predecessors are
    not.
    """
    behind = dict.fromkeys(e for e in (*head.behind, *missing) if e != pdu.event_id)
    kept = tuple(behind)[-BEHIND:]
    below = {e: min(depth, head.below.get(e, depth)) for e in missing}
    below |= {e: at for e, at in head.below.items() if e in behind and e not in below}
    return replace(head, behind=kept, below=below)
