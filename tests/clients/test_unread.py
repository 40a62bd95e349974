"""Nothing of a body is read before the head said who it is of; the few routes for everybody take little."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clients.people import house
from hansa import Request, Response
from hansa.http import Route, Router, _Node
from hansa.listen import Dispatcher
from matrix.inbound import OURS

#: Routes that take a body of anybody, and why.
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
    def walk(node: _Node, path: str) -> Iterator[tuple[str, str, Route]]:
        for method, route in node.methods.items():
            yield method, path, route
        for name, child in node.child.items():
            yield from walk(child, f"{path}/{name}")
        if node.wild is not None:
            yield from walk(node.wild, f"{path}/x")

    yield from walk(router._root, "")


async def test_no_body_is_read_of_who_is_not_known(tmp_path):
    async with house(tmp_path) as home:
        dispatcher = Dispatcher(home.app.routers, home.app.count)
        router = dispatcher.router(OURS)
        assert router is not None
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
