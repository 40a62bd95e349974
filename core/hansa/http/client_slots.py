"""Places for outgoing requests: few for what strangers cause, a share per destination, bounded waiting."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hansa.environment import Failure, HttpError
from hansa.model.lru import LruCache

#: Destinations that are remembered for having answered.
_REMEMBERED = 10_000

#: The share that a place counts against: its kind, and its owner.
_Charge = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLimits:
    """How many requests may be under way at a time.

    ``known`` are all but those of strangers; ``unproven`` is the part of them that destinations may have
    which have not answered before; ``per_cause`` is for one peer who causes requests to others. ``strangers``
    are apart, with less per destination and per cause.
    """

    known: int = 224
    unproven: int = 160
    per_destination: int = 8
    per_cause: int = 64
    strangers: int = 32
    per_stranger_destination: int = 2
    per_stranger_cause: int = 4

    def open(self) -> Mapping[str, int]:
        """The limit of each kind of share."""
        return {
            "known": self.known,
            "unproven": self.unproven,
            "to": self.per_destination,
            "by": self.per_cause,
            "strangers": self.strangers,
            "stranger to": self.per_stranger_destination,
            "stranger by": self.per_stranger_cause,
        }


#: How many may wait, by the same kinds, and for how many seconds.
_WAITING = {
    "known": 10_000,
    "unproven": 10_000,
    "to": 256,
    "by": 512,
    "strangers": 64,
    "stranger to": 8,
    "stranger by": 8,
}
_WAIT, _STRANGER_WAIT = 30.0, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The reason for a request that takes a place: its destination, and its cause (``HttpRequest``)."""

    destination: str
    share: str = ""
    stranger: bool = False


@dataclass(slots=True, eq=False)
class _Waiter:
    charges: tuple[_Charge, ...]
    ready: asyncio.Future[None]


class _Lane:
    """Those who wait for one pool, by destination: each gets its turn."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.queues: OrderedDict[str, deque[_Waiter]] = OrderedDict()

    def add(self, destination: str, waiter: _Waiter) -> None:
        self.queues.setdefault(destination, deque()).append(waiter)

    def remove(self, destination: str, waiter: _Waiter) -> None:
        queue = self.queues[destination]
        queue.remove(waiter)
        if not queue:
            del self.queues[destination]

    def next(self, free: Callable[[tuple[_Charge, ...]], bool]) -> _Waiter | None:
        """The first of the destination that has waited longest among those with a free place."""
        for destination, queue in self.queues.items():
            if not free(queue[0].charges[1:2]):  # the destination's own share
                continue
            waiter = next((one for one in queue if free(one.charges)), None)
            if waiter is not None:
                self.queues.move_to_end(destination)
                self.remove(destination, waiter)
                return waiter
        return None


class Slots:
    """Gives places. Each destination, each cause and each pool has a share that others cannot use up."""

    def __init__(self, limits: SlotLimits, count: Callable[..., None]) -> None:
        self._limits = limits.open()
        self._count = count
        self._open: Counter[_Charge] = Counter()
        self._waits: Counter[_Charge] = Counter()
        self._lanes = {pool: _Lane(pool) for pool in ("known", "unproven", "strangers")}
        self._answered: LruCache[str, None] = LruCache(_REMEMBERED)

    def open(self, pool: str) -> int:
        """Requests under way in ``known`` or ``strangers``."""
        return self._open[pool, ""]

    def waiting(self, pool: str) -> int:
        """Requests that wait for a place in ``known`` or ``strangers``."""
        return self._waits[pool, ""]

    def heard(self, destination: str, *, in_time: bool) -> None:
        """Records whether the destination gave a whole answer in time. A destination that did not shares the
        places of those that are not known to answer at all.
        """
        if not in_time:
            self._answered.pop(destination)
            return
        self._answered.put(destination, None)

    def _charges_of(self, cause: Cause) -> tuple[str, tuple[_Charge, ...]]:
        if cause.stranger:
            return "strangers", (
                ("strangers", ""),
                ("stranger to", cause.destination),
                ("stranger by", cause.share),
            )
        charges = [("known", ""), ("to", cause.destination)]
        if cause.share and cause.share != cause.destination:
            charges.append(("by", cause.share))
        if cause.destination in self._answered:
            return "known", tuple(charges)
        return "unproven", (*charges, ("unproven", ""))

    def _has_free_slot(self, charges: tuple[_Charge, ...]) -> bool:
        return all(self._open[charge] < self._limits[charge[0]] for charge in charges)

    @asynccontextmanager
    async def place(self, cause: Cause) -> AsyncIterator[None]:
        """Takes a place, for as long as the context lasts. Raises ``HttpError`` of kind ``BUSY`` if none
        becomes free in time, or too many wait already. A cancelled request leaves its place to the next one.
        """
        pool, charges = self._charges_of(cause)
        if self._has_free_slot(charges):
            self._open.update(charges)
        else:
            await self._wait_for_slot(self._lanes[pool], cause, charges)
        try:
            yield
        finally:
            self._give_back(charges)

    async def _wait_for_slot(self, lane: _Lane, cause: Cause, charges: tuple[_Charge, ...]) -> None:
        full = next((kind for kind, who in charges if self._waits[kind, who] >= _WAITING[kind]), None)
        if full is not None:
            self._count("http_out_refused", share=full.replace(" ", "_"))
            raise HttpError(f"too many requests wait ({full}) for {cause.destination}", Failure.BUSY)
        self._count("http_out_waited", pool=lane.pool)
        waiter = _Waiter(charges, asyncio.get_running_loop().create_future())
        lane.add(cause.destination, waiter)
        self._waits.update(charges)
        try:
            async with asyncio.timeout(_STRANGER_WAIT if cause.stranger else _WAIT):
                await waiter.ready
        except BaseException as error:
            if waiter.ready.done() and not waiter.ready.cancelled():
                self._give_back(charges)
            else:
                lane.remove(cause.destination, waiter)
            if isinstance(error, TimeoutError):
                self._count("http_out_refused", share="wait")
                text = f"no place came free for a request to {cause.destination}"
                raise HttpError(text, Failure.BUSY) from error
            raise
        finally:
            _subtract_charges(self._waits, charges)

    def _give_back(self, charges: tuple[_Charge, ...]) -> None:
        _subtract_charges(self._open, charges)
        for lane in self._lanes.values():
            while lane.queues and self._has_free_slot(((lane.pool, ""),)):
                waiter = lane.next(self._has_free_slot)
                if waiter is None:
                    break
                self._open.update(waiter.charges)
                waiter.ready.set_result(None)


def _subtract_charges(counter: Counter[_Charge], charges: tuple[_Charge, ...]) -> None:
    for charge in charges:
        counter[charge] -= 1
        if not counter[charge]:
            del counter[charge]
