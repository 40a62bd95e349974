"""The events of one room that wait to be judged. One that cannot be judged now steps aside for a while, and
nobody behind it waits for what its sender may never give.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass

from hansa import Clock

from hansa_matrix.proto.event import Pdu

#: Seconds until an event that could not be judged is tried again, the last for ever after.
RETRY = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
#: So many may stand aside; beyond that the one that has for longest is let go of until the next start.
MOST_ASIDE = 500


@dataclass(slots=True)
class Entry:
    """``at`` is the key of its staged row, ``origin`` the server that sent it."""

    at: int
    pdu: Pdu
    origin: str
    tries: int = 0
    #: When it is tried again (monotonic seconds).
    again: float = 0.0


class Line:
    """First come, first served, except for those that stand aside."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.running = False
        self._waiting: deque[Entry] = deque()
        self._aside: list[Entry] = []
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._aside)

    def put(self, entry: Entry) -> None:
        """At the end."""
        self.ids.add(entry.pdu.event_id)
        self._waiting.append(entry)
        self._news.set()

    def front(self, most: int) -> list[Entry]:
        """The next ones; none if all stand aside."""
        return [self._waiting[i] for i in range(min(most, len(self._waiting)))]

    def done(self, count: int) -> None:
        """The first ones are judged: who stands aside for one of them need not wait any longer."""
        judged = {self._waiting.popleft().pdu.event_id for _ in range(count)}
        self.ids -= judged
        for entry in self._aside:
            if not judged.isdisjoint(entry.pdu.prev_events):
                entry.again = 0.0

    def step_aside(self, now: float) -> Entry | None:
        """The first one cannot be judged now. The one that is let go of for it, if there are too many."""
        entry = self._waiting.popleft()
        entry.again = now + RETRY[min(entry.tries, len(RETRY) - 1)]
        entry.tries += 1
        self._aside.append(entry)
        if len(self._aside) <= MOST_ASIDE:
            return None
        longest = max(self._aside, key=lambda one: one.tries)
        self._aside.remove(longest)
        self.ids.discard(longest.pdu.event_id)
        return longest

    async def ready(self, clock: Clock) -> None:
        """Wait until there is somebody at the front, or it is time to try one that stands aside."""
        now = clock.monotonic()
        due = [entry for entry in self._aside if entry.again <= now]
        if due:
            self._aside = [entry for entry in self._aside if entry.again > now]
            self._waiting.extend(due)
        if self._waiting or not self._aside:
            return
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(entry.again for entry in self._aside) - now):
                await self._news.wait()
