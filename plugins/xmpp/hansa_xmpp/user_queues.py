"""The queues of users' stanzas: those of one user in one room are handled in order, different users at the
same time. Bounded per user.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from hansa_xmpp.proto.jid import domain_of

QueuedTask = TypeVar("QueuedTask")


class TaskSpawner(Protocol):
    """Runs a task that ends with the network."""

    def __call__(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> object:
        """Start it; it is called again where the database failed."""
        ...


#: The memory of a queue itself, with its task (bytes).
_LANE = 4096
#: One person has at most this part of the bytes of all, and the people of one domain together.
_OF_PERSON, _OF_DOMAIN = 8, 2


@dataclass(slots=True)
class _KeyedQueue(Generic[QueuedTask]):
    shares: tuple[str, ...]
    waiting: deque[tuple[QueuedTask, int]] = field(default_factory=deque)


class KeyedQueues(Generic[QueuedTask]):
    """Queues by room and person. ``work`` is given the room and all that waits there of one person, and is
    not called for the same meanwhile.

    ``most`` is the number per queue, ``most_bytes`` the size of all; ``_OF_PERSON`` says who may have what.
    """

    def __init__(
        self,
        work: Callable[[str, Sequence[QueuedTask]], Awaitable[None]],
        spawn: TaskSpawner,
        *,
        most: int,
        most_bytes: int,
    ) -> None:
        self._work = work
        self._spawn = spawn
        self._most = most
        self._most_bytes = most_bytes
        #: By person, by domain (after an ``@``) and in all (under the empty name).
        self._held: dict[str, int] = defaultdict(int)
        self._lanes: dict[tuple[str, str], _KeyedQueue[QueuedTask]] = {}

    @property
    def held(self) -> int:
        """Bytes of all that waits or is worked on."""
        return self._held.get("", 0)

    def put(self, room: str, person: str, item: QueuedTask, size: int, *, must: bool = False) -> bool:
        """Queue ``item`` of ``size`` bytes of a person (a bare JID) to a room; False if there is no place for
        it. ``must`` is for what has to be taken, small things that cannot be many.
        """
        lane = self._lanes.get((room, person))
        more = size if lane is not None else size + _LANE
        shares = (person, "@" + domain_of(person), "")
        if not must and (
            (lane is not None and len(lane.waiting) >= self._most)
            or self.held + more > self._most_bytes
            or self._is_over(shares[0], more, _OF_PERSON)
            or self._is_over(shares[1], more, _OF_DOMAIN)
        ):
            return False
        if lane is None:
            lane = self._lanes[room, person] = _KeyedQueue(shares)
            self._spawn(partial(self._run_lane, room, person, lane), f"lane {room} {person}")
        lane.waiting.append((item, size))
        for share in shares:
            self._held[share] += more
        return True

    def _is_over(self, share: str, more: int, part: int) -> bool:
        """True if the share is exceeded. A share with nothing waiting may take one stanza of any size."""
        held = self._held.get(share, 0)
        return held > 0 and held + more > self._most_bytes // part

    def _free_bytes(self, lane: _KeyedQueue[QueuedTask], size: int) -> None:
        for share in lane.shares:
            self._held[share] -= size
            if not self._held[share]:
                del self._held[share]

    async def _run_lane(self, room: str, person: str, lane: _KeyedQueue[QueuedTask]) -> None:
        try:
            while lane.waiting:
                batch = list(lane.waiting)
                lane.waiting.clear()
                try:
                    await self._work(room, [item for item, _ in batch])
                finally:
                    self._free_bytes(lane, sum(size for _, size in batch))
        finally:
            self._free_bytes(lane, _LANE + sum(size for _, size in lane.waiting))
            del self._lanes[room, person]
