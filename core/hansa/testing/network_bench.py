"""What the tests of ``NetworkSuite`` stand on: its settings, and the Hansa that each test runs in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest

from hansa.api.contracts import LinksRooms, OpenedRoom
from hansa.model.content import Content
from hansa.model.ref import NativeId
from hansa.testing.actor import Actor, module
from hansa.testing.actor import Config as ActorConfig
from hansa.testing.harness import run_hansa
from hansa.testing.stage import Stage
from hansa.testing.task_watch import finish_within


class NetworkBench:
    """The settings of a suite, and the running Hansa of each test."""

    #: The plugin's module, as the entry point names it.
    plugin: ModuleType
    #: Its table without ``plugin``: what ``plugin.Config`` is validated from.
    options: dict[str, Any] = {}  # noqa: RUF012  # read only; pydantic makes its own copy
    #: An address that the network opens, or the native id of a room where it opens none.
    address = "room"
    #: The same for a second room; empty where the network has one room only.
    other_address = "second-room"
    #: A user of the network, as a native id.
    sender = "ann"
    #: Another user.
    other_sender = "bob"
    #: True if ``inject`` returns only when the peer was told that the message is taken.
    acknowledges = False
    #: Seconds that ``stop`` may take.
    stop_within = 5.0
    #: Seconds that anything else may take.
    within = 10.0
    #: Seconds after which a Hansa that does not end is ended by all means.
    close_within = 15.0
    #: Seconds for which nothing may block the event loop.
    block_within = 0.5
    #: Seconds in which a network without a peer is watched.
    away_s = 0.5

    async def start_peer(self) -> None:
        """Make the peer that the network talks to, or give it back at the same address, with all that it was
        told. Called before the network starts, and after each ``stop_peer``. It may set ``self.options``.
        """

    async def stop_peer(self) -> None:
        """Take the peer away: its connections are closed, and nobody listens at its address."""

    async def inject(self, net: Any, room: str, sender: str, text: str) -> None:
        """Make a message arrive from the native side, as its peer would. ``room`` and ``sender`` are native
        ids. The one method that must be written. It may raise ``Busy`` where the peer is asked to try again.
        """
        raise NotImplementedError

    def shown(self, stage: Stage) -> Sequence[Content]:
        """See ``NetworkSuite.shown``."""
        raise NotImplementedError

    def _is_shown(self, stage: Stage, content: Content) -> bool:
        return content in self.shown(stage)

    def _has_peer(self) -> bool:
        return type(self).stop_peer is not NetworkBench.stop_peer

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[Stage]:
        """The network, up, in a room with the scripted one. Its end is bounded: ``self.stubborn`` then has
        the tasks that swallowed their cancellation, and ``self.threads`` the threads that are left.
        """
        self.stubborn: list[asyncio.Task[Any]] = []
        self.threads: list[threading.Thread] = []
        made: dict[str, Actor] = {}
        before, threads = asyncio.all_tasks(), set(threading.enumerate())
        await self.start_peer()
        try:
            networks = {
                "tested": (self.plugin, self.plugin.Config.model_validate(self.options)),
                "other": (module(made), ActorConfig()),
            }
            running = run_hansa(networks)
            app = await running.__aenter__()  # its end is bounded below, which ``async with`` cannot do
            try:
                async with asyncio.timeout(self.within):
                    await app.runners["tested"].up()
                    await app.runners["other"].up()
                opened = await self._open_room(app.runners["tested"].network, self.address)
                link = await app.link_opened(opened, None)
                await app.link_opened(OpenedRoom(native=NativeId("other", "other")), link.room)
                stage = Stage(app, made["other"], link.native.id, self.within)
                with pytest.MonkeyPatch.context() as patch:
                    stage.record_sends(patch)
                    yield stage
            finally:
                ending = running.__aexit__(None, None, None)
                self.stubborn = await finish_within(ending, self.close_within, before)
        finally:
            await self.stop_peer()
        self.threads = await self._left_threads(threads)

    async def _open_room(self, net: Any, address: str) -> OpenedRoom:
        if isinstance(net, LinksRooms):
            return await net.open_room(address, create=True)
        return OpenedRoom(native=NativeId("tested", address))

    async def _left_threads(self, before: set[threading.Thread]) -> list[threading.Thread]:
        """Returns the threads that still run after the time of ``stop``, without those of the loop's own."""
        executor = getattr(asyncio.get_running_loop(), "_default_executor", None)
        own = set(getattr(executor, "_threads", ())) | before
        deadline = asyncio.get_running_loop().time() + self.stop_within
        while left := [thread for thread in threading.enumerate() if thread not in own]:
            if asyncio.get_running_loop().time() > deadline:
                return left
            await asyncio.sleep(0.01)
        return []

    async def _says(self, stage: Stage, *contents: Content) -> None:
        """The scripted network's person does this, and it was sent."""
        said: set[str] = set()
        for content in contents:
            outcome = await stage.other.do("other", "zoe@elsewhere", content)
            assert outcome.event is not None, f"the core refused {content}: {outcome.refusal}"
            said.add(outcome.event.id)
        await stage.until(
            f"send returned for {contents[-1]}",
            lambda: said <= {delivery.event.id for delivery, _ in stage.sends},
        )
