"""EDUs of a hostile server, and EDUs of local users: handled one by one, sent once, never in the way of
events.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hansa import NativeId
from hansa.testing import until
from hansa_matrix.proto.edus import parse_receipts, parse_typing
from hypothesis import given
from hypothesis import strategies as st
from matrix.proto.json_values import json_values
from matrix.server_with_peer import OFFERED, OURS, THEIRS, V1, V2, ServerWithPeer, server_with_peer
from peers.event_forge import EventForge

USER = f"@m:{THEIRS}"


class Shown:
    """The ephemeral events that the core passes on to the other networks of a room."""

    def __init__(self, house: ServerWithPeer) -> None:
        self.signals: list[Any] = []
        context = house.app.contexts["matrix"]

        async def signal(native: str, one: Any) -> None:
            self.signals.append((native, one))

        context.send_ephemeral = signal


async def send(house: ServerWithPeer, *edus: Any, pdus: Any = ()) -> tuple[int, Any]:
    body = {"pdus": list(pdus), "edus": list(edus)}
    return await house.ask("PUT", f"{V1}/send/{id(body)}", body)


def typing(house: ServerWithPeer, user: str = USER, on: Any = True, **over: Any) -> dict[str, Any]:
    content = {"room_id": house.room.room_id, "user_id": user, "typing": on, **over}
    return {"edu_type": "m.typing", "content": content}


async def test_typing_is_told_when_it_changes(tmp_path):
    async with server_with_peer(tmp_path) as house:
        shown = Shown(house)
        for on in (True, True, False, False, True):
            assert (await send(house, typing(house, on=on)))[0] == 200
        told = [(native, s.user, s.typing) for native, s in shown.signals]
        room, user = house.room.room_id, NativeId("matrix", USER)
        assert told == [(room, user, True), (room, user, False), (room, user, True)]


@pytest.mark.parametrize(
    "over",
    [
        {"user_id": "@a:elsewhere"}, {"user_id": f"@a:{OURS}"}, {"user_id": 7}, {"user_id": f"@out:{THEIRS}"},
        {"typing": "yes"}, {"typing": None}, {"room_id": "!none"}, {"room_id": ["!a"]}, {"room_id": None},
    ],
)  # fmt: skip
async def test_typing_that_is_not_for_them_to_say(tmp_path, over):
    async with server_with_peer(tmp_path) as house:
        shown = Shown(house)
        assert (await send(house, typing(house, **over), typing(house)))[0] == 200
        assert len(shown.signals) == 1  # the other one is taken all the same
        assert house.app.counters["matrix_edus_ignored", (("plugin", "matrix"),)] == 1


async def test_who_says_nothing_more_types_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr("hansa_matrix.rooms.typing_and_receipts.TYPES_FOR", 0.05)
    async with server_with_peer(tmp_path) as house:
        shown = Shown(house)
        await send(house, typing(house))
        await until(lambda: len(shown.signals) >= 2)
        assert [s.typing for _, s in shown.signals] == [True, False]


ODD = (
    None,
    7,
    [],
    {},
    {"edu_type": "m.typing"},
    {"edu_type": ["m.typing"], "content": {}},
    {"edu_type": "m.receipt", "content": []},
    {"edu_type": "m.unknown", "content": {}},
)


@pytest.mark.parametrize("edu", ODD)
async def test_t5_what_is_no_edu_is_passed_over_and_the_events_are_taken(tmp_path, edu):
    async with server_with_peer(tmp_path) as house:
        message = house.forger.message(house.room, "x")
        status, answer = await send(house, edu, pdus=[message])
        assert status == 200 and list(answer["pdus"].values()) == [{}]
        assert house.app.counters["matrix_edus_ignored", (("plugin", "matrix"),)] == 1


async def test_t5_a_fault_of_ours_with_an_edu_fails_no_transaction(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:

        async def broken(*_: Any) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(house.matrix.typing_and_receipts, "_set_typing", broken)
        assert (await send(house, typing(house)))[0] == 200
        assert house.app.counters["matrix_edus_failed", (("plugin", "matrix"),)] == 1


THIRD = "127.0.0.3:3"


async def third(house: ServerWithPeer) -> None:
    """Joins a user of a third server to the room."""
    first, second = house.forger, EventForge(THIRD)
    house.peer.keys = lambda r: (200, (second if r.host_header == THIRD else first).keys())
    house.forger = second
    alias, room = "one", house.room
    _, found = await house.ask("GET", f"{V1}/query/directory?room_alias=#{alias}:{OURS}")
    where = f"{quote(found['room_id'], safe='')}/{quote(f'@m:{THIRD}', safe='')}"
    _, template = await house.ask("GET", f"{V1}/make_join/{where}?{OFFERED}")
    join = second.joining(template, "m")
    path = f"{V2}/send_join/{quote(room.room_id, safe='')}/{quote(join.event_id, safe='')}"
    assert (await house.ask("PUT", path, join.raw))[0] == 200
    house.forger = first


async def test_nobody_types_or_reads_for_a_member_of_another_server(tmp_path):
    async with server_with_peer(tmp_path) as house:
        await third(house)
        shown, other, room = Shown(house), f"@m:{THIRD}", house.room.room_id
        entry = {"event_ids": ["$e"], "data": {"ts": 5}}
        receipt = {"edu_type": "m.receipt", "content": {room: {"m.read": {other: entry}}}}
        await send(house, typing(house, other), receipt)
        assert shown.signals == [] and await house.app.contexts["matrix"].store.scan("receipt") == []
        assert house.app.counters["matrix_edus_ignored", (("plugin", "matrix"),)] == 2


async def test_who_is_barred_by_the_server_acl_types_and_reads_nothing_there(tmp_path):
    async with server_with_peer(tmp_path) as house:
        shown, store = Shown(house), house.app.contexts["matrix"].store
        room, other = house.room.room_id, house.other.room_id
        barred = {"allow": ["*"], "deny": [THEIRS.partition(":")[0]]}
        administration = house.matrix.local_events
        await administration.send_state(room, "m.room.server_acl", "", barred)
        entry = {"event_ids": ["$e"], "data": {"ts": 5}}
        content = {one: {"m.read": {USER: entry}} for one in (room, other)}
        await send(house, typing(house), {"edu_type": "m.receipt", "content": content})
        await send(house, typing(house, room_id=other))
        assert [native for native, _ in shown.signals] == [other]
        assert [row.key[0] for row in await store.scan("receipt")] == [other]


async def receipts(house: ServerWithPeer, *given: tuple[str, int, str]) -> dict[str, list[Any]]:
    """Take receipts of ``(event id, ts, thread)``; what is kept, by thread."""
    for event_id, ts, thread in given:
        data = {"ts": ts} | ({"thread_id": thread} if thread else {})
        read = {"m.read": {USER: {"event_ids": [event_id], "data": data}}}
        await send(house, {"edu_type": "m.receipt", "content": {house.room.room_id: read}})
    rows = await house.app.contexts["matrix"].store.scan("receipt")
    return {str(row.key[2]): orjson.loads(row.body) for row in rows}


async def test_an_older_receipt_replaces_no_newer_one(tmp_path):
    async with server_with_peer(tmp_path) as house:
        assert await receipts(house, ("$b", 9, ""), ("$a", 8, "")) == {"": ["$b", 9]}
        assert await receipts(house, ("$c", 10, "")) == {"": ["$c", 10]}
        assert house.app.counters["matrix_receipts_ignored", (("plugin", "matrix"),)] == 1


async def test_of_a_person_with_receipts_in_very_many_threads_the_oldest_goes(tmp_path, monkeypatch):
    monkeypatch.setattr("hansa_matrix.rooms.typing_and_receipts.MAX_THREADS", 3)
    async with server_with_peer(tmp_path) as house:
        kept = await receipts(house, *((f"$e{n}", 100 - n, f"$t{n}") for n in range(5)))
        assert set(kept) == {"$t0", "$t1", "$t4"}


@pytest.mark.parametrize(
    "content",
    [
        {"!none": 7}, {"!r": {"m.read": []}}, {"!r": {"m.read": {USER: {}}}},
        {"!r": {"m.read": {USER: {"event_ids": ["$a", "$b"], "data": {"ts": 1}}}}},
        {"!r": {"m.read": {USER: {"event_ids": ["$a"], "data": {"ts": -1}}}}},
        {"!r": {"m.read": {USER: {"event_ids": ["$a"], "data": {"ts": 1, "thread_id": 2}}}}},
    ],
)  # fmt: skip
async def test_what_is_no_receipt_is_counted(tmp_path, content):
    async with server_with_peer(tmp_path) as house:
        named = {house.room.room_id if room == "!r" else room: kinds for room, kinds in content.items()}
        await send(house, {"edu_type": "m.receipt", "content": named})
        assert house.app.counters["matrix_edus_ignored", (("plugin", "matrix"),)] == 1


async def test_no_more_type_than_are_remembered_and_who_is_forgotten_types_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr("hansa_matrix.rooms.typing_and_receipts.MAX_TYPING", 1)
    async with server_with_peer(tmp_path) as house:
        shown = Shown(house)
        await send(house, typing(house), typing(house, room_id=house.other.room_id))
        told = [(native, s.typing) for native, s in shown.signals]
        one, two = house.room.room_id, house.other.room_id
        assert sorted(told) == sorted([(one, True), (one, False), (two, True)])


async def test_receipts_are_kept_by_thread_and_private_ones_never_taken(tmp_path):
    async with server_with_peer(tmp_path) as house:
        entry = {"event_ids": ["$e"], "data": {"ts": 5}}
        threaded = {"event_ids": ["$f"], "data": {"ts": 6, "thread_id": "$root"}}
        room = house.room.room_id
        for content in (
            {room: {"m.read": {USER: entry}}},
            {room: {"m.read": {USER: threaded}, "m.read.private": {USER: entry}}},
            {room: {"m.read": {"@a:elsewhere": entry}}},
        ):
            await send(house, {"edu_type": "m.receipt", "content": content})
        store = house.matrix.store
        rows = await store.scan("receipt", limit=10)
        kept = {r.key: orjson.loads(r.body) for r in rows}
        assert kept == {(room, USER, ""): ["$e", 5], (room, USER, "$root"): ["$f", 6]}


@given(json_values)
def test_no_content_makes_the_parsers_raise(value: Any) -> None:
    for content in (value, {"!a:x": value}, {"!a:x": {"m.read": value}}, {"!a:x": {"m.read": {USER: value}}}):
        if isinstance(content, dict):
            list(parse_receipts(content, THEIRS))
            parse_typing(content, THEIRS)


@given(st.dictionaries(st.sampled_from(["room_id", "user_id", "typing"]), json_values))
def test_no_typing_makes_the_parser_raise(content: Any) -> None:
    assert parse_typing(content, THEIRS) is None or content["typing"] in {True, False}


# Ours.


async def test_ours_are_told_once_the_last_of_each_and_wait_for_nobody(tmp_path):
    async with server_with_peer(tmp_path) as house:
        sender = house.matrix.sender
        told: list[Any] = []

        def answer(request: Any) -> Any:
            if "/send/" in request.target:
                told.append(orjson.loads(request.body))
                return 200, {}
            return None

        house.peer.answer = answer
        for number in range(3):
            edu = {"edu_type": "m.typing", "content": {"n": number}}
            sender.send_ephemeral([THEIRS, OURS], ("m.typing", "!a", "@a"), edu)
        await until(lambda: told)
        assert [t["edus"] for t in told] == [[{"edu_type": "m.typing", "content": {"n": 2}}]]
        house.peer.answer = lambda _: (500, {})
        sender.send_ephemeral([THEIRS], ("m.typing", "!a", "@a"), {"edu_type": "m.typing", "content": {}})
        await until(lambda: ("matrix_edus_dropped", (("plugin", "matrix"),)) in house.app.counters)
        assert not house.matrix.destination_queues[THEIRS].edus


async def test_no_more_than_100_wait_for_one_server(tmp_path):
    async with server_with_peer(tmp_path) as house:
        sender = house.matrix.sender
        house.matrix.destination_queue("other.example").run = lambda: None
        for number in range(150):
            sender.send_ephemeral(["other.example"], ("m.typing", "!a", str(number)), {"n": number})
        waiting = list(house.matrix.destination_queues["other.example"].edus.values())
        assert waiting == [{"n": n} for n in range(50, 150)]


async def test_no_event_is_given_up_for_an_edu_that_a_peer_will_not_have(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        bodies: list[Any] = []

        def answer(request: Any) -> Any:
            if "/send/" not in request.target:
                return None
            bodies.append((request.target, orjson.loads(request.body)))
            return (400, {"errcode": "M_BAD_JSON"}) if bodies[-1][1].get("edus") else (200, {})

        house.peer.answer = answer
        matrix.sender._add_set(1, (THEIRS,))
        peer = matrix.destination_queues[THEIRS]
        peer.edus["x",] = {"edu_type": "m.typing", "content": {}}
        await matrix.local_events.send_state(house.room.room_id, "m.room.message", None, {"body": "kept"})
        await until(lambda: any(body["pdus"] and not body.get("edus") for _, body in bodies))
        assert len({target for target, _ in bodies}) == len(bodies)
        assert ("matrix_poison_events", (("plugin", "matrix"),)) not in house.app.counters


async def test_a_server_that_does_not_answer_is_told_nothing_more_until_it_is_heard_from(tmp_path):
    async with server_with_peer(tmp_path) as house:
        sender, asked, status = house.matrix.sender, [], [500]

        def answer(request: Any) -> Any:
            asked.append(request)
            return status[0], {}

        house.peer.answer = answer
        edu = {"edu_type": "m.typing", "content": {}}
        sender.send_ephemeral([THEIRS], ("a",), edu)
        await until(lambda: ("matrix_edus_dropped", (("plugin", "matrix"),)) in house.app.counters)
        assert asked[-1].timeout == 10.0
        sender.send_ephemeral([THEIRS], ("a",), edu)
        assert not house.matrix.destination_queues[THEIRS].edus
        status[0] = 200
        sender.heard_from(THEIRS)
        sender.send_ephemeral([THEIRS], ("a",), edu)
        await until(lambda: len(asked) >= 2)


@pytest.mark.parametrize("hours", [20, 24 * 365])
async def test_a_clock_that_is_ahead_keeps_no_later_receipt_out(tmp_path, hours):
    async with server_with_peer(tmp_path) as house:
        now = house.app.contexts["matrix"].clock.now()
        found = await receipts(house, ("$a", now + hours * 3_600_000, ""))
        assert found[""][0] == "$a"
        found = await receipts(house, ("$b", house.app.contexts["matrix"].clock.now(), ""))
        assert found[""][0] == "$b"
