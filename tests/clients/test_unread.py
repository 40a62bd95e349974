"""Nothing of a body is read before its sender is known, and nothing is done for who has hung up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from clients.matrix_server import ROOT, matrix_server, part
from hansa import Request, Response
from hansa.http.listener import Dispatcher, Listener
from hansa.http.router import Route, Router
from hansa.testing import registered_routes
from hansa_matrix.client_api.http import CANCELLED_ON_DISCONNECT
from matrix.server_with_peer import OURS

#: Routes that read a body without a token, and why.
FOR_EVERYBODY = {
    "POST /_matrix/client/v3/login": "a login",
    "POST /_matrix/client/r0/login": "a login",
    "POST /_matrix/client/v3/register": "a registration",
    "POST /_matrix/client/r0/register": "a registration",
    "POST /_matrix/key/v2/query": "keys are public",
    "POST /_synapse/admin/v1/register": "a registration by the shared secret",
}
LITTLE = 128 * 1024
WITH_BODY = ("PUT", "POST", "DELETE", "PATCH")


def routes(router: Router) -> Iterator[tuple[str, str, Route]]:
    for method, parts, route in registered_routes(router):
        yield method, "".join("/x" if part.startswith("{") else f"/{part}" for part in parts), route


async def test_no_body_is_read_of_who_is_not_known(tmp_path):
    async with matrix_server(tmp_path) as home:
        dispatcher = Dispatcher(home.app.routers, home.app.count)
        router = home.app.routers[OURS]
        open_to_all = {}
        seen = 0
        for method, path, route in routes(router):
            if method not in WITH_BODY:
                continue
            seen += 1
            read: list[str] = []

            async def whole(_limit: int, read: list[str] = read) -> bytes:
                read.append("whole")
                return b"{}"

            async def chunks(_limit: int, read: list[str] = read) -> Any:
                read.append("chunks")
                yield b"{}"

            request = Request(method=method, target=path, host=OURS, remote="192.0.2.1")
            answer: Response = await dispatcher.answer(request, whole, chunks)
            if read or answer.status != 401:
                open_to_all[f"{method} {path}"] = route.max_body
                assert route.max_body <= LITTLE, (method, path)
            else:
                assert route.admit is not None, (method, path)
        assert seen > 100
        assert set(open_to_all) == set(FOR_EVERYBODY)


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/_matrix/client/v1/rooms/{space}/hierarchy", None),
        ("GET", f"{ROOT}/publicRooms?server=away.example", None),
        ("GET", f"{ROOT}/profile/@x:away.example", None),
        ("POST", f"{ROOT}/keys/query", {"device_keys": {"@x:away.example": []}}),
    ],
)
async def test_what_waits_for_others_ends_when_its_client_hangs_up(tmp_path, method, target, body):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        space = await alice.create(creation_content={"type": "m.space"})
        await alice.state(space, "m.space.child", {"via": ["away.example"]}, "!r:away.example")
        target = target.replace("{space}", part(space))
        waits, ended = asyncio.Event(), asyncio.Event()

        async def silent(_: Any) -> Any:
            waits.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        home.wire.peer.request = silent
        listener = Listener(alice.dispatcher, "127.0.0.1", 0)
        await listener.start()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            content = orjson.dumps(body) if body is not None else b""
            head = f"{method} {target} HTTP/1.1\r\nHost: {OURS}\r\nAuthorization: Bearer {alice.token}\r\n"
            writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            async with asyncio.timeout(5):
                await waits.wait()
                writer.close()
                await ended.wait()
        finally:
            await listener.stop()
        assert home.app.counters["http_abandoned", ()] == 1


async def test_every_route_that_ends_so_exists(tmp_path):
    async with matrix_server(tmp_path) as home:
        router = home.app.routers[OURS]
        for method, pattern in CANCELLED_ON_DISCONNECT:
            found = router.find(Request(method=method, target=f"/_matrix/client{pattern}", host=OURS))
            assert found.route is not None and found.route.cancel_on_disconnect, pattern
