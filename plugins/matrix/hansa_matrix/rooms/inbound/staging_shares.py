"""Limits on waiting PDUs: for a room's queue, for all queues together, and a share of each per server.

A full queue refuses servers that have more than their share of it; others go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

#: PDUs of one transaction: so many of one server may always wait where nobody else's do.
_TRANSACTION = 50


class _Pool:
    """Amounts by server. One may have half of ``most``; once there is ``most`` in all, an equal share; and
    twice ``most`` is the end for all.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.of: Counter[str] = Counter()
        self.total = 0

    def full(self, origin: str, more: int) -> bool:
        """True if there is no space for so many more PDUs of a server."""
        mine, after = self.of.get(origin, 0) + more, self.total + more
        if after <= self._most:
            return mine > max(self._most // 2, _TRANSACTION)
        shares = len(self.of) + (origin not in self.of)
        return after > 2 * self._most or mine > self._most // max(2, shares)

    def add(self, origin: str, amount: int) -> None:
        self.total += amount
        self.of[origin] += amount
        if self.of[origin] <= 0:
            del self.of[origin]


class StagingShares:
    """Counts what waits, in PDUs. Their memory is ``backlog``'s."""

    def __init__(self, of_a_room: int, in_all: int) -> None:
        self._of_a_room = of_a_room
        self._rooms: dict[str, _Pool] = {}
        self._all = _Pool(in_all)

    @property
    def waiting(self) -> int:
        """PDUs that wait, of all rooms."""
        return self._all.total

    def full(self, origin: str, more: Mapping[str, int]) -> str:
        """Returns the full queue (``room`` or ``all``) that takes no more PDUs of a server, given by room;
        empty if there is space.
        """
        for room_id, count in more.items():
            pool = self._rooms.get(room_id) or _Pool(self._of_a_room)
            if pool.full(origin, count):
                return "room"
        return "all" if self._all.full(origin, sum(more.values())) else ""

    def add(self, room_id: str, origin: str) -> None:
        """One more waits."""
        pool = self._rooms.get(room_id)
        if pool is None:
            pool = self._rooms[room_id] = _Pool(self._of_a_room)
        pool.add(origin, 1)
        self._all.add(origin, 1)

    def remove(self, room_id: str, origin: str) -> None:
        """One waits no more, and its row is gone."""
        pool = self._rooms.get(room_id)
        if pool is None:
            return
        pool.add(origin, -1)
        if not pool.total:
            del self._rooms[room_id]
        self._all.add(origin, -1)
