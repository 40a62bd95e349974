"""The wire between Hansa and its database: it can hang, drag, be cut, and lose the answers to what it carried."""

from __future__ import annotations

import asyncio

from peers.tcp_cutter import TcpCutter


class Wire(TcpCutter):
    """A cable that can do worse than be cut."""

    def __init__(self) -> None:
        super().__init__()
        #: Seconds that each piece takes.
        self.delay = 0.0
        self._flows = asyncio.Event()
        self._flows.set()
        self._losing = False

    def freeze(self) -> None:
        """Carry nothing, and end nothing."""
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def lose_an_answer(self) -> None:
        """Carry what is asked next to the database, and end the connections in place of the answer."""
        self._losing = True

    async def _carries(self, answers: bool) -> bool:
        await self._flows.wait()
        if self.delay:
            await asyncio.sleep(self.delay)  # the fault itself, and no wait for a condition
        if answers and self._losing:
            self._losing = False
            self._abort()
            return False
        return True
