"""A whole Hansa in memory, for a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

from hansa.app import App
from hansa.environment import (
    Clock,
    Environment,
    Http,
    HttpError,
    HttpRequest,
    HttpResponse,
    Random,
    SystemClock,
    SystemRandom,
)
from hansa.media.quotas import MediaLimits
from hansa.model.chat_commands import CommandSettings
from hansa.model.srv import SrvRecord
from hansa.setup import NetworkSetup, ObserverSetup, PolicySetup, ProcessListener, RoomSetup, Setup
from hansa.store.base import Store
from hansa.store.blobs import Blobs, MemoryBlobs
from hansa.store.memory import MemoryStore
from hansa.testing.http import BufferedHttp


class UnreachableHttp(BufferedHttp):
    """An ``Http`` that reaches nobody."""

    async def request(self, request: HttpRequest) -> HttpResponse:
        """See ``Http.request``."""
        raise HttpError(f"{request.host} is not reachable in a test")

    async def srv(self, name: str) -> Sequence[SrvRecord]:
        """See ``Http.srv``."""
        del name
        return []


@asynccontextmanager
async def run_hansa(
    networks: Mapping[str, tuple[ModuleType, Any]],
    *,
    rooms: Sequence[Sequence[str]] = (),
    policies: Sequence[PolicySetup] = (),
    observers: Sequence[ObserverSetup] = (),
    kept: Sequence[RoomSetup] = (),
    store: Store | None = None,
    seams: Environment | None = None,
    clock: Clock | None = None,
    random: Random | None = None,
    http: Http | None = None,
    media: MediaLimits | None = None,
    blobs: Blobs | None = None,
    commands: CommandSettings | None = None,
    login_key: bytes = b"",
    listener: ProcessListener | None = None,
) -> AsyncIterator[App]:
    """Start, and stop at the end. ``rooms`` are made before it begins, ``kept`` ones as a configuration has
    them. ``networks`` maps an id to a plugin module and its options. ``clock``,
    ``random`` and ``http`` replace those of the machine: ``ManualClock``, ``ScriptedHttp``. ``seams`` is a
    clock and randomness in one. ``login_key``, of 32 bytes, lets people log in where ``commands`` allow it.
    """
    app = App(
        Setup(
            store=store or MemoryStore(),
            http=http or UnreachableHttp(),
            seams=seams or Environment(clock or SystemClock(), random or SystemRandom()),
            networks=[NetworkSetup(id=k, module=m, options=o) for k, (m, o) in networks.items()],
            policies=policies,
            observers=observers,
            rooms=kept,
            media=media or MediaLimits(),
            blobs=blobs or MemoryBlobs(),
            commands=commands or CommandSettings(),
            login_key=login_key,
            listener=listener or ProcessListener(),
        )
    )
    await app.start()
    try:
        for links in rooms:
            await app.link_room(links, create=True)
        yield app
    finally:
        await app.stop()
