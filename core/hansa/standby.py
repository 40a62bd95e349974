"""A process that waits until the database is free: it is seen to stand by, and serves nobody."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol, runtime_checkable

import orjson

from hansa.http import Router
from hansa.seams import Clock, Request, Response
from hansa.store.base import InUse, Store
from hansa.store.faults import StoreFault
from hansa.store.health import WatchedStore

#: Seconds that a process of the same machine which lost the database has to let go of its addresses: it
#: notices with its next write, which is due every three.
LET_GO_WITHIN, _STEP = 5.0, 0.1
#: Seconds between two looks whether the database is free.
LOOK_EVERY = 1.0
_BODY = 1024


@runtime_checkable
class Seizes(Protocol):
    """A store that can be opened although another process has it, which loses it then. ``seize``: at the next
    ``open``.
    """

    seize: bool


class Standby:
    """Opens ``watched``, which watches ``store``, once no other process has it."""

    def __init__(self, watched: WatchedStore, store: Store, clock: Clock, say: Callable[[str], None]) -> None:
        self._watched = watched
        self._store = store
        self._clock = clock
        self._say = say
        self._since = 0
        self._text = ""
        self._look = asyncio.Event()

    async def free(self) -> bool:
        """Open the database; False if another process has it. Raises what else an ``open`` raises."""
        try:
            await self._watched.open()
        except InUse as taken:
            self._since, self._text = self._clock.now(), str(taken)
            self._say(f"standby: {taken}")
            return False
        return True

    async def wait(self, ended: asyncio.Event) -> bool:
        """Wait until the database is open; False if ``ended`` came first. A database that is away meanwhile
        is waited for too.
        """
        stop = asyncio.ensure_future(ended.wait())
        try:
            while not ended.is_set():
                self._look.clear()
                look = asyncio.ensure_future(self._look.wait())
                await asyncio.wait({stop, look}, timeout=LOOK_EVERY, return_when=asyncio.FIRST_COMPLETED)
                look.cancel()
                with suppress(InUse, StoreFault):
                    if not ended.is_set():
                        await self._watched.open()
                        return True
            return False
        finally:
            stop.cancel()

    def routes(self) -> Router:
        """What an operator may ask meanwhile, over the admin socket."""
        router = self.watched()
        router.add("GET", "/status", self.status, max_body=_BODY)
        router.add("POST", "/promote", self.promote, max_body=_BODY)
        return router

    def watched(self) -> Router:
        """What the metrics address says: a load balancer sees that nobody is served here."""
        router = Router()
        router.add("GET", "/health", self.health)
        router.add("GET", "/metrics", self.metrics)
        return router

    async def status(self, _request: Request) -> Response:
        """As ``Operations.status``."""
        store = {"state": "standby", "kind": "standby", "since": self._since, "text": self._text}
        body = {"state": "standby", "store": store, "networks": [], "policies": [], "rooms": 0}
        return Response(body=orjson.dumps(body))

    async def health(self, _request: Request) -> Response:
        """As ``Operations.health``."""
        body = {"ok": False, "state": "standby", "store": "standby", "networks": {}}
        return Response(status=503, body=orjson.dumps(body))

    async def metrics(self, _request: Request) -> Response:
        """One gauge, of those that a process which serves has."""
        text = 'hansa_store_state{state="standby"} 1.0\n'
        return Response(body=text.encode(), content_type="text/plain")

    async def promote(self, _request: Request) -> Response:
        """Take the database over from the process that has it, which ends when it notices."""
        if isinstance(self._store, Seizes):
            self._store.seize = True
        self._look.set()
        return Response(body=orjson.dumps({"promoted": True}))


async def let_go(addresses: Sequence[tuple[str, int]]) -> None:
    """Wait until nobody of this machine listens on these addresses, ``LET_GO_WITHIN`` seconds at most."""
    for _ in range(round(LET_GO_WITHIN / _STEP)):
        if all(_bound(*address) for address in addresses):
            return
        await asyncio.sleep(_STEP)


def _bound(host: str, port: int) -> bool:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return True
    except OSError as error:
        return error.errno != errno.EADDRINUSE  # who listens says what else is wrong
