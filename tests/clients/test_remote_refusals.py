"""Refusals of other servers, as a client gets them. SPEC: server-server API, "Joining Rooms", "Knocking upon
a room", "Inviting to a room".
"""

from __future__ import annotations

import orjson
import pytest
from clients.matrix_server import Refused, matrix_server, part
from hansa import HttpResponse, Request
from hansa_matrix.client_api.http import ClientHttp
from hansa_matrix.federation.client import RemoteError
from hansa_matrix.testing import MatrixHarness
from matrix.server_with_peer import THEIRS

#: Requests of a client for which another server is asked: method, path, body, what the other server is asked.
ASKED_ELSEWHERE = [
    ("POST", f"/join/{part(f'!room:{THEIRS}')}?server_name={THEIRS}", {}, "/make_join/"),
    ("POST", f"/knock/{part(f'!room:{THEIRS}')}?server_name={THEIRS}", {}, "/make_knock/"),
    ("POST", f"/join/{part(f'#room:{THEIRS}')}", {}, "/query/directory"),
    ("GET", f"/directory/room/{part(f'#room:{THEIRS}')}", None, "/query/directory"),
    ("GET", f"/publicRooms?server={THEIRS}", None, "/publicRooms"),
    ("POST", f"/publicRooms?server={THEIRS}", {}, "/publicRooms"),
    ("GET", f"/profile/{part(f'@carol:{THEIRS}')}", None, "/query/profile"),
    ("POST", "/keys/query", {"device_keys": {f"@carol:{THEIRS}": []}}, "/keys/query"),
    (
        "POST",
        "/keys/claim",
        {"one_time_keys": {f"@carol:{THEIRS}": {"D": "signed_curve25519"}}},
        "/keys/claim",
    ),
    ("GET", f"/_matrix/client/v1/media/download/{THEIRS}/abc", None, "/media/download/"),
    (
        "GET",
        f"/_matrix/client/v1/media/thumbnail/{THEIRS}/abc?width=32&height=32",
        None,
        "/media/download/",
    ),
    ("GET", f"/_matrix/client/v1/room_summary/{part(f'!room:{THEIRS}')}?via={THEIRS}", None, "/hierarchy/"),
]
#: Errcodes that say something of the server that asked, and would say something else of a client.
OF_SERVERS = ["M_UNKNOWN_TOKEN", "M_UNRECOGNIZED", "M_USER_DEACTIVATED", "M_UNAUTHORIZED", "M_INVALID_PARAM"]


def refuse(home, status, code, **more):
    """Makes the other server refuse every request."""
    error = {"errcode": code, "error": "because", **more}
    home.wire.peer.answer = lambda request: (status, error)
    home.wire.peer.files = lambda request: HttpResponse(status=status, headers={}, body=orjson.dumps(error))


@pytest.mark.parametrize("code", OF_SERVERS)
@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_no_errcode_about_this_server_reaches_a_client(tmp_path, status, code):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        refuse(home, status, code)
        for method, target, body, asked in ASKED_ELSEWHERE:
            home.wire.peer.asked.clear()
            answer, said = await alice.ask(method, target, body)
            assert any(asked in r.target for r in home.wire.peer.asked), target
            assert answer != 401, target
            assert said.get("errcode") not in OF_SERVERS, target


@pytest.mark.parametrize("action", ["join", "knock"])
@pytest.mark.parametrize("code", ["M_INVALID_PARAM", "M_MISSING_PARAM"])
async def test_a_mistake_in_our_request_is_not_the_client_s(tmp_path, action, code):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        refuse(home, 400, code)
        with pytest.raises(Refused) as refused:
            await alice.call("POST", f"/{action}/{part(f'!room:{THEIRS}')}?server_name={THEIRS}", {})
        assert (refused.value.status, refused.value.code) == (502, "M_UNKNOWN")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ((400, "M_INCOMPATIBLE_ROOM_VERSION"), (400, "M_UNSUPPORTED_ROOM_VERSION")),
        ((403, "M_FORBIDDEN"), (403, "M_FORBIDDEN")),
        ((403, "M_UNKNOWN_TOKEN"), (403, "M_FORBIDDEN")),
    ],
)
async def test_why_an_invite_is_not_taken_is_told(tmp_path, said, told):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        refuse(home, *said)
        with pytest.raises(Refused) as refused:
            await alice.room(room, "invite", {"user_id": f"@carol:{THEIRS}"})
        assert (refused.value.status, refused.value.code) == told
        assert "because" in refused.value.body["error"]


@pytest.mark.parametrize(("said", "told"), [(404, 404), (400, 403), (403, 403)])
async def test_an_alias_that_another_server_does_not_give(tmp_path, said, told):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        refuse(home, said, "M_NOT_FOUND")
        with pytest.raises(Refused) as refused:
            await alice.get(f"/directory/room/{part(f'#room:{THEIRS}')}")
        assert refused.value.status == told


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ((404, "M_NOT_FOUND"), (404, "M_NOT_FOUND")),
        ((403, "M_FORBIDDEN"), (403, "M_FORBIDDEN")),
        ((413, "M_TOO_LARGE"), (413, "M_TOO_LARGE")),
        ((409, "M_UNKNOWN_TOKEN"), (502, "M_UNKNOWN")),
    ],
)
async def test_a_file_that_another_server_does_not_give(tmp_path, said, told):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        refuse(home, *said)
        answer, error = await alice.ask("GET", f"/_matrix/client/v1/media/download/{THEIRS}/abc")
        assert (answer, error["errcode"]) == told


async def test_a_refusal_that_no_endpoint_translates_is_a_bad_gateway(tmp_path, caplog):
    async with matrix_server(tmp_path) as home:

        async def leaks(_request, _body):
            raise RemoteError("log out", hint=401, code="M_UNKNOWN_TOKEN")

        matrix = MatrixHarness(home.app.network("matrix"))
        endpoint = ClientHttp(matrix.ctx, matrix.client_api.accounts, lambda: True).public_endpoint(leaks)
        answer = await endpoint(Request(method="GET", target="/x", host=""))
        assert (answer.status, orjson.loads(answer.body)["errcode"]) == (502, "M_UNKNOWN")
        assert b"log out" not in answer.body
