"""Slots for the requests of one user: a few are handled at once, the others wait in order.

All requests share one event loop. Without a limit per user, a user with two hundred requests at once would be
served two hundred times before any other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

from hansa import Busy

#: Seconds for which a request has a place: one that takes longer waits for others, and keeps nothing of its
#: person from going on.
SLOT_TTL_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class RequestSlot:
    """That a request is worked on, and since when on the loop's clock (s)."""

    since: float


@dataclass(slots=True, eq=False)
class _Person:
    #: Oldest first.
    places: dict[RequestSlot, None] = field(default_factory=dict)
    line: deque[asyncio.Future[RequestSlot]] = field(default_factory=deque)
    timer: asyncio.TimerHandle | None = None


class RequestSlots:
    """``each`` of one person, behind which ``waiting`` requests may wait."""

    def __init__(self, *, each: int, waiting: int) -> None:
        self._each = each
        self._waiting = waiting
        self._people: dict[str, _Person] = {}

    def __len__(self) -> int:
        return len(self._people)

    async def acquire_slot(self, who: str) -> RequestSlot:
        """A place, once there is one. ``release_slot`` it back. Raises ``Busy`` where too many wait
        already.
        """
        person = self._people.get(who)
        if person is None:
            person = self._people[who] = _Person()
        loop = asyncio.get_running_loop()
        if not person.line and len(person.places) < self._each:
            return _occupy_slot(person, loop.time())
        if len(person.line) >= self._waiting:
            raise Busy("too many of your requests wait already", after=SLOT_TTL_S)
        ready: asyncio.Future[RequestSlot] = loop.create_future()
        person.line.append(ready)
        self._watch_oldest(who, person)
        try:
            return await ready
        except asyncio.CancelledError:
            if ready.done() and not ready.cancelled():
                self.release_slot(who, ready.result())
            else:
                with suppress(ValueError):  # passed over already
                    person.line.remove(ready)
                self._serve_waiting(who, person)
            raise

    def release_slot(self, who: str, place: RequestSlot) -> None:
        """Notes that a request is answered. Its place becomes free in the next round of the loop: otherwise a
        request that never waits would be followed by the next of its user before any other user's.
        """
        asyncio.get_running_loop().call_soon(self._free_slot, who, place)

    def _free_slot(self, who: str, place: RequestSlot) -> None:
        person = self._people.get(who)
        if person is not None:
            person.places.pop(place, None)
            self._serve_waiting(who, person)

    def _serve_waiting(self, who: str, person: _Person) -> None:
        now = asyncio.get_running_loop().time()
        while person.line and len(person.places) < self._each:
            ready = person.line.popleft()
            if not ready.done():
                ready.set_result(_occupy_slot(person, now))
        if not person.line and person.timer is not None:
            person.timer.cancel()
            person.timer = None
        if not person.places and self._people.get(who) is person:
            del self._people[who]

    def _watch_oldest(self, who: str, person: _Person) -> None:
        """Look again when the oldest place is nobody's any more."""
        if person.timer is None and person.line:
            end = next(iter(person.places)).since + SLOT_TTL_S
            person.timer = asyncio.get_running_loop().call_at(end, self._expire_slots, who, person)

    def _expire_slots(self, who: str, person: _Person) -> None:
        person.timer = None
        before = asyncio.get_running_loop().time() - SLOT_TTL_S
        for place in [one for one in person.places if one.since <= before]:
            del person.places[place]
        self._serve_waiting(who, person)
        self._watch_oldest(who, person)


def _occupy_slot(person: _Person, now: float) -> RequestSlot:
    place = RequestSlot(now)
    person.places[place] = None
    return place
