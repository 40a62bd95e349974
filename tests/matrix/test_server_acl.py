"""Server ACLs: who a room bars gets nothing of it and gives nothing to it, and the room goes on for others."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hansa import LocalProtocolError
from hansa_matrix.proto.hashing import event_id
from matrix.server_with_peer import OURS, THEIRS, V1, V2, ServerWithPeer, server_with_peer


async def put(house: ServerWithPeer, content: dict, room: str = "") -> None:
    """The room's list, by us."""
    set_state = house.matrix.network.admin_commands()["rooms set"]
    named = {"room": room or house.room.room_id, "type": "m.room.server_acl", "content": json.dumps(content)}
    await set_state(named)


async def test_nobody_bars_themselves(tmp_path):
    async with server_with_peer(tmp_path) as house:
        for content in (
            {"allow": ["*"], "deny": ["127.0.0.1"]},
            {},
            {"allow": ["*"], "allow_ip_literals": False},
        ):
            with pytest.raises(LocalProtocolError, match=f"would bar {OURS} itself"):
                await put(house, content)


async def test_who_is_barred_gets_403_wherever_the_list_applies_and_their_events_are_not_taken(tmp_path):
    async with server_with_peer(tmp_path) as house:
        event = house.forger.message(house.room, "before")
        assert await house.fate(event) == "accepted"
        known, room = event_id(event, house.room.version), quote(house.room.room_id, safe="")
        await put(house, {"allow": ["*"], "deny": ["127.0.0.2"]})
        user, name = quote(f"@m:{THEIRS}", safe=""), quote(known, safe="")
        asked = [
            ("GET", f"{V1}/make_join/{room}/{user}?ver=12", None),
            ("PUT", f"{V2}/send_join/{room}/{name}", {}),
            ("GET", f"{V1}/make_leave/{room}/{user}", None),
            ("PUT", f"{V2}/send_leave/{room}/{name}", {}),
            ("GET", f"{V1}/state/{room}?event_id={name}", None),
            ("GET", f"{V1}/state_ids/{room}?event_id={name}", None),
            ("GET", f"{V1}/event_auth/{room}/{name}", None),
            ("GET", f"{V1}/backfill/{room}?v={name}&limit=5", None),
            ("POST", f"{V1}/get_missing_events/{room}", {"latest_events": [known], "earliest_events": []}),
        ]
        for method, target, body in asked:
            status, answer = await house.ask(method, target, body)
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), target
            assert "server ACL" in answer["error"], target
        assert (await house.ask("GET", f"{V1}/event/{name}"))[0] == 200
        late = house.forger.message(house.room, "late")
        elsewhere = house.forger.message(house.other, "elsewhere")
        status, answer = await house.send(late, elsewhere)
        said = {e: bool(result) for e, result in answer["pdus"].items()}
        assert (status, said) == (
            200,
            {event_id(late, house.room.version): True, event_id(elsewhere, house.room.version): False},
        )
        assert house.counted("matrix_pdus") == {"barred": 1}


async def test_an_invite_of_a_server_that_is_barred_is_not_signed(tmp_path):
    async with server_with_peer(tmp_path) as house:
        await put(house, {"allow": ["127.0.0.1"]})
        draft = house.forger.draft(house.room, "m.room.member", {"membership": "invite"}, f"@somebody:{OURS}")
        raw = house.forger.finish(house.room, draft)
        create = house.forger.created[house.room.room_id]
        body = {"room_version": "12", "event": raw, "invite_room_state": [create]}
        where = f"{quote(house.room.room_id, safe='')}/{quote(event_id(raw, house.room.version), safe='')}"
        status, answer = await house.ask("PUT", f"{V2}/invite/{where}", body)
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN") and "server ACL" in answer["error"]


async def test_whether_one_is_a_member_is_asked_before_the_list(tmp_path):
    """A server outside of the room does not learn from the answer that the room bars it."""
    async with server_with_peer(tmp_path) as house:
        await house.app.link_room(["matrix:#three"], create=True)
        room = await house.matrix.network.room_at(f"#three:{OURS}")
        await put(house, {"allow": ["127.0.0.1"]}, room)
        status, answer = await house.ask("GET", f"{V1}/state_ids/{quote(room, safe='')}?event_id=x")
        assert (status, answer["error"]) == (403, f"{THEIRS} is not in that room")


async def test_a_list_that_is_taken_away_bars_nobody(tmp_path):
    async with server_with_peer(tmp_path) as house:
        await put(house, {"allow": ["127.0.0.1"]})
        assert (await house.send(house.forger.message(house.room, "x")))[0] == 200
        await put(house, {"allow": ["*"]})
        assert await house.fate(house.forger.message(house.room, "y")) == "accepted"
