"""From one network's people to the others': who is here, away, busy or offline. Nothing of it is stored.

1. A network tells of one room, and is answered at once whether the policies let the presence in; or it tells
   of all rooms of a person. Those are looked for when the person's turn comes, and the policies are asked
   when the room's turn comes.
2. The presence waits: one of a person in a room, the latest. What repeats the one before is dropped.
3. A presence that follows the one before within ``HOLD_S`` waits that long. So does one of a room that is
   busy with events.
4. One after the other, at most ``RATE`` a second, is shown to every other network of the room.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from hansa.api.contracts import CarriesPresence, Network
from hansa.bus.pipeline import Pipeline
from hansa.bus.policy_engine import PolicyEngine
from hansa.bus.rooms import Room, Rooms
from hansa.environment import Clock, Environment
from hansa.model.content import Membership
from hansa.model.crossing import EphemeralIn, EphemeralOut
from hansa.model.ephemeral import PersonPresence, with_bounded_text
from hansa.model.events import Link
from hansa.model.lru import LruCache
from hansa.model.ref import NativeId
from hansa.pacing.delivery_throttle import DeliveryThrottle

#: Presences that are shown a second, and at once, in all rooms together.
RATE, MAX_BURST = 50.0, 100
#: Seconds between two presences of a person in a room.
HOLD_S = 5.0
#: Seconds after which a presence that repeats the one before is shown again.
REPEAT_AFTER_S = 300.0
#: Presences that wait, in all and of the people of one server.
MAX_WAITING, MAX_WAITING_OF_SERVER = 20_000, 2_000
#: Presences that were shown, by person and room, which are remembered.
_MAX_REMEMBERED = 20_000
#: With so many events of a room waiting for its turn, presence waits.
_BUSY = 200
#: Seconds that a network has to show one.
_SHOW_TIMEOUT_S = 10.0
#: Seconds between two looks for presences whose time has come.
_STEP_S = 0.5


class PresenceHost(Protocol):
    """The parts of the running application that the relay uses."""

    @property
    def seams(self) -> Environment:
        """Clock and randomness."""
        ...

    def network(self, network: str) -> Network | None:
        """The open network of an id."""
        ...

    def presence_members(self, network: str) -> int:
        """The members of the largest room in which presence crosses to and from a network."""
        ...

    def count(self, name: str, **labels: str) -> None:
        """Add one to a counter."""
        ...


#: A core room, or the empty id for all rooms, and a person.
_Key = tuple[str, NativeId]
_EVERYWHERE = ""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A presence that came by ``native``, None for all rooms of the person. ``judged``: the policies have let
    it in. ``due`` is in monotonic seconds.
    """

    presence: PersonPresence
    native: NativeId | None
    server: str
    judged: bool
    due: float


class _WaitingPresences:
    """The latest presence of each person in each room, bounded, with a share for each server."""

    def __init__(self) -> None:
        self._ready: OrderedDict[_Key, _Waiting] = OrderedDict()
        #: All are held for the same time, so the first of them is due first.
        self._held: OrderedDict[_Key, _Waiting] = OrderedDict()
        self._of_server: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._ready) + len(self._held)

    def replace_existing(self, key: _Key, presence: PersonPresence, *, judged: bool) -> bool:
        """Puts a presence where an earlier one waits; False if none does."""
        for queue in (self._ready, self._held):
            if (before := queue.get(key)) is not None:
                queue[key] = _Waiting(presence, before.native, before.server, judged, before.due)
                return True
        return False

    def add(self, key: _Key, waiting: _Waiting, now: float) -> bool:
        """Adds the presence of a person who has none here; False if too many wait."""
        if len(self) >= MAX_WAITING or self._of_server[waiting.server] >= MAX_WAITING_OF_SERVER:
            return False
        self._of_server[waiting.server] += 1
        (self._held if waiting.due > now else self._ready)[key] = waiting
        return True

    def has_due(self, now: float) -> bool:
        """True if the time of a presence has come."""
        while self._held and next(iter(self._held.values())).due <= now:
            key, waiting = self._held.popitem(last=False)
            self._ready[key] = waiting
        return bool(self._ready)

    def pop_due(self) -> tuple[_Key, _Waiting]:
        """Takes out the presence that has been due for longest, after ``has_due`` found one."""
        key, waiting = self._ready.popitem(last=False)
        self._of_server[waiting.server] -= 1
        if not self._of_server[waiting.server]:
            del self._of_server[waiting.server]
        return key, waiting


