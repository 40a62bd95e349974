"""Work in the background that a database which fails does not end: it is done again until it is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from hansa.environment import Environment
from hansa.pacing.backoff import Backoff
from hansa.store.faults import StoreFault

#: The longest wait, in seconds, before a database that fails is tried again.
MAX_DELAY_S = 5.0
#: The work of a task. A function is called again where the database failed; a coroutine ends then, since
#: nobody can begin it again.
Work = Coroutine[Any, Any, None] | Callable[[], Coroutine[Any, Any, None]]

_log = logging.getLogger("hansa.store")


def patiently(work: Work, name: str, seams: Environment) -> Coroutine[Any, Any, None]:
    """``work`` as a coroutine; a function's is begun again after each ``StoreFault``, 5 s later at most."""
    return _run_again(work, name, seams) if callable(work) else work


async def _run_again(work: Callable[[], Coroutine[Any, Any, None]], name: str, seams: Environment) -> None:
    backoff, faults = Backoff(most=MAX_DELAY_S), 0
    while True:
        began = seams.clock.monotonic()
        try:
            await work()
        except StoreFault as fault:
            faults = faults + 1 if seams.clock.monotonic() - began < 2 * MAX_DELAY_S else 1
            if faults == 1:
                _log.warning("%s waits for the database: %s", name, fault)
            await asyncio.sleep(backoff.delay(faults, seams.random.uniform()))
        else:
            return
