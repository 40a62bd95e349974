"""Routes of media pass the same checks as every other route of the client API: one token, a rate, slots."""

from __future__ import annotations

import json
from io import BytesIO

import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from hansa.testing import registered_routes
from hansa_matrix.client_api.account.accounts import Accounts
from hansa_matrix.client_api.http import ClientHttp
from hansa_matrix.client_api.request_slots import RequestSlots
from PIL import Image

UPLOAD, CREATE = "/_matrix/media/v3/upload", "/_matrix/media/v1/create"
MEDIA = ("/_matrix/media/", "/_matrix/client/v1/media/")


async def upload(alice: LocalUser) -> str:
    """Uploads a picture; the path below ``download`` and ``thumbnail``."""
    picture = BytesIO()
    Image.new("RGB", (64, 64)).save(picture, "PNG")
    answer = await alice.whole("POST", UPLOAD, data=picture.getvalue(), content_type="image/png")
    return json.loads(answer.body)["content_uri"].removeprefix("mxc://")


def count(monkeypatch, cls, name: str) -> list[str]:
    """Notes each call of a method of a class, which works as before."""
    calls: list[str] = []
    method = getattr(cls, name)

    async def counted(self, *arguments):
        calls.append(name)
        return await method(self, *arguments)

    monkeypatch.setattr(cls, name, counted)
    return calls


def requests(place: str) -> list[tuple[str, str]]:
    """One request of each kind of route, at each of its paths."""
    found = [("GET", "/_matrix/client/v1/media/config"), ("POST", CREATE)]
    for version in ("v3", "r0", "v1"):
        found += [("POST", f"/_matrix/media/{version}/upload"), ("GET", f"/_matrix/media/{version}/config")]
    for root in ("/_matrix/client/v1/media", *(f"/_matrix/media/{v}" for v in ("v3", "r0", "v1"))):
        found += [
            ("GET", f"{root}/download/{place}"),
            ("GET", f"{root}/download/{place}/name.png"),
            ("GET", f"{root}/thumbnail/{place}?width=32&height=32"),
        ]
    return [*found, *(("PUT", f"/_matrix/media/{v}/upload/{place}") for v in ("v3", "v1"))]


def routes_of_media(home: MatrixServer) -> int:
    """How many routes of media the server has."""
    router = next(iter(home.app.routers.values()))
    return sum(f"/{'/'.join(parts)}".startswith(MEDIA) for _, parts, _ in registered_routes(router))


async def test_every_route_of_media_takes_one_slot_and_authenticates_as_others_do(tmp_path, monkeypatch):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        place = await upload(alice)
        asked = requests(place)
        assert len(asked) == routes_of_media(home)
        slots, tokens = (
            count(monkeypatch, RequestSlots, "acquire_slot"),
            count(monkeypatch, Accounts, "get_by_token"),
        )
        for method, target in asked:
            slots.clear(), tokens.clear()
            await alice.whole(method, target, data=b"x" if method != "GET" else None)
            # A request with a body is admitted by its head, and then answered.
            assert (target, len(slots), len(tokens)) == (target, 1, 1 if method == "GET" else 2)


@pytest.mark.parametrize("kind", ["download", "thumbnail"])
async def test_a_file_is_given_to_whom_is_authenticated_once(tmp_path, monkeypatch, kind):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        place = await upload(alice)
        authenticated = count(monkeypatch, ClientHttp, "authenticate")
        answer = await alice.whole("GET", f"/_matrix/client/v1/media/{kind}/{place}?width=32&height=32")
        assert (answer.status, authenticated) == (200, ["authenticate"])


async def test_uploads_are_limited_as_other_requests_that_change_something(tmp_path):
    async with matrix_server(tmp_path, client_rate=0.001, client_burst=3) as home:
        alice = await home.person("alice")
        statuses = [(await alice.whole("POST", UPLOAD, data=b"x")).status for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        assert (await alice.ask("PUT", f"/rooms/{part('!r:x')}/send/m.x/1", {}))[0] == 429
        assert (await alice.ask("GET", "/_matrix/media/v3/config"))[0] == 200
