"""Answers of other implementations that differ from the specification are read as they are meant."""

from __future__ import annotations

from typing import Any

import pytest
from clients.matrix_server import matrix_server, part
from hansa import HttpRequest, HttpResponse
from hansa.testing import until
from hansa_matrix.federation.client import RemoteError, ServerUnreachable
from matrix.server_with_peer import OURS, THEIRS, server_with_peer
from matrix.test_joining import Resident
from matrix.two_servers import ours


@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "patience"),
    [
        (
            429,
            b'{"errorcode":"M_LIMIT_EXCEEDED","retry_after_ms":3000}',
            ServerUnreachable,
            "M_LIMIT_EXCEEDED",
            3.0,
        ),
        (429, b'{"errcode":"M_LIMIT_EXCEEDED"}', ServerUnreachable, "M_LIMIT_EXCEEDED", 7.0),
        (429, b"<html>slowly</html>", ServerUnreachable, "M_LIMIT_EXCEEDED", 7.0),
        (429, b"", ServerUnreachable, "M_LIMIT_EXCEEDED", 7.0),
        (404, b'{"error":"no code"}', RemoteError, "M_NOT_FOUND", 0.0),
        (404, b"<html>not here</html>", RemoteError, "M_NOT_FOUND", 0.0),
        (404, b"", RemoteError, "M_NOT_FOUND", 0.0),
        (404, b'{"errcode":7}', RemoteError, "M_NOT_FOUND", 0.0),
        (401, b"{}", RemoteError, "M_UNAUTHORIZED", 0.0),
        (403, b"{}", RemoteError, "M_UNKNOWN", 0.0),
        (400, b'{"errorcode":"M_BAD_STATE"}', RemoteError, "M_BAD_STATE", 0.0),
        (400, b"[]", RemoteError, "M_UNKNOWN", 0.0),
        (500, b"oh", ServerUnreachable, "M_UNKNOWN", 0.0),
    ],
)
async def test_errors(tmp_path, status, body, kind, code, patience):
    async with server_with_peer(tmp_path) as home:
        headers = {"retry-after": "7"} if status == 429 else {}
        home.peer.answer = lambda _: HttpResponse(status=status, headers=headers, body=body)
        with pytest.raises(kind) as found:
            await home.matrix.federation_client.request("GET", THEIRS, "/_matrix/federation/v1/x")
        if kind is RemoteError:
            assert (found.value.hint, found.value.code) == (status, code)
        else:
            assert code in str(found.value)
            assert (found.value.status, found.value.retry_after) == (status, patience)


@pytest.mark.parametrize("body", [b"", b" \n", b"{}", b'{"pdus":null}', b"[]", b"null"])
async def test_a_transaction_is_taken_whatever_the_answer_says_of_it(tmp_path, body):
    async with server_with_peer(tmp_path) as home:
        sent: list[HttpRequest] = []

        def answer(request: HttpRequest) -> HttpResponse | None:
            if "/v1/send/" not in request.target:
                return None
            sent.append(request)
            return HttpResponse(status=200, body=body)

        home.peer.answer = answer
        assert (await ours(home, "m.room.topic", "", {"topic": "t"})).refusal is None
        sender = home.matrix.sender
        await until(lambda: sent and home.matrix.destination_queues[THEIRS].task.done())
        (destination,) = await sender.destinations()
        assert (len(sent), destination.waiting) == (1, 0)


@pytest.mark.parametrize(("status", "code"), [(500, 404), (404, 404), (503, 502)])
async def test_an_alias_that_another_server_does_not_know(tmp_path, status, code):
    async with matrix_server(tmp_path) as home:
        home.wire.peer.answer = lambda _: (status, {"error": "an internal error"})
        juliet = await home.person("juliet")
        found, answer = await juliet.ask("POST", f"/join/{part(f'#none:{THEIRS}')}", {})
        assert (found == 404, answer["errcode"] == "M_NOT_FOUND") == (code == 404, code == 404)


class Demanding(Resident):
    """Accepts no event without its ``origin``, as Rocket.Chat does."""

    def __call__(self, request: HttpRequest) -> tuple[int, Any] | None:
        if "/make_leave/" in request.target:
            user = self.house.matrix.bridge_user
            draft = self.house.forger.draft(
                self.room, "m.room.member", {"membership": "leave"}, user, sender=user
            )
            return 200, {"room_version": self.version, "event": draft}
        if "/send_join/" in request.target or "/send_leave/" in request.target:
            if f'"origin":"{OURS}"'.encode() not in (request.body or b""):
                return 400, {"errcode": "M_BAD_JSON", "error": "origin is missing"}
            if "/send_leave/" in request.target:
                return 200, {}
        return super().__call__(request)


@pytest.mark.parametrize("version", ["8", "10", "11", "12"])
async def test_a_join_and_a_leave_say_where_they_are_from(tmp_path, version):
    async with server_with_peer(tmp_path, version) as home:
        resident = Demanding(home, version)
        await resident.entered()
        membership = home.matrix.remote_membership
        user = home.matrix.bridge_user
        assert await membership.leave_remote(resident.room.room_id, user, [THEIRS])