class PresenceRelay:
    """Asks the policies, and every other network of a person's rooms that carries presence."""

    def __init__(
        self, rooms: Rooms, decisions: PolicyEngine, pipeline: Pipeline, around: PresenceHost
    ) -> None:
        self._rooms = rooms
        self._decisions = decisions
        self._pipeline = pipeline
        self._around = around
        self._clock: Clock = around.seams.clock
        self._waiting = _WaitingPresences()
        #: When each person was shown in each room, and as what.
        self._shown: LruCache[_Key, tuple[float, PersonPresence]] = LruCache(_MAX_REMEMBERED)
        self._wake = asyncio.Event()
        self._log = logging.getLogger("hansa.presence")

    async def relay(self, native: NativeId, presence: PersonPresence) -> bool:
        """Takes up a presence of a person in one native room; True if the policies let it in."""
        presence = with_bounded_text(presence)
        link = self._rooms.link(native)
        if link is None or not link.direction.inward:
            return False
        room = self._rooms.room_of(native)
        if not _is_joined(room, presence.user) or not await self._is_let_in(link, room, presence):
            return False
        self._put(link, room, presence, judged=True)
        return True

    def relay_everywhere(self, presence: PersonPresence) -> bool:
        """Takes up a presence of a person in every room of their network in which they are joined."""
        self._enqueue(_EVERYWHERE, with_bounded_text(presence), None, judged=False)
        return True

    async def run(self) -> None:
        """Shows what waits, for as long as the application runs."""
        throttle = DeliveryThrottle(self._clock, RATE, MAX_BURST)
        while True:
            if not self._waiting.has_due(self._clock.monotonic()):
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_STEP_S if len(self._waiting) else None):
                        await self._wake.wait()
                continue
            await throttle.pass_one()
            found = self._waiting.pop_due()
            try:
                await self._show_waiting(*found)
            except Exception:  # noqa: BLE001  # a fault of the store or a bug: presence is lost, nothing else
                self._around.count("signals", result="failed")
                self._log.exception("a presence of %s was lost", found[0][1])

    def _put(self, link: Link, room: Room, presence: PersonPresence, *, judged: bool) -> None:
        if self._is_carried(link, room):
            self._enqueue(room.id, presence, link.native, judged=judged)

    def _enqueue(self, room: str, presence: PersonPresence, native: NativeId | None, *, judged: bool) -> None:
        key, now = (room, presence.user), self._clock.monotonic()
        if self._waiting.replace_existing(key, presence, judged=judged):
            return
        at, before = self._shown.get(key) or (-REPEAT_AFTER_S, None)
        if before is not None and now < at + REPEAT_AFTER_S and _shows_the_same(before, presence):
            return
        server = self._pipeline.server_of(presence.user.network, presence.user.id)
        due = at + HOLD_S if before is not None and now < at + HOLD_S else now
        waiting = _Waiting(presence, native, server, judged, due if due <= now else now + HOLD_S)
        if self._waiting.add(key, waiting, now):
            self._wake.set()
        else:
            self._around.count("signals", result="busy")

    def _is_carried(self, link: Link, room: Room) -> bool:
        """True if another network of the room may be shown a presence, from which ``link`` is."""
        return any(self._may_cross(link, other, room) for other in room.links.values())

    def _may_cross(self, link: Link, other: Link, room: Room) -> bool:
        if other.native.network == link.native.network or not other.direction.outward:
            return False
        if not isinstance(self._around.network(other.native.network), CarriesPresence):
            return False
        limits = (self._around.presence_members(one.native.network) for one in (link, other))
        return sum(room.view.joined_servers.values()) <= min(limits)

    async def _is_let_in(self, link: Link, room: Room, presence: PersonPresence) -> bool:
        inward = EphemeralIn(
            link=link,
            sender=presence.user,
            sender_server=self._pipeline.server_of(presence.user.network, presence.user.id),
            kind=presence.kind,
            view=room.view,
            texts=(presence.text,) if presence.text else (),
        )
        if (await self._decisions.judge_and_store(inward)).allowed:
            return True
        self._around.count("signals", result="denied")
        return False

    def _expand(self, presence: PersonPresence) -> None:
        """Puts a presence into every room of a person."""
        self._shown.put((_EVERYWHERE, presence.user), (self._clock.monotonic(), presence))
        network = presence.user.network
        for room in self._rooms.joined_by(presence.user):
            for link in list(room.links.values()):
                if link.native.network == network and link.direction.inward:
                    self._put(link, room, presence, judged=False)

    async def _show_waiting(self, key: _Key, waiting: _Waiting) -> None:
        presence = waiting.presence
        if waiting.native is None:
            self._expand(presence)
            return
        link = self._rooms.link(waiting.native)
        room = self._rooms.get(key[0])
        if link is None or room is None or link.room != room.id or not _is_joined(room, presence.user):
            return
        if self._pipeline.waiting(room.id) > _BUSY:
            now = self._clock.monotonic()
            held = _Waiting(presence, waiting.native, waiting.server, waiting.judged, now + HOLD_S)
            if not self._waiting.replace_existing(key, presence, judged=waiting.judged):
                self._waiting.add(key, held, now)
            return
        if not waiting.judged and not await self._is_let_in(link, room, presence):
            return
        self._shown.put(key, (self._clock.monotonic(), presence))
        for other in list(room.links.values()):
            if self._may_cross(link, other, room):
                await self._show(other, room, presence)

    async def _show(self, other: Link, room: Room, presence: PersonPresence) -> None:
        out = EphemeralOut(
            link=other,
            sender=presence.user,
            kind=presence.kind,
            view=room.view,
            texts=(presence.text,) if presence.text else (),
        )
        if not (await self._decisions.judge_and_store(out)).allowed:
            self._around.count("signals", result="denied")
            return
        network = self._around.network(other.native.network)
        if not isinstance(network, CarriesPresence):
            return
        try:
            async with asyncio.timeout(_SHOW_TIMEOUT_S):
                await network.show_presence(other, presence)
            self._around.count("signals", result="sent")
        except Exception:  # noqa: BLE001  # one network's fault is not the other's, and nothing is lost
            self._around.count("signals", result="failed")
            self._log.exception("the presence of %s is not shown in %s", presence.user, other.id)


def _is_joined(room: Room, user: NativeId) -> bool:
    return room.view.membership(user) is Membership.JOIN


def _shows_the_same(one: PersonPresence, other: PersonPresence) -> bool:
    """True if a presence differs from another by its time alone."""
    return (one.state, one.text) == (other.state, other.text)
