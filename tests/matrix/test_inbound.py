"""Requests and events of a hostile server, against the network in memory."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hansa.testing import until
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import parse_pdu, pdu_from_raw
from hansa_matrix.rooms.inbound.backlog import memory_size
from matrix.server_with_peer import OURS, THEIRS, V1, V2, server_with_peer
from peers.event_forge import JoinedRoom

VERSIONS = pytest.mark.parametrize("version", ["1", "3", "6", "10", "11", "12"])


def message(house, text="x", **over):
    return house.forger.message(house.room, text, **over)


@VERSIONS
async def test_an_event_after_one_of_another_room_is_refused(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        assert await house.fate(message(house)) == "accepted"
        assert await house.fate(message(house, prev_events=list(house.other.tips))) == "refused"
        assert await house.fate(message(house, "y")) == "accepted"


async def test_a_join_after_an_event_of_another_room_is_refused(tmp_path):
    async with server_with_peer(tmp_path) as house:
        user = f"@new:{THEIRS}"
        guest = JoinedRoom(house.room.room_id, "12", user)
        guest.state = house.room.state
        join = house.forger.draft(
            guest, "m.room.member", {"membership": "join"}, user, prev_events=list(house.other.tips), depth=9
        )
        raw = house.forger.finish(guest, join)
        name = event_id(raw, guest.version)
        path = f"{V2}/send_join/{quote(guest.room_id, safe='')}/{quote(name, safe='')}"
        status, answer = await house.ask("PUT", path, raw)
        assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("room_id", [["!a"], {}, 1, None, True])
async def test_a_room_id_of_any_shape_is_of_no_room(tmp_path, room_id):
    async with server_with_peer(tmp_path) as house:
        good = message(house)
        status, answer = await house.send({"room_id": room_id}, good)
        assert status == 200 and list(answer["pdus"]) == [event_id(good, house.room.version)]
        assert house.counted("matrix_pdus") == {"unknown_room": 1}


@pytest.mark.parametrize("membership", [["join"], {}, 1, None])
async def test_a_membership_of_any_shape_is_rejected_and_the_network_lives(tmp_path, membership):
    async with server_with_peer(tmp_path) as house:
        content = {"membership": membership}
        member = house.forger.draft(house.room, "m.room.member", content, house.room.user)
        assert await house.fate(house.forger.finish(house.room, member)) == "rejected"
        assert await house.fate(message(house)) == "accepted"
        assert house.app.runners["matrix"].restarts == 0


async def test_what_one_event_is_like_does_not_keep_the_others_out(tmp_path):
    async with server_with_peer(tmp_path) as house:
        good = message(house)
        room = f'"room_id":"{house.room.room_id}"'.encode()
        bad = [b'{"content":{"x":1180591620717411303424},' + room + b"}", b'{"depth":1e22,' + room + b"}"]
        bad.append(b'{"a":' + b"[" * 300 + b"]" * 300 + b"," + room + b"}")
        body = b'{"pdus":[' + b",".join([*bad, orjson.dumps(good)]) + b"]}"
        status, answer = await house.ask("PUT", f"{V1}/send/1", body)
        assert status == 200 and list(answer["pdus"]) == [event_id(good, house.room.version)]
        assert house.counted("matrix_pdus")["dropped"] == len(bad)


async def test_a_body_that_is_not_in_canonical_form_is_signed_in_it(tmp_path):
    async with server_with_peer(tmp_path) as house:
        target = f"{V1}/send/1"
        header = house.forger.signed("PUT", OURS, target, b'{"origin_server_ts":1,"pdus":[]}')
        house.forger.signed = lambda *_, **__: header
        assert (await house.ask("PUT", target, b' {"pdus" :[], "origin_server_ts":1}'))[0] == 200
        assert (await house.ask("PUT", target, b' {"pdus" :[], "origin_server_ts":2}'))[0] == 401


async def test_long_transaction_ids_are_never_taken_for_one_another(tmp_path):
    async with server_with_peer(tmp_path) as house:
        for length, status in ((255, 200), (256, 400)):
            found, answer = await house.ask("PUT", f"{V1}/send/{'t' * length}", {"pdus": []})
            assert found == status, answer


@pytest.mark.parametrize("version", [["11"], {}, 11, None, "99"])
async def test_an_invite_to_a_version_of_any_shape_is_refused(tmp_path, version):
    async with server_with_peer(tmp_path) as house:
        status, answer = await house.ask(
            "PUT", f"{V2}/invite/!a:b/$c", {"room_version": version, "event": {}}
        )
        assert (status, answer["errcode"]) == (400, "M_INCOMPATIBLE_ROOM_VERSION")


@pytest.mark.parametrize("limit", ["²", "٣", "-1", "x", "", "9" * 40])
async def test_a_limit_of_any_shape_is_survived(tmp_path, limit):
    async with server_with_peer(tmp_path) as house:
        room, tip = house.room.room_id, next(iter(house.room.tips))
        status, answer = await house.ask("GET", f"{V1}/backfill/{quote(room, safe='')}?v={tip}&limit={limit}")
        assert status == 200 and answer["pdus"]


async def test_what_our_own_code_cannot_judge_waits_and_keeps_nobody_out(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        found = matrix.submitter.build_submission

        async def broken(pdu, *rest, **more):
            if pdu.content.get("body") == "poison":
                raise TypeError("a bug")
            return await found(pdu, *rest, **more)

        monkeypatch.setattr(matrix.submitter, "build_submission", broken)
        poison = message(house, "poison")
        assert await house.fate(poison) == "failed"
        assert await house.fate(message(house, secrets.token_hex(4))) == "accepted"
        assert house.app.runners["matrix"].restarts == 0
        rows = await matrix.store.scan("staged", equal=(house.room.room_id,), limit=10)
        assert [row.fields["event_id"] for row in rows] == [event_id(poison, house.room.version)]


async def test_nobody_waits_for_an_event_whose_past_nobody_gives(tmp_path):
    async with server_with_peer(tmp_path) as house:
        for n in range(5):
            stuck = message(house, f"stuck {n}", prev_events=["$" + secrets.token_urlsafe(32)])
            assert (await house.send(stuck))[0] == 200
            assert await house.fate(message(house, f"fresh {n}")) == "accepted"


async def test_what_the_events_of_a_transaction_stand_on_is_read_at_once(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        store, asked = matrix.store, list[int]()
        get_many = store.get_many

        async def watched(collection: str, keys: Any) -> Any:
            if collection == "pdu":
                asked.append(len(keys))
            return await get_many(collection, keys)

        people = [f"@m{number}:{THEIRS}" for number in range(10)]
        for user in people:
            guest = JoinedRoom(house.room.room_id, "12", user)
            guest.state, guest.tips = house.room.state, house.room.tips
            raw = house.forger.finish(
                guest, house.forger.draft(guest, "m.room.member", {"membership": "join"}, user)
            )
            assert await house.fate(raw) == "accepted"
            house.room.keep(pdu_from_raw(raw, house.room.version))
        ends = list(house.room.tips)
        words = []
        for user in people:
            guest = JoinedRoom(house.room.room_id, "12", user)
            guest.state = house.room.state
            words.append(house.forger.message(guest, user, prev_events=ends, depth=30))
        assert all(len(raw["auth_events"]) == 2 for raw in words)
        matrix.keep_forward_extremities()
        matrix.event_cache.clear()
        monkeypatch.setattr(store, "get_many", watched)
        assert (await house.send(*words))[0] == 200
        await until(lambda: not matrix.staging.waiting_count(house.room.room_id))
        # What they stand on, and the create event, which nothing names.
        assert asked == [11, 1]


async def test_events_that_wait_take_so_much_memory_of_one_server(tmp_path, monkeypatch):
    """5,000 may wait in a room; of 64 KiB of empty objects each these would be 10 GB."""
    async with server_with_peer(tmp_path) as house:

        def heavy() -> dict[str, Any]:
            content = {"a": [{"": 0}] * 8000}
            return house.forger.finish(house.room, house.forger.draft(house.room, "x.y", content))

        raw = heavy()
        assert memory_size(parse_pdu(raw, house.room.version)) > 1_500_000
        monkeypatch.setattr("hansa_matrix.rooms.inbound.backlog.MAX_BYTES_EACH", 1_000_000)
        status, answer = await house.send(raw)
        assert (status, answer["errcode"]) == (429, "M_LIMIT_EXCEEDED")
        assert (await house.send(house.forger.message(house.room, "small")))[0] == 200
        monkeypatch.setattr("hansa_matrix.rooms.inbound.backlog.MAX_BYTES_EACH", 64 * 1024 * 1024)
        assert await house.fate(heavy()) == "accepted"
