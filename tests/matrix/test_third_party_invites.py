"""An invite by an address that a user turns out to have: their server asks for it, and the room checks it."""

from __future__ import annotations

import json
import secrets
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hansa_matrix.crypto import SigningKey
from hansa_matrix.proto.signing import event_signable, signable_bytes, with_signature
from matrix.server_with_peer import OURS, THEIRS, V1, ServerWithPeer, server_with_peer

TARGET = f"@friend:{THEIRS}"
IDENTITY = SigningKey.from_seed("ed25519:0", secrets.token_bytes(32))


async def opened(house: ServerWithPeer) -> str:
    """A third-party invite by our bridge user stands in the room, which is closed; its sender."""
    matrix = house.matrix
    for kind, key, content in (
        ("m.room.join_rules", "", {"join_rule": "invite"}),
        ("m.room.third_party_invite", "tok", {"public_key": IDENTITY.public, "display_name": "f"}),
    ):
        named = {"room": house.room.room_id, "type": kind, "key": key, "content": json.dumps(content)}
        await matrix.network.admin_commands()["rooms set"](named)

    def countersigns(request: Any) -> Any:
        if "/invite/" not in request.target:
            return None
        event = orjson.loads(request.body)["event"]
        key = house.forger.key
        signature = key.sign(event_signable(event, house.room.version))
        return 200, {"event": with_signature(event, THEIRS, key.key_id, signature)}

    house.peer.answer = countersigns
    return str(matrix.bridge_user)


def body(house: ServerWithPeer, sender: str, *, by: SigningKey = IDENTITY) -> dict[str, Any]:
    plain = {"mxid": TARGET, "token": "tok", "sender": sender}
    signed = with_signature(plain, "identity.example", by.key_id, by.sign(signable_bytes(plain)))
    invite = {"display_name": "f", "signed": signed}
    return {
        "type": "m.room.member",
        "room_id": house.room.room_id,
        "sender": sender,
        "state_key": TARGET,
        "content": {"membership": "invite", "third_party_invite": invite},
    }


async def exchange(house: ServerWithPeer, wanted: dict[str, Any]) -> tuple[int, Any]:
    where = quote(house.room.room_id, safe="")
    return await house.ask("PUT", f"{V1}/exchange_third_party_invite/{where}", wanted)


@pytest.mark.parametrize("version", ["6", "10", "11", "12"])
async def test_mistake_14_a_signature_that_verifies_makes_an_invite_and_no_other_does(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        sender = await opened(house)
        other = SigningKey.from_seed("ed25519:0", secrets.token_bytes(32))
        status, answer = await exchange(house, body(house, sender, by=other))
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
        room = house.matrix.get_room(house.room.room_id)
        assert ("m.room.member", TARGET) not in await room.state()
        assert await exchange(house, body(house, sender)) == (200, {})
        name = (await room.state())["m.room.member", TARGET]
        made = (await room.events.load([name], room.version))[name].pdu
        assert made.membership == "invite" and made.sender == sender
        assert made.raw["signatures"].keys() == {OURS, THEIRS}


async def test_what_is_no_third_party_invite_of_ours_for_theirs(tmp_path):
    async with server_with_peer(tmp_path) as house:
        sender = await opened(house)
        for over, status in (
            ({"sender": f"@x:{THEIRS}"}, 403), ({"state_key": f"@x:{OURS}"}, 403), ({"state_key": "x"}, 403),
            ({"sender": 7}, 400), ({"content": []}, 400), ({"content": {"membership": "join"}}, 400),
            ({"content": {"membership": "invite"}}, 400), ({"room_id": "!other"}, 400), ({"type": "x"}, 400),
        ):  # fmt: skip
            assert (await exchange(house, {**body(house, sender), **over}))[0] == status, over
