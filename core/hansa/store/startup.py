"""The first minutes of a process whose database is not up yet: both start at boot, in whatever order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from hansa.environment import Clock
from hansa.store.base import Store
from hansa.store.faults import FaultKind, StoreFault

#: Seconds for which a database that is away is waited for, between two times that it is asked, and between
#: two lines that say so.
WAITED_FOR, ASK_EVERY, SAY_EVERY = 120.0, 1.0, 5.0


async def open_when_up(store: Store, ended: asyncio.Event, clock: Clock, say: Callable[[str], None]) -> bool:
    """Open a store, and wait for one that is away; False if ``ended`` came first. Raises StoreError: the last
    ``StoreFault`` after ``WAITED_FOR`` seconds, and at once what waiting does not change.
    """
    began, said = clock.monotonic(), float("-inf")
    while not ended.is_set():
        try:
            await store.open()
        except StoreFault as fault:
            waited = clock.monotonic() - began
            if fault.kind is not FaultKind.AWAY or waited >= WAITED_FOR:
                raise
            if clock.monotonic() - said >= SAY_EVERY:
                said = clock.monotonic()
                say(f"waiting for the database, {waited:.0f} s of {WAITED_FOR:.0f} s: {fault}")
        else:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ASK_EVERY):
                await ended.wait()
    return False
