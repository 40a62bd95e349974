"""The holes of one room within a turn: which state is there, and what becomes of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace

from hansa import Write

from hansa_matrix.proto.event import Pdu
from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.room import MatrixRoom, RoomHead, advance_with_gap
from hansa_matrix.rooms.state.holes import Hole, Why, forget_hole_writes

#: Gives the events of a turn, or of the store.
Load = Callable[[Iterable[str]], Awaitable[dict[str, StoredEvent]]]


class HoleStates:
    """The changes of a room's holes in a turn; None is a hole that is filled."""

    def __init__(self, room: MatrixRoom, load: Load, drafted: Callable[[str], StoredEvent | None]) -> None:
        self._room = room
        self._load = load
        self._drafted_event = drafted
        self.drafted: dict[str, Hole | None] = {}

    def get(self, event_id: str) -> Hole | None:
        """A hole as it stands in the turn. Most rooms have none."""
        if not self.drafted and not self._room.holes.by_id:
            return None
        if event_id in self.drafted:
            return self.drafted[event_id]
        return self._room.holes.by_id[event_id] if event_id in self._room.holes else None

    def every(self) -> list[Hole]:
        """All holes as they stand in the turn."""
        return [hole for e in {**self._room.holes.by_id, **self.drafted} if (hole := self.get(e)) is not None]

    def behind(self, event_ids: Iterable[str]) -> set[str]:
        """Returns the events that the holes among some events follow, through further holes too."""
        found = set[str]()
        if not self.drafted and not self._room.holes.by_id:
            return found
        edge = [hole for hole in map(self.get, event_ids) if hole is not None]
        while edge:
            new = set(edge.pop().prev) - found
            found |= new
            edge += [hole for hole in map(self.get, new) if hole is not None]
        return found

    async def follow(
        self, pdu: Pdu, lacking: Sequence[str], beside: Iterable[int], head: RoomHead
    ) -> tuple[list[int], list[Write], RoomHead]:
        """Where an event follows holes: the groups of the states there, the writes that keep them, and the
        head. ``beside`` are the groups after the other events that it follows.
        """
        groups, writes = list[int](), list[Write]()
        for event_id in lacking:
            for one in await self._holes_without_group(event_id):
                group = await self._assign_group(one, list(beside), head)
                placed = replace(one, group=group, state=None)
                self.drafted[one.event_id] = placed
                writes.append(placed.row())
                if not one.prev:  # what is before it may be had by paging back
                    head = advance_with_gap(head, pdu, [one.event_id], head.last + 1)
            hole = self.get(event_id)
            groups += [hole.group] if hole is not None and hole.group else []
        return groups, writes, head

    async def _holes_without_group(self, event_id: str) -> list[Hole]:
        """A hole and those that it follows, as far as they have no group, the first first."""
        order: list[Hole] = []
        stack, seen = [event_id], set[str]()
        while stack:
            hole = self.get(stack[-1])
            before = [e for e in (hole.prev if hole is not None else ()) if e not in seen and self.get(e)]
            if stack[-1] not in seen and before:
                seen.add(stack[-1])
                stack += before
                continue
            seen.add(stack[-1])
            stack.pop()
            if hole is not None and not hole.group and hole not in order:
                order.append(hole)
        return order

    async def _assign_group(self, hole: Hole, beside: list[int], head: RoomHead) -> int:
        """The state at a hole: what the events before it give, else what servers say, else what was there
        before the events that stand beside it, or is there now.
        """
        room, before = self._room, list[int]()
        placed = await self._load(hole.prev)
        for event_id in hole.prev:
            passed = self.get(event_id)
            if event_id in placed and placed[event_id].after:
                before.append(placed[event_id].after)
            elif passed is not None and passed.group:
                before.append(passed.group)
        if len(before) < len(hole.prev) or not hole.prev:
            if hole.state is not None:
                parent = await room.groups.load(head.group)
                return room.groups.grow(head.group, parent, dict(hole.state))
            before = before or beside or list(head.extremities.values())
        return (await room.joined(before, before[0], self._drafted_event))[0]

    def rejected(self, pdu: Pdu, lacking: Iterable[str]) -> list[Write]:
        """The writes that remember what was rejected for want of holes, to judge it again once they are
        filled.
        """
        writes: list[Write] = []
        for event_id in lacking:
            hole = self.get(event_id)
            if hole is not None:
                self.drafted[event_id] = hole = hole.with_rejected(pdu.event_id)
                writes.append(hole.row())
        return writes

    def fill_writes(self, event_id: str) -> list[Write]:
        """The writes of a hole whose event has its place now."""
        hole = self.get(event_id)
        if hole is None:
            return []
        if hole.rejects:
            self.drafted[event_id] = done = replace(hole, why=Why.FILLED, again=0)
            return [done.row()]
        self.drafted[event_id] = None
        return [hole.delete()]

    def closing(self) -> list[Write]:
        """The writes that forget the holes that are too many."""
        return forget_hole_writes(self._excess_holes())

    def _excess_holes(self) -> list[Hole]:
        added = {e: hole for e, hole in self.drafted.items() if hole is not None}
        if not added:
            return []
        return self._room.holes.excess_holes(added)

    def committed(self) -> None:
        """The turn is committed."""
        gone = [hole.event_id for hole in self._excess_holes()]
        gone += [e for e, hole in self.drafted.items() if hole is None]
        self._room.holes.by_id.update({e: hole for e, hole in self.drafted.items() if hole is not None})
        for event_id in gone:
            self._room.holes.by_id.pop(event_id, None)
