"""The counts of events that a user has not read, by thread. SPEC: client-server API, "Receiving
notifications", "Marking notifications as read".
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hansa import Membership, NetworkContext

from hansa_matrix.bounds.generations import Generations
from hansa_matrix.client_api.account.account_data import IGNORED, PUSH_RULES, AccountData
from hansa_matrix.client_api.account.push_rules import PushRuleEndpoints
from hansa_matrix.client_api.rooms.threads import MAIN, find_thread_roots
from hansa_matrix.local.client_stream import StreamItem
from hansa_matrix.proto.auth_rules.state_keys import CREATE_KEY, MEMBER, POWER_LEVELS_KEY
from hansa_matrix.proto.push_rules import PushContext, PushDecision, evaluate_rules
from hansa_matrix.proto.state_content import display_name
from hansa_matrix.rooms.access.user_visibility import drop_ignored
from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.redactions import REDACTION, target_of
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.typing_and_receipts import PRIVATE, TypingAndReceipts

_MAX_CACHED = 20_000
#: More is not counted: a client shows "99+" long before.
_MAX_COUNT = 500
#: Member events of a person that are looked through for the one by which they came in.
_MAX_MEMBER_EVENTS = 100
#: Rules that are asked of events without a pause.
_RULES_PER_STEP = 1000
#: Types that a user sends without having read the room: a changed name goes to every room at once.
_NOT_A_RECEIPT = frozenset({MEMBER, REDACTION})


@dataclass(frozen=True, slots=True)
class Count:
    """The number of events that notify a user, of those with a highlight, and the position of the first."""

    notifications: int = 0
    highlights: int = 0
    first: int = 0

    def counts_json(self) -> dict[str, int]:
        """As a sync has it."""
        return {"notification_count": self.notifications, "highlight_count": self.highlights}

    def __add__(self, other: Count) -> Count:
        first = min(self.first or other.first, other.first or self.first)
        return Count(self.notifications + other.notifications, self.highlights + other.highlights, first)


@dataclass(frozen=True, slots=True)
class Reads:
    """The positions up to which a user has read: the whole room, and each thread for itself."""

    room: int = 0
    threads: Mapping[str, int] = field(default_factory=dict)

    def read_upto(self, thread: str) -> int:
        """Of one thread."""
        return max(self.room, self.threads.get(thread, 0))


@dataclass(frozen=True, slots=True)
class UnreadCounts:
    """By thread what is after the event read last there, of the events after ``since`` and up to ``upto``."""

    reads: Reads = field(default_factory=Reads)
    since: int = 0
    upto: int = 0
    threads: Mapping[str, Count] = field(default_factory=dict)

    @property
    def main(self) -> Count:
        """The count of events outside threads."""
        return self.threads.get(MAIN, Count())

    @property
    def all(self) -> Count:
        """The count of all events, in threads and outside."""
        return sum(self.threads.values(), Count())


class UnreadCounter:
    """Counted on from where it was counted last."""

    def __init__(
        self, own: LocalServer, data: AccountData, rules: PushRuleEndpoints, signals: TypingAndReceipts
    ) -> None:
        self._ctx: NetworkContext = own.ctx
        self._news = own.memberships.news
        self._data = data
        self._rules = rules
        self._signals = signals
        self._positions: Generations[str, int] = Generations(_MAX_CACHED)
        self._counts: Generations[tuple[str, str], UnreadCounts] = Generations(_MAX_CACHED)
        data.on_changed(self._account_data_changed)

    def _account_data_changed(self, user: str, type_: str) -> None:
        if type_ in {PUSH_RULES, IGNORED}:
            self.forget_user(user)

    def forget_user(self, user: str) -> None:
        """Forgets the counts of a user whose rules or ignored users changed."""
        self._counts.revoke_owner(user)

    async def get_counts(self, user: str, room: MatrixRoom, upto: int) -> UnreadCounts:
        """Returns the counts of events in a room that a user has not read."""
        key, began = (user, room.room_id), self._counts.began()
        reads = await self.get_reads(user, room.room_id)
        known = self._counts.get(key)
        if known is None or known.upto > upto or _is_behind(known.reads, reads):
            known = await self._start_count(user, room, reads)
        elif known.reads != reads:
            known = await self._apply_reads(user, room, known, reads)
        items = await self._news.last_items(room.room_id, upto + 1, _MAX_COUNT, since=known.upto)
        if items:
            events = await self._load_events(room, items)
            if await self._redacts_counted(room, events, known):
                known = await self._start_count(user, room, reads)
                items = await self._news.last_items(room.room_id, upto + 1, _MAX_COUNT, since=known.upto)
                events = await self._load_events(room, items)
            threads = await self._count_from(user, room, events, reads, known.threads)
            known = replace(known, threads=threads, upto=items[-1].position if items else known.upto)
        self._counts.put(key, user, known, began)
        return known

    async def _start_count(self, user: str, room: MatrixRoom, reads: Reads) -> UnreadCounts:
        since = max(reads.room, await self._join_position(user, room))
        return UnreadCounts(reads, since, since)

    async def _apply_reads(
        self, user: str, room: MatrixRoom, known: UnreadCounts, reads: Reads
    ) -> UnreadCounts:
        """The counts once more was read: those threads are counted again of which something is left."""
        moved = {t for t in known.threads if reads.read_upto(t) != known.reads.read_upto(t)}
        kept = {t: count for t, count in known.threads.items() if t not in moved}
        if moved:
            since = max(known.since, min(map(reads.read_upto, moved)))
            items = await self._news.last_items(room.room_id, known.upto + 1, _MAX_COUNT, since=since)
            events = await self._load_events(room, items)
            kept = await self._count_from(user, room, events, reads, kept, only=moved)
        return replace(known, reads=reads, since=max(known.since, reads.room), threads=kept)

    async def _redacts_counted(
        self, room: MatrixRoom, events: Sequence[tuple[int, StoredEvent]], known: UnreadCounts
    ) -> bool:
        """True if any of some events redacts one that may have been counted."""
        for _, one in events:
            target = target_of(one.pdu, room.version) if one.pdu.type == REDACTION and one.shown else None
            if target is None:
                continue
            if known.since < await self._position_of(room.room_id, target) <= known.upto:
                return True
        return False

    async def _load_events(
        self, room: MatrixRoom, items: Sequence[StreamItem]
    ) -> list[tuple[int, StoredEvent]]:
        """Events with their positions, in order."""
        loaded = await room.readable([item.ref for item in items])
        return [(item.position, loaded[item.ref]) for item in items if item.ref in loaded]

    async def get_reads(self, user: str, room_id: str) -> Reads:
        """Returns how far a user has read, by public or private receipts, whichever is further."""
        threads: dict[str, int] = {}
        for (_, thread), (event_id, _) in (await self._signals.get_receipts(room_id, user)).items():
            name = thread.removeprefix(PRIVATE)
            threads[name] = max(threads.get(name, 0), await self._position_of(room_id, event_id))
        return Reads(threads.pop("", 0), threads)

    async def is_behind(self, user: str, room_id: str, thread: str, event_id: str) -> bool:
        """True if the user's stored receipt of a thread already names a later event."""
        known = (await self._signals.get_receipts(room_id, user)).get((user, thread))
        if known is None:
            return False
        return 0 < await self._position_of(room_id, event_id) < await self._position_of(room_id, known[0])

    async def _position_of(self, room_id: str, event_id: str) -> int:
        """Where an event is in the stream, which it keeps."""
        known, began = self._positions.get(event_id), self._positions.began()
        if known is None:
            known = await self._news.position_of(room_id, event_id)
            if known:
                self._positions.put(event_id, room_id, known, began)
        return known

    async def _join_position(self, user: str, room: MatrixRoom) -> int:
        """Returns the position of the user's join: earlier events need not be read. A changed name is not a
        join.
        """
        event_id = (await room.state()).get((MEMBER, user))
        position = 0
        for _ in range(_MAX_MEMBER_EVENTS):
            if event_id is None:
                break
            position = await self._position_of(room.room_id, event_id)
            one = (await room.events.load([event_id], room.version)).get(event_id)
            if one is None or not one.before:
                break
            state = await room.groups.load(one.before)
            before = (await room.events_of(state, [(MEMBER, user)])).get((MEMBER, user))
            event_id = before.event_id if before is not None and before.membership == "join" else None
        return position

    async def _count_from(
        self,
        user: str,
        room: MatrixRoom,
        events: Sequence[tuple[int, StoredEvent]],
        reads: Reads,
        counts: Mapping[str, Count],
        *,
        only: Collection[str] | None = None,
    ) -> dict[str, Count]:
        """Counts with what follows: what one says oneself, one has read up to there."""
        found = dict(counts)
        heard = await self.evaluate_events(user, room, [one for _, one in events])
        in_thread = await find_thread_roots(room, [one for _, one in events])
        for position, one in events:
            thread = in_thread[one.pdu.event_id]
            if only is not None and thread not in only:
                continue
            if one.pdu.sender == user and one.pdu.type not in _NOT_A_RECEIPT:
                found.pop(thread, None)
            verdict = heard.get(one.pdu.event_id)
            if verdict is None or not verdict.notify or position <= reads.read_upto(thread):
                continue
            if sum(count.notifications for count in found.values()) < _MAX_COUNT:
                found[thread] = found.get(thread, Count()) + Count(1, int(verdict.highlight), position)
        return found

    async def evaluate_events(
        self, user: str, room: MatrixRoom, events: Sequence[StoredEvent]
    ) -> dict[str, PushDecision]:
        """Evaluates a user's push rules for the events of other users that are still shown."""
        others = [
            e for e in drop_ignored(events, await self._data.ignored_users(user)) if e.pdu.sender != user
        ]
        others = [one for one in others if one.shown and not one.redacted]
        if not others:
            return {}
        rules = await self._rules.rules_of(user)
        state = await room.events_of(await room.state(), [POWER_LEVELS_KEY, (MEMBER, user)])
        member, view = state.get((MEMBER, user)), self._ctx.get_view(room.room_id)
        name = display_name(member.content) if member is not None else None
        situation = PushContext(
            user=user,
            name=name or "",
            members=sum(1 for p in view.people.values() if p.membership is Membership.JOIN) if view else 0,
            levels=room.levels(state[CREATE_KEY], state.get(POWER_LEVELS_KEY), room.version),
        )
        step = max(1, _RULES_PER_STEP // max(1, sum(map(len, rules.values()))))
        found: dict[str, PushDecision] = {}
        for at in range(0, len(others), step):
            if at:
                await asyncio.sleep(0)  # others go on while very many rules are asked
            found |= {
                one.pdu.event_id: evaluate_rules(rules, one.pdu, situation) for one in others[at : at + step]
            }
        return found


def _is_behind(before: Reads, now: Reads) -> bool:
    """True if a user has read less than before: a receipt of a thread was dropped, or names an older
    event.
    """
    return now.room < before.room or any(now.read_upto(t) < before.read_upto(t) for t in before.threads)
