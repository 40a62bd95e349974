"""The events of a simulation, as one hash and as lines to read after a failure."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque

_KEPT = 400


class Trace:
    """Every commit, request and crash in order. Two runs of one seed have the same ``digest()``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._hash = hashlib.sha256()
        #: How many things happened.
        self.count = 0
        #: The newest of them.
        self.lines: deque[str] = deque(maxlen=_KEPT)

    def note(self, who: str, what: str, *exact: bytes) -> None:
        """Something happened. ``exact`` goes into the hash and is not shown."""
        line = f"{self._loop.time():12.6f} {who}: {what}"
        self.count += 1
        self.lines.append(line)
        self._hash.update(line.encode())
        for part in exact:
            self._hash.update(len(part).to_bytes(8))
            self._hash.update(part)

    def digest(self) -> str:
        """The hash of everything so far."""
        return self._hash.hexdigest()

    def tail(self, count: int = 60) -> str:
        """The last lines."""
        return "\n".join(list(self.lines)[-count:])
