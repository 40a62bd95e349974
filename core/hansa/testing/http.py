"""Half of an ``Http`` for a test that makes the other half."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hansa.environment import HttpRequest, HttpResponse, HttpStream


class BufferedHttp:
    """The half of an ``Http`` that follows from its ``request``."""

    async def request(self, request: HttpRequest) -> HttpResponse:
        """See ``Http.request``."""
        raise NotImplementedError

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator[HttpStream]:
        """See ``Http.stream``: what ``request`` answers, in chunks."""
        answer = await self.request(request)

        async def chunks() -> AsyncIterator[bytes]:
            for at in range(0, len(answer.body), 1000):
                yield answer.body[at : at + 1000]

        yield HttpStream(status=answer.status, headers=answer.headers, chunks=chunks())
