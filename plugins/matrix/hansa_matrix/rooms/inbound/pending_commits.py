"""Commits in progress. Until a commit is durable, no other work may rely on it: a caller with the same event
waits for the result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager

#: An event of a room, by the ids of both.
Named = tuple[str, str]


class PendingCommits:
    """Events that some transaction is writing."""

    def __init__(self) -> None:
        self._ended: dict[Named, asyncio.Event] = {}

    def __contains__(self, name: Named) -> bool:
        return name in self._ended

    async def wait_for_others(self, names: Collection[Named]) -> None:
        """Wait until nobody else is writing any of these."""
        while ended := next((self._ended[name] for name in names if name in self._ended), None):
            await ended.wait()

    @contextmanager
    def hold_for_writing(self, names: Collection[Named]) -> Iterator[None]:
        """These are being written, by nobody else: see ``wait_for_others``."""
        ended = asyncio.Event()
        self._ended |= dict.fromkeys(names, ended)
        try:
            yield
        finally:
            for name in names:
                self._ended.pop(name, None)
            ended.set()
