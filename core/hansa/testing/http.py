"""HTTP in tests: half of an ``Http``, for a test that makes the other half, and one that follows a script."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from socket import socket

from hansa.environment import HttpError, HttpRequest, HttpResponse, HttpStream
from hansa.model.srv import SrvRecord


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

    async def connect(self, host: str, port: int) -> socket:
        """See ``Http.connect``: nothing can be reached."""
        raise HttpError(f"{host}:{port} is not reachable in a test")


class ScriptedHttp(BufferedHttp):
    """An ``Http`` that answers what a test says. ``answers`` maps ``"POST login.example.org/check"`` (method,
    host and target without the query) to a response, or to an exception to raise, such as ``HttpError``.
    Anything else is not reachable. ``requests`` holds each request, in order.
    """

    def __init__(self, answers: Mapping[str, HttpResponse | Exception] | None = None) -> None:
        self.answers = dict(answers or {})
        self.requests: list[HttpRequest] = []

    async def request(self, request: HttpRequest) -> HttpResponse:
        """See ``Http.request``."""
        self.requests.append(request)
        question = f"{request.method} {request.host}{request.target.partition('?')[0]}"
        answer = self.answers.get(question)
        if isinstance(answer, HttpResponse):
            return answer
        raise answer or HttpError(f"no answer is scripted for {question!r}")

    async def srv(self, name: str) -> Sequence[SrvRecord]:
        """See ``Http.srv``: there are no records."""
        del name
        return []
