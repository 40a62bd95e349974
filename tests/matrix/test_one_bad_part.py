"""One wrong part of a transaction or an answer does not affect the other parts."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hansa import HttpResponse
from hansa.testing import until
from hansa_matrix.proto.canonical_json import loads_json
from hansa_matrix.proto.hashing import event_id
from matrix.server_with_peer import OURS, THEIRS, V1, ServerWithPeer, server_with_peer

#: Parts that some parser cannot read, or that nobody can encode.
ODD = {
    "half a pair": b'"\\ud800"',
    "NaN": b"NaN",
    "infinite": b"1e999",
    "huge": b"9" * 400,
    "deep": b"[" * 300 + b"]" * 300,
    "deeper": b"[" * 1100 + b"]" * 1100,
}
EACH = pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def said(house: ServerWithPeer, content: dict[str, Any], text: str = "x") -> dict[str, Any]:
    draft = house.forger.draft(house.room, "m.room.message", {"msgtype": "m.text", "body": text, **content})
    return house.forger.finish(house.room, draft)


@pytest.mark.parametrize("version", ["1", "6", "10", "12"])
@pytest.mark.parametrize("depth", [97, 110, 125])
async def test_an_event_that_nests_as_deep_as_others_take_it_stops_no_room(tmp_path, version, depth):
    async with server_with_peer(tmp_path, version) as house:
        deep = said(house, {"x": nested(depth)})
        assert await house.fate(deep) == "accepted"
        assert await house.fate(said(house, {}, "after it")) == "accepted"
        target = f"{V1}/event/{quote(event_id(deep, house.room.version), safe='')}"
        status, answer = await house.ask("GET", target)
        assert status == 200 and answer["pdus"][0]["content"] == deep["content"]


@EACH
@pytest.mark.parametrize("version", ["5", "12"])
async def test_what_stands_in_unsigned_is_nobody_s_matter(tmp_path, version, odd):
    async with server_with_peer(tmp_path, version) as house:
        raw = said(house, {})
        fine = said(house, {}, "fine")
        body = orjson.dumps(raw)[:-1] + b',"unsigned":{"age":1.5,"x":' + odd + b"}}"
        status, answer = await house.ask(
            "PUT", f"{V1}/send/1", b'{"pdus":[' + body + b"," + orjson.dumps(fine) + b"]}"
        )
        expected = {event_id(one, house.room.version) for one in (raw, fine)}
        if odd == ODD["deeper"]:  # cut off before its end is known
            expected = {event_id(fine, house.room.version)}
        assert status == 200 and set(answer["pdus"]) == expected


@EACH
@pytest.mark.parametrize("version", ["5", "12"])
async def test_of_a_transaction_one_part_is_dropped(tmp_path, version, odd):
    async with server_with_peer(tmp_path, version) as house:
        bad = orjson.dumps(said(house, {"x": "ODD"})).replace(b'"ODD"', odd)
        good = said(house, {}, "good")
        typing = {"room_id": house.room.room_id, "user_id": house.room.user, "typing": True}
        edus = [
            b'{"edu_type":"m.typing","content":{"x":' + odd + b"}}",
            orjson.dumps({"edu_type": "m.typing", "content": typing}),
        ]
        body = b'{"edus":[' + b",".join(edus) + b'],"pdus":[' + bad + b"," + orjson.dumps(good) + b"]}"
        status, answer = await house.ask("PUT", f"{V1}/send/1", body)
        assert status == 200 and set(answer["pdus"]) == {event_id(good, house.room.version)}
        counted = house.counted("matrix_pdus")
        assert counted.get("dropped", 0) + counted.get("unknown_room", 0) == 1


#: Every kind of answer that Hansa asks other servers for: where its parts stand.
ANSWERS = {
    "backfill": b'{"pdus":[{"content":{"x":%b}},{"type":"good"}]}',
    "get_missing_events": b'{"events":[{"content":{"x":%b}},{"type":"good"}]}',
    "event": b'{"pdus":[{"type":"good","unsigned":{"x":%b}}]}',
    "state": b'{"pdus":[{"content":{"x":%b}},{"type":"good"}],"auth_chain":[]}',
    "state_ids": b'{"pdu_ids":[%b,"good"],"auth_chain_ids":[]}',
    "event_auth": b'{"auth_chain":[{"content":{"x":%b}},{"type":"good"}]}',
    "make_join": b'{"event":{"content":{"x":%b}},"room_version":"good"}',
    "invite": b'{"event":{"unsigned":{"x":%b},"type":"good"}}',
    "user/keys/query": b'{"device_keys":{"@a:x":{"A":{"unsigned":{"x":%b}}},"@b:x":{"B":"good"}}}',
    "user/keys/claim": b'{"one_time_keys":{"@a:x":{"A":{"k":%b}},"@b:x":{"B":"good"}}}',
    "user/devices": b'{"devices":[{"device_display_name":%b},{"device_id":"good"}],"stream_id":1}',
    "publicRooms": b'{"chunk":[{"name":%b},{"name":"good"}]}',
    "hierarchy": b'{"children":[{"topic":%b},{"name":"good"}],"room":{}}',
    "query/profile": b'{"displayname":%b,"avatar_url":"good"}',
    "query/directory": b'{"servers":[%b],"room_id":"good"}',
    "timestamp_to_event": b'{"x":%b,"event_id":"good"}',
}


@EACH
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
async def test_of_an_answer_one_part_is_dropped(tmp_path, answer, odd):
    """The remaining part can be stored and passed on: it has a JSON form."""
    found = loads_json(answer.replace(b"%b", odd))
    assert '"good"' in orjson.dumps(found).decode()


@EACH
async def test_an_answer_reaches_who_asked_but_for_one_part(tmp_path, odd):
    async with server_with_peer(tmp_path) as house:
        body = b'{"chunk":[{"name":' + odd + b'},{"name":"good"}],"pad":"' + b"x" * 100_000 + b'"}'
        for whole in (body, body.replace(b"x" * 100_000, b"")):
            house.peer.answer = lambda _, whole=whole: HttpResponse(status=200, body=whole)
            client = house.matrix.federation_client
            answer = await client.request("GET", THEIRS, f"/_matrix/federation/v1/{OURS}")
            assert answer["chunk"][1] == {"name": "good"}


@EACH
async def test_a_device_list_with_one_odd_name(tmp_path, odd):
    async with server_with_peer(tmp_path) as house:
        user = house.room.user

        def device(name: str) -> dict[str, Any]:
            keys = {"user_id": user, "device_id": name, "algorithms": [], "keys": {}, "signatures": {}}
            return {"device_id": name, "keys": keys}

        first = device("A") | {"device_display_name": "ODD"}
        body = orjson.dumps({"user_id": user, "stream_id": 3, "devices": [first, device("B")]})
        house.peer.answer = lambda _: HttpResponse(status=200, body=body.replace(b'"ODD"', odd))
        remote = house.matrix.users.remote
        remote.schedule_fetch(user)
        await until(lambda: not house.matrix.device_list_fetches)
        found = await remote.get_current(user)
        assert found is not None and set(found.devices) == {"A", "B"}
