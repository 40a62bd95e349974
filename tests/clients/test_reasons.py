"""The reason for joining, knocking, declining or leaving elsewhere is in the event that the other server
gets.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import orjson
import pytest
from clients.matrix_server import matrix_server, part
from clients.test_absences import There
from hansa import HttpRequest
from hansa_matrix.proto.pdu import pdu_from_raw
from matrix.server_with_peer import THEIRS, V2
from matrix.test_invites import foreign_room, invite_to
from matrix.two_servers import at

REASON = "it is cold out there"


class Door(There):
    """Keeps what it is handed, by membership; also knocks."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.contents: dict[str, dict[str, Any]] = {}

    def __call__(self, request: HttpRequest) -> Any:
        path = unquote(request.target.partition("?")[0])
        if "/send_" in path:
            content = orjson.loads(request.body or b"")["content"]
            self.contents[content["membership"]] = content
        if "/make_knock/" in path:
            user = path.rpartition("/")[2]
            content = {"membership": "knock"}
            draft = self.forger.draft(self.room, "m.room.member", content, user, sender=user)
            return 200, {"room_version": self.version, "event": draft}
        if "/send_knock/" in path:
            return 200, {"knock_room_state": []}
        return super().__call__(request)


@pytest.mark.parametrize("membership", ["join", "knock"])
async def test_a_reason_to_join_and_to_knock(tmp_path, membership):
    async with matrix_server(tmp_path, "12") as home:
        door = home.wire.peer.answer = Door(home.wire, "12")
        juliet = await home.person("juliet")
        where = f"/{membership}/{part(door.room.room_id)}?server_name={THEIRS}&via={THEIRS}"
        await juliet.call("POST", where, {"reason": REASON})
        assert door.contents[membership]["reason"] == REASON


async def test_a_reason_to_leave_and_to_decline(tmp_path):
    async with matrix_server(tmp_path, "12") as home:
        wire, bob = home.wire, await home.person("bob")
        room = foreign_room(wire, "12")
        raw = invite_to(wire, room, bob.user)
        body = {
            "room_version": "12",
            "event": raw,
            "invite_room_state": [wire.forger.created[room.room_id]],
        }
        invite = pdu_from_raw(raw, room.version)
        path = f"{V2}/invite/{at(room.room_id, invite.event_id)}"
        assert (await wire.ask("PUT", path, body))[0] == 200
        room.keep(invite)
        asked: list[dict[str, Any]] = []

        def answer(request: HttpRequest) -> Any:
            if "/make_leave/" in request.target:
                content = {"membership": "leave"}
                draft = wire.forger.draft(room, "m.room.member", content, bob.user, sender=bob.user)
                return 200, {"room_version": "12", "event": draft}
            if "/v2/send_leave/" in request.target:
                return 404, {"errcode": "M_UNRECOGNIZED"}
            if "/v1/send_leave/" in request.target:
                asked.append(orjson.loads(request.body or b""))
                return 200, [200, {}]
            return None

        wire.peer.answer = answer
        await bob.room(room.room_id, "leave", {"reason": REASON})
        assert [one["content"] for one in asked] == [{"membership": "leave", "reason": REASON}]
