"""State as groups: each a difference to its parent, now and then whole, so that reading is bounded and a
state event costs the same however large the room is.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from sys import intern

import orjson
from hansa import Insert, LocalProtocolError, Row, ScopedStore, pieces

from hansa_matrix.proto.event import StateKey
from hansa_matrix.proto.state_res.conflicts import state_delta

StateIds = Mapping[StateKey, str]
#: ``(type, state key, event id)``; None where the piece of state is gone.
Delta = tuple[str, str, str | None]

#: States in memory per room: so many at most, and no more than so many entries together beyond the last few,
#: which the branches of a fork need.
_MAX_CACHED, _MAX_ENTRIES, _LAST = 100, 20_000, 8
#: A group is stored whole after this many differences, or as many as it has entries.
_CHAIN = 100
#: Entries in one row: with the longest ids that there can be they stay below a body's 1 MiB.
_ROW = 1500
#: Entries of differences that go into the commit of what stands on them: more are kept before it, in pieces.
_AHEAD = 10_000
#: Rows that are read together, and for one question about the values of keys.
_PAGE_SIZE, MAX_ROWS = 100, 20_000


class StateGroups:
    """The state groups of one room. Group 0 is the empty state before the create event.

    A number means one state for ever. ``last`` is the greatest that was given: it does not go back where a
    turn was not committed, because nobody may know that it was not.
    """

    def __init__(self, room_id: str, store: ScopedStore, last: int) -> None:
        self._room_id = room_id
        self._store = store
        self.last = last
        self._kept: OrderedDict[int, dict[StateKey, str]] = OrderedDict({0: {}})
        self._length: dict[int, int] = {0: 0}
        self._entries = 0
        #: Parents and differences of the groups that are not durable yet, however many a turn makes.
        self._drafted: dict[int, tuple[int, Sequence[Delta]]] = {}
        #: Entries of these differences.
        self._weight = 0

    async def load(self, group: int) -> dict[StateKey, str]:
        """A whole state. It is shared: do not change it."""
        kept = self._kept.get(group)
        if kept is not None:
            self._kept.move_to_end(group)
            return kept
        chain: list[dict[StateKey, str | None]] = []
        at = group
        base: dict[StateKey, str] = {}
        while at:
            if at in self._kept:
                base = self._kept[at]
                break
            parent, delta = self._drafted.get(at) or await self._read_group(at)
            chain.append({(intern(t), k): e for t, k, e in delta})
            at = parent
        state = dict(base)
        for delta_state in reversed(chain):
            for key, event_id in delta_state.items():
                if event_id is None:
                    state.pop(key, None)
                else:
                    state[key] = event_id
        self._cache_state(group, state, len(chain))
        return state

    async def _read_group(self, group: int) -> tuple[int, Sequence[Delta]]:
        row = await self._store.get("state_group", (self._room_id, group))
        if row is None:
            raise LocalProtocolError(f"state group {group} of {self._room_id} is gone")
        return _parse_group(row)

    async def values(self, wanted: Mapping[StateKey, int]) -> dict[StateKey, str]:
        """The event of each key in a group of its own. No whole state is made for it: every row is read once
        for all keys, ``MAX_ROWS`` at most. A key that has no event there, or none in these rows, is left
        out; so is what stands on a row that is gone.
        """
        found: dict[StateKey, str] = {}
        waiting: dict[int, set[StateKey]] = {}
        for key, group in wanted.items():
            waiting.setdefault(group, set()).add(key)
        line = [-group for group in waiting]
        heapq.heapify(line)
        page: dict[int, Row] = {}
        for _ in range(MAX_ROWS):
            if not line:
                break
            group = -heapq.heappop(line)
            keys = waiting.pop(group)
            kept = self._kept.get(group)
            if kept is not None:
                found |= {key: kept[key] for key in keys if key in kept}
                continue
            drafted = self._drafted.get(group)
            if drafted is None and group not in page:
                page = await self._read_chain(group)
                if group not in page:  # it is gone
                    continue
            parent, delta = drafted or _parse_group(page[group])
            for type_, state_key, event_id in delta:
                if (key := (type_, state_key)) in keys:
                    keys.discard(key)
                    if event_id is not None:
                        found[key] = event_id
            if not keys:
                continue
            others = waiting.get(parent)
            if others is None:
                heapq.heappush(line, -parent)
                waiting[parent] = keys
            elif len(others) < len(keys):
                keys |= others
                waiting[parent] = keys
            else:
                others |= keys
        return found

    async def _read_chain(self, group: int) -> dict[int, Row]:
        """The rows of a group and of those before it."""
        rows = await self._store.scan(
            "state_group", equal=(self._room_id,), after=group + 1, limit=_PAGE_SIZE, reverse=True
        )
        return {int(row.key[1]): row for row in rows}

    def _cache_state(self, group: int, state: dict[StateKey, str], length: int) -> None:
        self._uncache_state(group)
        self._kept[group] = state
        self._length[group] = length
        self._entries += len(state)
        while len(self._kept) > _MAX_CACHED or (self._entries > _MAX_ENTRIES and len(self._kept) > _LAST):
            oldest = next(iter(self._kept))
            if oldest in {0, group}:
                self._kept.move_to_end(oldest)
            else:
                self._uncache_state(oldest)

    def _uncache_state(self, group: int) -> None:
        self._entries -= len(self._kept.pop(group, ()))
        self._length.pop(group, None)

    def grow(self, parent: int, before: StateIds, state: dict[StateKey, str]) -> int:
        """A new group holding ``state``, to be stored as its difference to ``parent``, which holds
        ``before``. A difference that is too long for a row becomes a chain of groups.
        """
        length = self._length.get(parent, 0) + 1
        if length > max(_CHAIN, len(state)):
            parent, before, length = 0, {}, 1
        return self._write_group(
            parent, length, state, [(*key, state.get(key)) for key in state_delta(state, before)]
        )

    def after(self, parent: int, before: StateIds, key: StateKey, event_id: str) -> int:
        """As ``grow``, by one event: nothing is compared, which in a room of thousands costs more than all
        else that a state event does.
        """
        state = {**before, key: event_id}
        length = self._length.get(parent, 0) + 1
        if length > max(_CHAIN, len(state)):
            return self.grow(parent, before, state)
        return self._write_group(parent, length, state, [(*key, event_id)])

    def _write_group(
        self,
        parent: int,
        length: int,
        state: dict[StateKey, str],
        delta: Sequence[Delta],
    ) -> int:
        for at in range(0, max(1, len(delta)), _ROW):
            self.last += 1
            self._drafted[self.last] = parent, delta[at : at + _ROW]
            parent = self.last
            length += at > 0
        self._weight += len(delta)
        self._cache_state(self.last, state, length)
        return self.last

    def drafts(self) -> list[Insert]:
        """The writes of every group that was made since the last commit: for the next one, whatever became of
        the event that it was made for. Later events may stand on it.
        """
        return [
            Insert("state_group", (self._room_id, group), orjson.dumps(drafted))
            for group, drafted in self._drafted.items()
        ]

    async def ahead(self) -> None:
        """Make much that was made durable before the commit that names it. Nobody looks at a group that no
        row names, and its number is not given again: what a crash leaves of that goes with the room. Raises
        ``Conflict`` where another writer gave the same numbers.
        """
        if self._weight <= _AHEAD:
            return
        made = list(self._drafted)
        for piece in pieces(self.drafts()):
            await self._store.commit(piece)
        for group in made:
            self._drafted.pop(group, None)
        self._weight = sum(len(delta) for _, delta in self._drafted.values())

    def forget(self) -> bool:
        """Drop what was made and not committed; whether there was any. Its numbers are not given again."""
        found = bool(self._drafted)
        for group in self._drafted:
            self._uncache_state(group)
        self.committed()
        return found

    def committed(self) -> None:
        """``drafts`` are durable."""
        self._drafted.clear()
        self._weight = 0

    async def catch_up(self) -> None:
        """Give only numbers from now on that are greater than every one in the store."""
        rows = await self._store.scan("state_group", equal=(self._room_id,), limit=1, reverse=True)
        self.last = max(self.last, int(rows[0].key[1]) if rows else 0)


def _parse_group(row: Row) -> tuple[int, Sequence[Delta]]:
    """A group's parent, and its difference to that."""
    parent, delta = orjson.loads(row.body)
    return parent, delta
