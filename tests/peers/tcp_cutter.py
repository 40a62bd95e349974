"""A cable between two servers that can be cut: a TCP port that passes everything on to another."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

from peers.process import free_port


class TcpCutter:
    """Listens on ``port`` and connects to ``target``. While it is cut nobody gets through."""

    def __init__(self) -> None:
        self.port = free_port()
        self.target = 0
        self.host = "127.0.0.1"
        #: Bytes that went through, both ways.
        self.carried = 0
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    async def lay(self, target: int, host: str = "127.0.0.1") -> Self:
        self.target, self.host = target, host
        await self.mend()
        return self

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._abort()
            await self._server.wait_closed()
            self._server = None

    def _abort(self) -> None:
        for end in list(self._ends):
            end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(self.host, self.target)
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
                if not await self._carries(answers):
                    break
                self.carried += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _carries(self, answers: bool) -> bool:
        """True if a piece is passed on, once it may be; ``answers``: it comes from the target."""
        del answers
        return True
