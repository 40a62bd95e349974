"""Clients of matrix-js-sdk, each in a page of its own in headless Chromium."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any, Self

from peers.require import require_browser
from peers.waiting import until

_HERE = Path(__file__).parent / "js"


class Browser:
    """One Chromium with pages by name."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._one = asyncio.Lock()

    async def start(self) -> Self:
        folder, chromium = require_browser()
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        self._process = await asyncio.create_subprocess_exec(
            "node",
            str(folder / "drive.mjs"),
            str(folder / "out"),
            chromium,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=64 * 1024 * 1024,
            env=environment,
        )
        assert (await self._read()) == "ready"
        return self

    async def _read(self) -> Any:
        assert self._process is not None and self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 120)
        if not line:
            raise RuntimeError("the browser's driver ended")
        found = json.loads(line)
        if "error" in found:
            raise PageError(found["error"])
        return found["answer"]

    async def call(self, page: str, name: str, *arguments: Any) -> Any:
        """Returns the value of a function of a page. Raises ``PageError``."""
        assert self._process is not None and self._process.stdin is not None
        async with self._one:
            order = {"page": page, "call": name, "arguments": arguments}
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            return await self._read()

    async def stop(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            assert process.stdin is not None
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()
                await process.wait()


#: What Synapse says of a room's people at a token that it has given out itself, just after a join.
_NOT_YET = "Can't find event for token"


class PageError(Exception):
    """A page's function threw."""


class Page:
    """One person's page."""

    def __init__(self, browser: Browser, name: str) -> None:
        self._browser, self.name = browser, name
        self.id = ""

    async def call(self, name: str, *arguments: Any) -> Any:
        return await self._browser.call(self.name, name, *arguments)

    async def login(self, url: str, user: str, password: str = "pw") -> Self:
        """Log in and start, as Element does."""
        self.id = (await self.call("login", url, user, password))["user"]
        await self.call("start")
        return self

    async def bodies(self, room: str, sender: str) -> list[str]:
        """Returns the messages of a sender in a room, as the page shows them."""
        events = await self.call("events", room)
        return [
            e["content"].get("body", "")
            for e in events
            if e["sender"] == sender and e["type"] == "m.room.message"
        ]

    async def until(
        self, what: str, name: str, *arguments: Any, holds: Any = bool, seconds: float = 60.0
    ) -> Any:
        """Ask until an answer will do; that answer."""

        async def there() -> Any:
            try:
                found = await self.call(name, *arguments)
            except PageError as error:
                if _NOT_YET in str(error):
                    return None
                raise
            return [found] if holds(found) else None

        return (await until(what, there, seconds))[0]
