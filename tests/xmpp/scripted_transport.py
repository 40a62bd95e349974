"""The state of a transport whose other end is the test."""

from __future__ import annotations

import asyncio

from hansa_xmpp.transport import StanzaListener


class ScriptedTransport:
    """Up and down as the test says."""

    def __init__(self) -> None:
        self.listener: StanzaListener | None = None
        self.is_up = False

    async def stop(self) -> None:
        self.is_up = False

    async def wait_drained(self) -> None:
        await asyncio.sleep(0)

    def up(self) -> None:
        assert self.listener is not None
        self.is_up = True
        self.listener.on_state(True, "")

    def down(self) -> None:
        assert self.listener is not None
        self.is_up = False
        self.listener.on_state(False, "cut")
