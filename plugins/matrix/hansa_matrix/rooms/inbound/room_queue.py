"""The events of one room that wait to be judged. One that cannot be judged now steps aside for a while, and
nobody behind it waits for what its sender may never give.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass

from hansa import Backoff, Clock

from hansa_matrix.proto.event import Pdu
from hansa_matrix.rooms.inbound.backlog import Backlog, memory_size

#: How long an event that could not be judged waits until it is tried again: the fifth time after 46.5 s, when
#: the patience for a gap (45 s) is over.
RETRY = Backoff(first=1.5, most=60.0)
#: So many may stand aside; beyond that the one that has for longest is let go of until the next start.
MAX_DEFERRED = 500


@dataclass(slots=True)
class QueuedPdu:
    """``at`` is the key of its staged row, ``origin`` the server that sent it."""

    at: int
    pdu: Pdu
    origin: str
    tries: int = 0
    #: When it is tried again (monotonic seconds).
    again: float = 0.0
    #: See ``ReceivedPdu.policy_server_refusal``.
    unwanted: str = ""
    #: True if the keys that it needs were fetched.
    keyed: bool = False
    #: Bytes of memory.
    size: int = 0


class RoomQueue:
    """First come, first served, except for those that stand aside."""

    def __init__(self, backlog: Backlog | None = None) -> None:
        self._backlog = backlog or Backlog()
        self.ids: set[str] = set()
        self.running = False
        #: Entries for which other servers are being asked.
        self.held: dict[str, QueuedPdu] = {}
        self._waiting: deque[QueuedPdu] = deque()
        self._deferred: list[QueuedPdu] = []
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._deferred) + len(self.held)

    def append_entry(self, entry: QueuedPdu) -> None:
        """At the end."""
        self.ids.add(entry.pdu.event_id)
        entry.size = memory_size(entry.pdu)
        self._backlog.change(entry.origin, entry.size)
        self._waiting.append(entry)
        self._news.set()

    def peek(self, most: int) -> list[QueuedPdu]:
        """The next ones; none if all stand aside."""
        return [self._waiting[i] for i in range(min(most, len(self._waiting)))]

    def pop_done(self, count: int) -> list[QueuedPdu]:
        """The first ones are judged: who stands aside for one of them need not wait any longer."""
        gone = [self._waiting.popleft() for _ in range(count)]
        for entry in gone:
            self._backlog.change(entry.origin, -entry.size)
        judged = {entry.pdu.event_id for entry in gone}
        self.ids -= judged
        for entry in self._deferred:
            if not judged.isdisjoint(entry.pdu.prev_events):
                entry.again = 0.0
        return gone

    def defer(self, now: float) -> QueuedPdu | None:
        """The first one cannot be judged now. The one that is let go of for it, if there are too many."""
        return self.check_in(self.check_out(), now, ready=False)

    def check_out(self) -> QueuedPdu:
        """Take the first one out of the line while what it lacks is asked for; ``check_in`` returns it."""
        entry = self._waiting.popleft()
        self.held[entry.pdu.event_id] = entry
        return entry

    def check_in(self, entry: QueuedPdu, now: float, *, ready: bool) -> QueuedPdu | None:
        """It is judged next if it is ``ready``, else tried again after a while. The one that is let go of
        for it, if too many stand aside.
        """
        self.held.pop(entry.pdu.event_id, None)
        entry.again = 0.0 if ready else now + RETRY.delay(entry.tries + 1)
        entry.tries += not ready
        self._deferred.append(entry)
        self._news.set()
        if len(self._deferred) <= MAX_DEFERRED:
            return None
        longest = max(self._deferred, key=lambda one: one.tries)
        self._deferred.remove(longest)
        self.ids.discard(longest.pdu.event_id)
        self._backlog.change(longest.origin, -longest.size)
        return longest

    def held_of(self, origin: str) -> int:
        """Returns the number of a server's events for which other servers are being asked."""
        return sum(entry.origin == origin for entry in self.held.values())

    def remove(self, event_id: str) -> QueuedPdu | None:
        """Take out one that nobody asks for at the moment; None if it is not here."""
        for queue in (self._waiting, self._deferred):
            for entry in queue:
                if entry.pdu.event_id == event_id:
                    queue.remove(entry)
                    self.ids.discard(event_id)
                    self._backlog.change(entry.origin, -entry.size)
                    return entry
        return None

    def find_entry(self, event_id: str) -> QueuedPdu | None:
        """The entry of an event, wherever it waits."""
        waits = (e for queue in (self._waiting, self._deferred) for e in queue if e.pdu.event_id == event_id)
        return self.held.get(event_id) or next(waits, None)

    def waiting_entries(self) -> list[QueuedPdu]:
        """Everything that waits here."""
        return [*self._waiting, *self._deferred]

    async def wait_ready(self, clock: Clock) -> None:
        """Waits until there is an event at the front, or it is time to try a deferred one."""
        now = clock.monotonic()
        due = [entry for entry in self._deferred if entry.again <= now]
        if due:
            self._deferred = [entry for entry in self._deferred if entry.again > now]
            self._waiting.extend(due)
        if self._waiting or not (self._deferred or self.held):
            return
        self._news.clear()
        wait = min(entry.again for entry in self._deferred) - now if self._deferred else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._news.wait()
