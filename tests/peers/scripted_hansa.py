"""A Hansa in the test's own process, on real sockets, whose users a test moves: Matrix and a scripted
network.

A real ``hansa run`` does not have users without a client; here ``actor`` speaks, joins and leaves for them
through the public contract, and other servers meet them over TLS as they meet all others.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from hansa import NativeId
from hansa.config.reader import load
from hansa.host import loader
from hansa.serve import Process, ProcessControl
from hansa.store.faults import StoreFault
from hansa.testing.actor import Actor, module
from hansa_matrix.testing import MatrixHarness

from peers.ca import PrivateCA
from peers.hansa import Hansa
from peers.waiting import until

_ACTORS = '\n[networks.stage]\nplugin = "actor"\n'


class ScriptedHansa:
    """One Hansa with the networks ``matrix`` and ``stage``; ``matrix`` are further lines of the first one's
    table, ``more`` is further TOML.
    """

    def __init__(
        self, folder: Path, ca: PrivateCA, more: str = "", *, matrix: str = "", **options: Any
    ) -> None:
        self.hansa = Hansa(folder, ca, f"{matrix}\n{_ACTORS}{more}", **options)
        self._made: dict[str, Actor] = {}
        self._module = module(self._made)
        self._process: Process | None = None

    @property
    def name(self) -> str:
        """The server name of its Matrix network."""
        return self.hansa.name

    @property
    def actor(self) -> Actor:
        """The network of its people."""
        return self._made["stage"]

    @property
    def matrix(self) -> MatrixHarness:
        """The parts of its Matrix network."""
        assert self._process is not None
        return MatrixHarness(self._process.app.network("matrix"))

    def _find(self, name: str, opens: str = "") -> ModuleType:
        return self._module if name == "actor" else loader.load_plugin(name, opens)

    async def start(self) -> Self:
        """Open everything; a stage that was stopped goes on with what it kept."""
        said: list[str] = []
        config = load(self.hansa.config, self._find)
        ended = asyncio.Event()
        lost: list[StoreFault] = []
        control = ProcessControl(say=said.append, end=ended.set, on_store_lost=lost.append)
        process = self._process = Process(self.hansa.config, config, control)
        assert await process.hold(ended)
        await process.start()
        states = process.app.status

        async def up() -> bool:
            return all(state == "up" for state, _ in states().values())

        await until("every network is up", up)
        return self

    async def stop(self) -> None:
        """As SIGTERM does."""
        if self._process is not None:
            process, self._process = self._process, None
            await process.stop()

    def counted(self, name: str) -> dict[str, int]:
        """A counter of the Matrix network by its label ``status``."""
        assert self._process is not None
        counters = self._process.app.counters.items()
        return {dict(labels).get("status", ""): count for (n, labels), count in counters if n == name}

    async def run(self, *arguments: str) -> Any:
        """One command of an operator; its JSON."""
        return await self.hansa.run(*arguments)

    def ghost(self, person: str) -> str:
        """Returns the Matrix user id of a user of the scripted network."""
        return self.matrix.network.ghost_id(NativeId("stage", person))
