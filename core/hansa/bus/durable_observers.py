"""From the log to durable observers: each has a cursor in each room, so that a kill loses it nothing.

Rooms wait in turn, a few are worked on at a time. An event that its observer cannot take yet holds up its own
room alone; deliveries and the other observers do not wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hansa.api.contracts import DeliveryRejected, Observation, Observer, RetryLater
from hansa.bus import schema
from hansa.bus.rooms import Room, Rooms
from hansa.environment import Environment
from hansa.model.events import Event
from hansa.pacing.backoff import Backoff
from hansa.pacing.store_retry import Work
from hansa.store.base import Put, ScopedStore
from hansa.store.bounds import pieces
from hansa.store.faults import StoreFault
from hansa.store.paging import scan_all

#: Events of a room that are observed before the next room has its turn.
_PAGE_SIZE = 100
#: Rooms that one observer works on at a time.
_WORKERS = 4
#: Attempts at an event for which the observer asks for a later one, and at one on which it breaks.
MAX_ATTEMPTS, MAX_BROKEN = 100, 10
#: Seconds that one attempt may take.
_TIMEOUT_S = 60.0
#: Seconds after which a room's turn ends, and its position is stored.
_TURN_S = 1.0
#: The row that says that an observer is known: its rooms without a cursor are newer than it.
_KNOWN = ""


@dataclass(frozen=True, slots=True)
class ObserverServices:
    """The services that all durable observers share."""

    store: ScopedStore
    rooms: Rooms
    seams: Environment


@dataclass(slots=True)
class _Attempts:
    """The attempts at the first event of a room that is not observed yet. ``due`` is monotonic (s)."""

    failures: int = 0
    broken: int = 0
    due: float = 0.0


class ObserverCursor:
    """One observer's places in all rooms. ``on_given_up`` is called for each event that it never gets."""

    def __init__(
        self, name: str, observer: Observer, services: ObserverServices, on_given_up: Callable[[], None]
    ) -> None:
        self.name = name
        self._observer = observer
        self._store = services.store
        self._rooms = services.rooms
        self._seams = services.seams
        self._on_given_up = on_given_up
        self._positions: dict[str, int] = {}
        self._ready: dict[str, None] = {}
        self._busy: set[str] = set()
        self._waiting: dict[str, _Attempts] = {}
        self._wake = asyncio.Event()
        self._backoff = Backoff(first=0.5, most=300.0)
        self._log = logging.getLogger("hansa.bus.observers")

    async def load(self) -> None:
        """Take the stored positions. A new observer is told what happens from now on; a known one is told
        everything of a room that it does not know.
        """
        rows = [row async for row in scan_all(self._store, "observed", equal=(self.name,))]
        self._positions = {str(row.key[1]): int(row.fields["seq"] or 0) for row in rows}
        if _KNOWN not in self._positions:
            now = [self._put_position(room.id, room.head) for room in self._rooms]
            for piece in pieces(now):
                await self._store.commit(piece)
            await self._store.commit([self._put_position(_KNOWN, 0)])
            self._positions = {room.id: room.head for room in self._rooms} | {_KNOWN: 0}
        for room in self._rooms:
            if self._positions.get(room.id, 0) < room.head:
                self.wake(room.id)

    def _put_position(self, room: str, seq: int) -> Put:
        return Put("observed", (self.name, room), b"", {"seq": seq})

    def works(self) -> Iterator[Work]:
        """The tasks that observe."""
        for _ in range(_WORKERS):
            yield self._work

    def wake(self, room: str) -> None:
        """A room has something to observe."""
        if room not in self._busy and room not in self._waiting:
            self._ready[room] = None
            self._wake.set()

    @property
    def behind(self) -> int:
        """The number of events that are not observed yet."""
        return sum(max(0, room.head - self._positions.get(room.id, 0)) for room in self._rooms)

    async def _work(self) -> None:
        while True:
            room = await self._next_room()
            self._busy.add(room.id)
            try:
                await self._observe_page(room)
            finally:
                self._busy.discard(room.id)
                if self._positions.get(room.id, 0) < room.head:
                    self.wake(room.id)

    async def _next_room(self) -> Room:
        while True:
            now = self._seams.clock.monotonic()
            for name, attempts in list(self._waiting.items()):
                if attempts.due <= now and name not in self._busy:
                    self._ready[name] = None
            while self._ready:
                name = next(iter(self._ready))
                del self._ready[name]
                room = self._rooms.get(name)
                if room is not None and name not in self._busy:
                    return room
            due = min(
                (one.due for name, one in self._waiting.items() if name not in self._busy), default=None
            )
            self._wake.clear()
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - now)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _observe_page(self, room: Room) -> None:
        """One turn of a room. Its events are read again after a second: what was taken back is not told."""
        stored = self._positions.get(room.id, 0)
        began = self._seams.clock.monotonic()
        try:
            for event in await self._events_after(room, stored):
                if not await self._observe_event(room, event):
                    return
                self._positions[room.id] = event.seq
                if self._seams.clock.monotonic() - began > _TURN_S:
                    return
        finally:
            if (position := self._positions.get(room.id, 0)) != stored:
                await self._store.commit([self._put_position(room.id, position)], durability="lazy")

    async def _events_after(self, room: Room, position: int) -> list[Event]:
        rows = await self._store.scan(
            "event", equal=(room.id,), after=position, upto=room.head, limit=_PAGE_SIZE
        )
        return [schema.event_of(row) for row in rows]

    async def _observe_event(self, room: Room, event: Event) -> bool:
        """True if the event is done with: observed, or given up."""
        attempts = self._waiting.get(room.id) or _Attempts()
        observation = Observation(key=f"{self.name}:{event.id}", event=event, attempt=attempts.failures + 1)
        after, broken = 0.0, False
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._observer.observe(observation)
        except RetryLater as error:
            after, reason = error.after, error.reason
        except DeliveryRejected as error:
            self._give_up(room, event, error.reason)
            return True
        except StoreFault:
            raise
        except Exception as error:  # noqa: BLE001  # an observer can break nothing but itself
            broken, reason = True, f"{type(error).__name__}: {error}"
        else:
            self._waiting.pop(room.id, None)
            return True
        attempts = self._wait_again(room, broken=broken, after=after)
        if attempts.failures >= MAX_ATTEMPTS or attempts.broken >= MAX_BROKEN:
            self._give_up(room, event, reason)
            return True
        if attempts.failures == 1:
            self._log.warning("observer %s cannot take %s yet: %s", self.name, event.id, reason)
        return False

    def _wait_again(self, room: Room, *, broken: bool, after: float = 0.0) -> _Attempts:
        attempts = self._waiting.setdefault(room.id, _Attempts())
        attempts.failures += 1
        attempts.broken += broken
        wait = after or self._backoff.delay(attempts.failures, self._seams.random.uniform())
        attempts.due = self._seams.clock.monotonic() + wait
        self._wake.set()
        return attempts

    def _give_up(self, room: Room, event: Event, reason: str) -> None:
        self._waiting.pop(room.id, None)
        self._on_given_up()
        self._log.error("observer %s never gets %s#%d: %s", self.name, room.id, event.seq, reason)
