"""The end of a stream in memory: what one event brings two hundred servers is read once, not by each."""

from __future__ import annotations

import asyncio
from collections import deque

from hansa import NetworkContext, Row

_PAGE = 500


class Recent:
    """The last ``kept`` rows of ``stream``, from its end at the first question on."""

    def __init__(self, ctx: NetworkContext, stream: str, kept: int) -> None:
        self._ctx = ctx
        self._stream = stream
        self._kept = kept
        self._rows: deque[Row] = deque()
        #: What is at or below ``_from`` is not here; what is above and up to ``_upto`` is.
        self._from = self._upto = -1
        self._reading = asyncio.Lock()

    async def after(self, position: int) -> list[Row] | None:
        """Every committed row behind a position, in order; None where that goes further back than this."""
        upto = await self._ctx.store.position()
        if self._upto < 0:
            self._from = self._upto = upto
        if upto > self._upto:
            async with self._reading:
                await self._read(upto)
        if position < self._from:
            return None
        found: list[Row] = []
        for row in reversed(self._rows):
            if row.position <= position:
                break
            found.append(row)
        return found[::-1]

    async def _read(self, upto: int) -> None:
        while self._upto < upto:
            page = await self._ctx.store.scan(self._stream, after=self._upto, upto=upto, limit=_PAGE)
            self._rows.extend(page)
            self._upto = page[-1].position if len(page) == _PAGE else upto
            while len(self._rows) > self._kept:
                self._from = self._rows.popleft().position
