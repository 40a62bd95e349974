"""A process that stood still: its host hung, or it was stopped by a signal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hansa.store.base import StoreError

#: Seconds between two looks, and without one after which a process stood still: less than a lease, with the
#: time since it was extended last.
_LOOK_EVERY, _STOOD_STILL = 1.0, 5.0


class Standstill:
    """Keeps a process that stood still silent until its database says that it is still its own: another
    process may have taken it over. ``monotonic`` is in seconds, ``probe`` writes to the database.
    """

    def __init__(self, monotonic: Callable[[], float], probe: Callable[[], Awaitable[None]]) -> None:
        self._monotonic = monotonic
        self._probe = probe
        self._looked: float | None = None
        self._stood = False

    async def watch(self) -> None:
        """Look at the clock, until it is cancelled."""
        while True:
            self._check_clock()
            await asyncio.sleep(_LOOK_EVERY)

    def _check_clock(self) -> None:
        now = self._monotonic()
        if self._looked is not None and now - self._looked > _STOOD_STILL:
            self._stood = True
        self._looked = now

    async def may_speak(self) -> bool:
        """True at once, unless the process stood still: then once a write was kept. False if none is. Before
        ``watch`` it is always true.
        """
        if self._looked is None:
            return True
        self._check_clock()
        while self._stood:
            began = self._monotonic()
            try:
                await self._probe()
            except StoreError:
                return False
            self._check_clock()
            if self._monotonic() - began < _STOOD_STILL:
                self._stood = False
        return True
