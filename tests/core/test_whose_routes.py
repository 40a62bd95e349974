"""The network that answers a request: by the requested host, then by the path."""

from __future__ import annotations

import pytest
from hansa import Request, Response, Router
from hansa.http.listener import Dispatcher


def _router(name: str, *paths: str) -> Router:
    router = Router()

    async def endpoint(_request: Request) -> Response:
        return Response(body=name.encode())

    for path in paths:
        router.add("GET", path, endpoint)
    router.headers("/", {"X-Of": name})
    return router


ONE = {"one.example": _router("one", "/a")}
WITH_HOOK = {**ONE, "": _router("hook", "/hook", "/a")}
TWO = {**WITH_HOOK, "two.example": _router("two", "/a")}


@pytest.mark.parametrize(
    ("routers", "host", "path", "answered"),
    [
        (ONE, "one.example", "/a", "one"),
        (ONE, "clients.example", "/a", "one"),  # the only network serves every name
        (ONE, "", "/a", "one"),
        (WITH_HOOK, "one.example", "/a", "one"),  # a name goes before a network without one
        (WITH_HOOK, "one.example", "/hook", "hook"),
        (WITH_HOOK, "clients.example", "/hook", "hook"),
        (WITH_HOOK, "clients.example", "/b", ""),
        (TWO, "one.example", "/a", "one"),
        (TWO, "two.example", "/hook", "hook"),
        (TWO, "clients.example", "/a", "hook"),  # never one of two names by chance
        ({k: v for k, v in TWO.items() if k}, "clients.example", "/a", ""),
    ],
)
async def test_who_answers(routers, host, path, answered):
    async def nothing(_limit: int) -> bytes:
        return b""

    dispatcher = Dispatcher(routers, lambda *_, **__: None)
    answer = await dispatcher.answer(Request(method="GET", target=path, host=host), nothing)
    if answered:
        assert (answer.status, answer.body, answer.headers["X-Of"]) == (200, answered.encode(), answered)
    else:
        assert answer.status == 404


async def test_a_hook_beside_a_server_takes_no_clients_away():
    """Clients ask by another name than the server's; a network without a name does not hide it from them."""
    routers = {"one.example": _router("one", "/_matrix/client/versions"), "": _router("hook", "/hook")}

    async def nothing(_limit: int) -> bytes:
        return b""

    dispatcher = Dispatcher(routers, lambda *_, **__: None)
    request = Request(method="GET", target="/_matrix/client/versions", host="matrix.one.example")
    assert (await dispatcher.answer(request, nothing)).body == b"one"
