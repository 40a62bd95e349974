"""What one person does in one room, in order; different people at the same time. Bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

Item = TypeVar("Item")


class Spawn(Protocol):
    """Runs a task that ends with the network."""

    def __call__(self, work: Coroutine[Any, Any, None], name: str) -> object:
        """Start it."""
        ...


@dataclass(slots=True)
class _Lane(Generic[Item]):
    waiting: deque[tuple[Item, int]] = field(default_factory=deque)


class Lanes(Generic[Item]):
    """Queues by key. ``work`` is given all that waits on one key and is not called for that key meanwhile.

    ``most`` is the number per key, ``most_bytes`` the size over all keys.
    """

    def __init__(
        self,
        work: Callable[[str, Sequence[Item]], Awaitable[None]],
        spawn: Spawn,
        *,
        most: int,
        most_bytes: int,
    ) -> None:
        self._work = work
        self._spawn = spawn
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._lanes: dict[str, _Lane[Item]] = {}

    def put(self, key: str, item: Item, size: int, *, must: bool = False) -> bool:
        """Queue ``item`` of ``size`` bytes; False if there is no room for it. ``must`` is for what has to be
        taken, small things that cannot be many.
        """
        lane = self._lanes.get(key)
        waiting = len(lane.waiting) if lane else 0
        if not must and (waiting >= self._most or self._bytes + size > self._most_bytes):
            return False
        if lane is None:
            lane = self._lanes[key] = _Lane()
            self._spawn(self._run(key, lane), f"lane {key}")
        lane.waiting.append((item, size))
        self._bytes += size
        return True

    async def _run(self, key: str, lane: _Lane[Item]) -> None:
        try:
            while lane.waiting:
                batch = list(lane.waiting)
                lane.waiting.clear()
                try:
                    await self._work(key, [item for item, _ in batch])
                finally:
                    self._bytes -= sum(size for _, size in batch)
        finally:
            self._bytes -= sum(size for _, size in lane.waiting)
            del self._lanes[key]
