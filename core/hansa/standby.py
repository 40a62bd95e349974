"""A process that waits for the database of another: it is loaded, answers its operator, and serves nobody."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

from hansa.environment import Clock
from hansa.model.errors import RemoteProtocolError
from hansa.store.base import InUse, Shared
from hansa.store.faults import StoreFault
from hansa.store.health import WatchedStore

#: Seconds between two times that the database is asked for, and where this process was promoted.
ASK_EVERY, ASK_PROMOTED = 1.0, 0.2
#: Seconds that a process of the same machine which lost the database has to let go of its addresses: it
#: notices with its next write, which is due every three.
LET_GO_TIMEOUT_S, _STEP = 5.0, 0.1
#: Seconds for which who promotes it waits until it serves.
_PROMOTED_TIMEOUT_S = 30.0
_log = logging.getLogger("hansa.store")


class Standby:
    """Waits for the database of ``store``, which ``watched`` watches, from ``begin`` to ``finish``."""

    def __init__(
        self, watched: WatchedStore, store: Shared, clock: Clock, say: Callable[[str], None]
    ) -> None:
        self._watched = watched
        self._store = store
        self._clock = clock
        self._say = say
        self._owner = ("", 0)
        self._promoted = asyncio.Event()
        self._fault = ""
        #: When it became a standby (ms).
        self.since = 0
        #: True until this process serves.
        self.active = False
        self._serves = asyncio.Event()

    def begin(self, taken: InUse) -> None:
        """Become a standby: ``taken`` says which process has the database."""
        self.active = True
        self.since = self._clock.now()
        self._watched.health.begin_standby()
        self._on_holder_seen(taken)

    def finish(self) -> None:
        """End the wait: the process serves, and a pending ``promote`` returns."""
        self.active = False
        self._serves.set()

    def _on_holder_seen(self, taken: InUse) -> None:
        self._fault = ""
        if (taken.host, taken.pid) != self._owner:
            self._owner = (taken.host, taken.pid)
            self._say(f"standby: process {taken.pid} on {taken.host} has the database")

    async def wait(self, ended: asyncio.Event) -> bool:
        """Ask for the database each second until this process has it; False if ``ended`` came first. A
        database that is away is waited for. Raises StoreError for what waiting does not change.
        """
        while not ended.is_set():
            try:
                if self._promoted.is_set():
                    await self._store.request_takeover()
                await self._watched.open()
            except InUse as taken:
                self._on_holder_seen(taken)
            except StoreFault as fault:
                if not self._fault:
                    _log.warning("the standby cannot ask for the database: %s", fault)
                self._fault = str(fault)
            else:
                self._watched.health.end_standby()
                self._say("standby: this process has the database now")
                return not ended.is_set()
            await self._pause_second(ended)
        return False

    async def _pause_second(self, ended: asyncio.Event) -> None:
        events = (ended,) if self._promoted.is_set() else (ended, self._promoted)
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            most = ASK_PROMOTED if self._promoted.is_set() else ASK_EVERY
            await asyncio.wait(waits, timeout=most, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def refuse(self) -> RemoteProtocolError:
        """Returns the answer of a standby to everything that needs the database."""
        host, pid = self._owner
        text = f"this process is a standby: ask the process that has the database, process {pid} on {host}"
        return RemoteProtocolError(text, hint=503, code="standby")

    def status(self) -> dict[str, Any]:
        """``hansa status``: since when it waits (ms), for which process, and why it cannot ask."""
        host, pid = self._owner
        waits = {"state": "standby", "since": self.since, "host": host, "pid": pid, "text": self._fault}
        return {"state": "standby", "store": waits, "networks": [], "policies": [], "rooms": 0}

    async def promote(self) -> dict[str, Any]:
        """Ask the process that has the database to let go, and wait until this one serves. Raises
        RemoteProtocolError if that takes longer than 30 s; it goes on asking.
        """
        self._promoted.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PROMOTED_TIMEOUT_S):
                await self._serves.wait()
                return {"promoted": True}
        host, pid = self._owner
        text = f"process {pid} on {host} still has the database; this process continues to ask for it"
        raise RemoteProtocolError(text, hint=503, code="standby")


async def let_go(addresses: Sequence[tuple[str, int]]) -> None:
    """Wait until nobody of this machine listens on these addresses, ``LET_GO_TIMEOUT_S`` seconds at most."""
    for _ in range(round(LET_GO_TIMEOUT_S / _STEP)):
        if all(_is_bound(*address) for address in addresses):
            return
        await asyncio.sleep(_STEP)


def _is_bound(host: str, port: int) -> bool:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return True
    except OSError as error:
        return error.errno != errno.EADDRINUSE  # who listens says what else is wrong
