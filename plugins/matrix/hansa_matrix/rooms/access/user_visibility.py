"""The events that a user may read. SPEC: client-server API, "Room History Visibility", "Ignoring Users"."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from hansa_matrix.local.memberships import LocalMembership, LocalMemberships
from hansa_matrix.proto.auth_rules.state_keys import HISTORY_VISIBILITY_KEY, MEMBER
from hansa_matrix.proto.event import StateKey
from hansa_matrix.proto.history_visibility import user_can_read, visibility_of
from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.room import MAX_COUNT, MatrixRoom

#: Old events of one state that are held against the state of their time.
_MAX_OLD = 20


class UserVisibility:
    """The events that one user at a time may read. ``ignored`` returns the users that a user ignores."""

    def __init__(
        self, attendance: LocalMemberships, ignored: Callable[[str], Awaitable[frozenset[str]]]
    ) -> None:
        self._attendance = attendance
        self._ignored = ignored

    async def filter_visible(
        self, user: str, room: MatrixRoom, events: Sequence[StoredEvent]
    ) -> list[StoredEvent]:
        """Returns those of some events of a room that a user may read, in order."""
        stay = self._attendance.membership_of(user, room.room_id)
        until = await self._visible_until(stay, room)
        memo: dict[int, tuple[str, str]] = {}
        return [
            one
            for one in await room.judged(events)
            if one.shown and await self._can_see(user, room, one, until, memo)
        ]

    async def filter_bundled(
        self, user: str, room: MatrixRoom, event_ids: Iterable[str]
    ) -> dict[str, StoredEvent]:
        """Returns those of some events that a user sees bundled with another: those that they may read, from
        senders that they do not ignore. Everything that is bundled with an event is made of these alone.
        """
        loaded = await room.events.load(event_ids, room.version)
        if not loaded:
            return {}
        seen = await self.filter_visible(user, room, list(loaded.values()))
        return {one.pdu.event_id: one for one in drop_ignored(seen, await self._ignored(user))}

    async def of_state(self, user: str, room: MatrixRoom, events: Sequence[StoredEvent]) -> set[str]:
        """Returns the ids of those events of one state that a user may read as they happened, not only for
        their effect on the room now. These are events since the reader joined, and in a shared room events
        since it is shared; of the older ones the newest 20 are looked at.
        """
        state = await room.state()
        keys = (HISTORY_VISIBILITY_KEY, (MEMBER, user))
        placed = await room.events.load([state[key] for key in keys if key in state], room.version)
        opened, own = (placed.get(state.get(key, "")) for key in keys)
        value = visibility_of(opened.pdu if opened is not None else None)
        joined = own is not None and own.pdu.membership == "join"
        since = own.depth if own is not None and joined else MAX_COUNT
        if value == "world_readable" or (value == "shared" and joined):
            since = min(since, opened.depth + 1 if opened is not None else 0)
        old = sorted((one for one in events if one.depth < since), key=lambda one: -one.depth)
        read = await self.filter_visible(user, room, old[:_MAX_OLD]) if old else []
        return {one.pdu.event_id for one in (*read, *(one for one in events if one.depth >= since))}

    async def _visible_until(self, stay: LocalMembership | None, room: MatrixRoom) -> int | None:
        """Returns the depth, by this server's count, up to which a user may read a room's shared past: None
        for a user who was never in it.
        """
        if stay is None or stay.membership in {"invite", "knock"}:
            return None
        if stay.membership == "join":
            return MAX_COUNT
        left = (await room.events.load([stay.event_id], room.version)).get(stay.event_id)
        return left.depth if left is not None and await self.was_in(room, left) else None

    @staticmethod
    async def was_in(room: MatrixRoom, left: StoredEvent) -> bool:
        """True if the user of a member event was in the room before it."""
        key = (MEMBER, left.pdu.state_key or "")
        member = (await room.events_of(await room.groups.load(left.before), [key])).get(key)
        return member is not None and member.membership == "join"

    async def _can_see(
        self,
        user: str,
        room: MatrixRoom,
        one: StoredEvent,
        until: int | None,
        memo: dict[int, tuple[str, str]],
    ) -> bool:
        if one.before not in memo:
            state = await room.groups.load(one.before)
            memo[one.before] = await self._state_at(room, state, user)
        visibility, membership = memo[one.before]
        readings, memberships = {visibility}, {membership}
        if one.pdu.state_key is not None and one.pdu.key == HISTORY_VISIBILITY_KEY:
            readings.add(visibility_of(one.pdu))
        if one.pdu.state_key == user and one.pdu.type == MEMBER:
            memberships.add(one.pdu.membership or "")
        later = until is not None and one.depth <= until
        return user_can_read(readings, memberships, later=later)

    @staticmethod
    async def _state_at(room: MatrixRoom, state: Mapping[StateKey, str], user: str) -> tuple[str, str]:
        found = await room.events_of(state, [HISTORY_VISIBILITY_KEY, (MEMBER, user)])
        member = found.get((MEMBER, user))
        membership = member.membership if member is not None else None
        return visibility_of(found.get(HISTORY_VISIBILITY_KEY)), membership or ""

    async def is_world_readable(self, room: MatrixRoom) -> bool:
        """True if everybody may read a room in its current state."""
        found = await room.events_of(await room.state(), [HISTORY_VISIBILITY_KEY])
        return visibility_of(found.get(HISTORY_VISIBILITY_KEY)) == "world_readable"


def drop_ignored(events: Iterable[StoredEvent], ignored: frozenset[str]) -> list[StoredEvent]:
    """Returns the events without messages of ignored users; their state events stay."""
    return [one for one in events if one.pdu.state_key is not None or one.pdu.sender not in ignored]
