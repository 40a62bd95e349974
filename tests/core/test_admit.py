"""The head of a request decides whether its body is read."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from hansa import Admitted, RemoteProtocolError, Request, Response, Router
from hansa.http.listener import Dispatcher, Listener
from hansa.testing import until

MIB = 1024 * 1024


class Desk:
    """A route whose ``admit`` lets in the bearer of ``good``; notes what it and the endpoint saw."""

    def __init__(self) -> None:
        self.heads: list[Request] = []
        self.served: list[Request] = []
        self.router = Router()
        for pattern, streamed in (("/whole", False), ("/streamed", True)):
            self.router.add("PUT", pattern, self.serve, max_body=MIB, streamed=streamed, admit=self.admit)

    async def admit(self, request: Request) -> Admitted | Response:
        self.heads.append(request)
        said = request.headers.get("authorization")
        if said == "raised":
            raise RemoteProtocolError("no", code="M_UNKNOWN_TOKEN", hint=401)
        if said != "good":
            return Response(status=401, body=b'{"errcode":"M_MISSING_TOKEN","soft_logout":false}')
        return Admitted(share="@romeo:h", proven=True, value=7)

    async def serve(self, request: Request) -> Response:
        if request.chunks is not None:
            body = b"".join([part async for part in request.chunks])
        else:
            body = request.body
        self.served.append(request)
        return Response(body=b"%d" % len(body))


@asynccontextmanager
async def listening(desk):
    listener = Listener(Dispatcher({"": desk.router}, lambda *_, **__: None), "127.0.0.1", 0)
    await listener.start()
    yield listener.port
    await listener.stop()


def head(path: str, said: str, length: int) -> bytes:
    return f"PUT {path} HTTP/1.1\r\nHost: h\r\nAuthorization: {said}\r\nContent-Length: {length}\r\n\r\n".encode()


@pytest.mark.parametrize("path", ["/whole", "/streamed"])
@pytest.mark.parametrize("said", ["bad", "raised"])
async def test_a_refusal_does_not_wait_for_the_body(path, said):
    desk = Desk()
    async with listening(desk) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head(path, said, MIB))  # and not a byte of the body
        async with asyncio.timeout(5):
            assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 401 Unauthorized\r\n"
        writer.close()
    assert len(desk.heads) == 1 and desk.served == []


@pytest.mark.parametrize("path", ["/whole", "/streamed"])
async def test_who_is_admitted_is_served_and_known_to_the_endpoint(path):
    desk = Desk()
    async with listening(desk) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head(path, "good", 3))
        async with asyncio.timeout(5):
            await until(lambda: desk.heads)
            writer.write(b"abc")
            got = await reader.readuntil(b"\r\n\r\n3")
        writer.close()
    assert got.startswith(b"HTTP/1.1 200 ")
    (seen,) = desk.heads
    assert (seen.method, seen.target, seen.body, seen.chunks) == ("PUT", path, b"", None)
    assert desk.served[0].admitted == Admitted(share="@romeo:h", proven=True, value=7)


async def test_without_admit_there_is_nothing_admitted():
    router, seen = Router(), []

    async def serve(request: Request) -> Response:
        seen.append(request.admitted)
        return Response()

    async def read(_limit: int) -> bytes:
        return b""

    router.add("GET", "/plain", serve)
    await Dispatcher({"": router}, lambda *_, **__: None).answer(
        Request(method="GET", target="/plain", host="h"), read
    )
    assert seen == [None]
