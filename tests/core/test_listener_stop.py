"""The end of a listener: when ``stop`` returns, the sockets of the connections that it accepted are closed."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import pytest
from hansa import Request, Response, Router
from hansa.http.connection_limits import ConnectionLimiter, ConnectionLimits
from hansa.http.listener import Certificate, Dispatcher, Listener, TlsContexts
from hansa.testing import until
from peers.ca import PrivateCA

LARGE = 64 * 1024 * 1024


class Counts(dict[str, int]):
    def __call__(self, name: str, **_: str) -> None:
        self[name] = self.get(name, 0) + 1


class Stopping:
    """A listener that is started, and the connections that it has now."""

    def __init__(self, tls: TlsContexts | None) -> None:
        self.counts = Counts()
        self.intake = ConnectionLimiter(ConnectionLimits(), self.counts)
        router = Router()

        async def here(_: Request) -> Response:
            return Response()

        async def large(_: Request) -> Response:
            return Response(body=bytes(LARGE))

        router.add("GET", "/here", here)
        router.add("GET", "/large", large)
        self.listener = Listener(
            Dispatcher({"": router}, self.counts), "127.0.0.1", 0, tls, intake=self.intake
        )

    @property
    def connections(self) -> int:
        return int(next(value for name, _, value in self.intake.measures() if name == "http_connections"))


@pytest.fixture(params=["tls", "plain"])
async def stopping(request: pytest.FixtureRequest, tmp_path) -> AsyncIterator[Stopping]:
    tls = None
    if request.param == "tls":
        chain, key = PrivateCA(tmp_path / "ca").issue("h", "h")
        tls = TlsContexts(Certificate(certificate=chain, key=key), {})
    server = Stopping(tls)
    await server.listener.start()
    yield server
    await server.listener.stop()


@contextlib.asynccontextmanager
async def connected(
    server: Stopping, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    context = None
    if request.node.callspec.params["stopping"] == "tls":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.listener.port, ssl=context, server_hostname="h" if context else None
    )
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


async def test_idle_connections_have_left(stopping, request):
    """The end of TLS takes the client's answer: the socket was still open when ``stop`` returned."""
    async with connected(stopping, request) as (reader, writer):
        writer.write(b"GET /here HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await stopping.listener.stop()
        assert stopping.connections == 0
        assert "http_not_taken" not in stopping.counts


async def test_clients_that_take_nothing_have_left(stopping, request):
    """A client that reads nothing holds up the end for a moment only, and is counted."""
    async with connected(stopping, request) as (_, writer):
        writer.transport.pause_reading()
        writer.write(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        await until(
            lambda: any(name == "http_untaken_bytes" and v for name, _, v in stopping.intake.measures())
        )
        async with asyncio.timeout(10):
            await stopping.listener.stop()
        assert stopping.connections == 0
