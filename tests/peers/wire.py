"""The wire between Hansa and its database: it can hang, drag, be cut, and lose the answers to what it carried."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

from peers.process import free_port


class Wire:
    """A TCP port that passes everything on to ``target`` on loopback."""

    def __init__(self) -> None:
        self.port = free_port()
        #: Seconds that each piece takes.
        self.delay = 0.0
        self._target = 0
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._losing = False

    async def lay(self, target: int) -> Self:
        self._target = target
        await self.mend()
        return self

    async def mend(self) -> None:
        """Undo a cut."""
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """End every connection and refuse new ones."""
        if self._server is not None:
            server, self._server = self._server, None
            server.close()
            self._abort()
            await server.wait_closed()

    def freeze(self) -> None:
        """Carry nothing, and end nothing."""
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def lose_an_answer(self) -> None:
        """Carry what is asked next to the database, and end the connections in place of the answer."""
        self._losing = True

    def _abort(self) -> None:
        for end in list(self._ends):
            end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        self._ends |= {writer, far_writer}
        await asyncio.gather(
            self._pump(reader, far_writer, answers=False), self._pump(far_reader, writer, answers=True)
        )
        self._ends -= {writer, far_writer}

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._flows.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)  # the fault itself, and no wait for a condition
                if answers and self._losing:
                    self._losing = False
                    self._abort()
                    break
                writer.write(data)
                await writer.drain()
        writer.close()
