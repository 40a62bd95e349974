"""Answers that clients do not take: how many bytes of them are held in memory."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final, Protocol

#: Bytes of answers that wait for the clients of one network (IPv4 /24, IPv6 /64), and for all.
OF_NETWORK: Final = 64 * 1024 * 1024
IN_ALL: Final = 256 * 1024 * 1024


class UnreadHolder(Protocol):
    """A connection whose client takes less than it is sent."""

    def let_go(self) -> None:
        """Break off: others need the memory."""
        ...


class UnreadResponses:
    """The bytes of answers that peers have not read yet: limited per network and in total. The answer that
    has waited longest makes room, in its own network first.
    """

    def __init__(self, per_group: int = OF_NETWORK, total: int = IN_ALL) -> None:
        self._per_group = per_group
        self._most = total
        self._held: OrderedDict[UnreadHolder, tuple[str, int]] = OrderedDict()
        self._of: Counter[str] = Counter()
        self.total = 0

    def hold(self, waiting: UnreadHolder, group: str, size: int) -> None:
        """A client does not take ``size`` bytes. ``group`` is empty for one that counts in all alone."""
        self.release(waiting)
        self._held[waiting] = group, size
        self._of[group] += size
        self.total += size
        while group and self._of[group] > self._per_group:
            self._let_go(next(one for one, (name, _) in self._held.items() if name == group))
        while self.total > self._most:
            most = self._of.most_common(1)[0][0]
            self._let_go(next(one for one, (name, _) in self._held.items() if name == most))

    def release(self, waiting: UnreadHolder) -> None:
        """It takes them, or is gone."""
        group, size = self._held.pop(waiting, ("", 0))
        self.total -= size
        self._of[group] -= size
        if self._of[group] <= 0:
            del self._of[group]

    def _let_go(self, waiting: UnreadHolder) -> None:
        self.release(waiting)
        waiting.let_go()
