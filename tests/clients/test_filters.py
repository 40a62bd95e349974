"""Filters of clients, and values that are not filters."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from clients.matrix_server import LocalUser, Refused, matrix_server, part

ALICE = "@alice:127.0.0.1:1"

NONE: list[dict[str, Any]] = [
    {"room": 7},
    {"room": {"timeline": []}},
    {"room": {"state": "x"}},
    {"presence": 1},
    {"account_data": ["m.*"]},
    {"room": {"rooms": "!a:b"}},
    {"room": {"not_rooms": ["#a:b"]}},
    {"room": {"timeline": {"senders": ["alice"]}}},
    {"room": {"timeline": {"not_senders": [1]}}},
    {"room": {"timeline": {"types": {"m.*": True}}}},
    {"room": {"timeline": {"limit": -1}}},
    {"room": {"timeline": {"limit": "1"}}},
    {"room": {"timeline": {"limit": True}}},
    {"room": {"timeline": {"limit": 1.5}}},
    {"room": {"timeline": {"contains_url": "yes"}}},
    {"room": {"timeline": {"unread_thread_notifications": 1}}},
    {"room": {"state": {"lazy_load_members": "true"}}},
    {"room": {"state": {"include_redundant_members": 0}}},
    {"room": {"include_leave": "true"}},
    {"event_format": "raw"},
    {"event_fields": "content"},
    {"event_fields": [1]},
]


def inline(wanted: Any) -> str:
    return "&filter=" + part(orjson.dumps(wanted).decode())


async def named(person: LocalUser, wanted: Any) -> str:
    found = await person.call("POST", f"/user/{part(person.user)}/filter", wanted)
    return f"&filter={found['filter_id']}"


@pytest.mark.parametrize("wanted", NONE, ids=str)
async def test_what_is_no_filter_is_refused_where_it_is_given(tmp_path, wanted):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        with pytest.raises(Refused) as refused:
            await named(alice, wanted)
        assert (refused.value.status, refused.value.code) == (400, "M_BAD_JSON")
        with pytest.raises(Refused) as refused:
            await alice.sync(inline(wanted))
        assert (refused.value.status, refused.value.code) == (400, "M_INVALID_PARAM")


async def test_what_is_null_is_not_said(tmp_path):
    """As clients write whose language has no way to leave a field out."""
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        timeline = {"limit": None, "types": None, "contains_url": None, "lazy_load_members": None}
        for wanted in (
            {"room": {"timeline": timeline, "state": None, "rooms": None}, "presence": None},
            {"room": None, "event_format": None, "event_fields": None},
            {"room": {"timeline": {"limit": 10.0}}},
        ):
            alice.since = ""
            found = await alice.sync(await named(alice, wanted))
            assert len(found["rooms"]["join"][room]["timeline"]["events"]) > 1


async def test_a_filter_lists_so_many(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        await named(alice, {"room": {"timeline": {"types": ["x"] * 1000}}})
        with pytest.raises(Refused, match="M_BAD_JSON"):
            await named(alice, {"room": {"timeline": {"types": ["x"] * 1001}}})
        await named(alice, {"room": {"state": {"types": ["x.*"] * 50}}, "event_fields": ["a"] * 100})
        for wanted in ({"room": {"state": {"not_types": ["x.*"] * 51}}}, {"event_fields": ["a"] * 101}):
            with pytest.raises(Refused, match="M_BAD_JSON"):
                await named(alice, wanted)


async def test_unknown_parts_of_a_filter_are_kept(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        wanted = {"org.example": {"x": 1}, "room": {"timeline": {"org.example": 1, "limit": 0}}}
        target = f"/user/{part(alice.user)}/filter/{(await named(alice, wanted)).removeprefix('&filter=')}"
        assert await alice.get(target) == wanted
        with pytest.raises(Refused) as refused:
            await alice.get(f"/user/{part(alice.user)}/filter/none")
        assert refused.value.status == 404


@pytest.mark.parametrize(
    ("types", "taken"),
    [
        (["m.room.*"], {"m.room.message"}), (["*message"], {"m.room.message"}), (["test.[a]"], {"test.[a]"}),
        (["test.?"], set()), (["*.*.*"], {"m.room.message"}), (["*"], {"m.room.message", "test.[a]", "test.a"}),
        (["t*t*"], {"test.[a]", "test.a"}), (["m*m*m*m*e"], set()), ([], set()),
    ],
)  # fmt: skip
async def test_only_a_star_stands_for_anything(tmp_path, types, taken):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        await alice.sync()
        for type_ in ("m.room.message", "test.[a]", "test.a"):
            await alice.say(room, type_=part(type_), body="x", msgtype="m.text")
        since = alice.since
        found = await alice.sync(inline({"room": {"timeline": {"types": types}}}))
        events = found.get("rooms", {}).get("join", {}).get(room, {}).get("timeline", {}).get("events", [])
        assert {e["type"] for e in events} == taken
        alice.since = since
        found = await alice.sync(inline({"room": {"timeline": {"not_types": types}}}))
        events = found["rooms"]["join"][room]["timeline"]["events"]
        assert {e["type"] for e in events} == {"m.room.message", "test.[a]", "test.a"} - taken


async def test_state_is_filtered_by_who_made_it(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        for wanted, senders in (
            ({"senders": [bob.user]}, {bob.user}),
            ({"not_senders": [bob.user]}, {alice.user}),
        ):
            alice.since = ""
            found = await alice.sync(inline({"room": {"state": wanted, "timeline": {"limit": 0}}}))
            assert {e["sender"] for e in found["rooms"]["join"][room]["state"]["events"]} == senders


async def test_parts_of_a_room_are_filtered_by_room(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        rooms = [await alice.create(preset="public_chat") for _ in range(2)]
        for room in rooms:
            await bob.join(room)
            said = await alice.say(room, "x")
            await bob.call("POST", f"/rooms/{part(room)}/receipt/m.read/{part(said)}", {})
            await bob.call("PUT", f"/user/{part(bob.user)}/rooms/{part(room)}/account_data/test.x", {"a": 1})
        for key in ("rooms", "not_rooms"):
            bob.since = ""
            only = {key: [rooms[0]]}
            found = await bob.sync(inline({"room": {"ephemeral": only, "account_data": only}}))
            joined = found["rooms"]["join"]
            with_receipts = {r for r in rooms if joined[r]["ephemeral"]["events"]}
            with_data = {r for r in rooms if joined[r]["account_data"]["events"]}
            assert with_receipts == with_data == {rooms[key == "not_rooms"]}


async def test_presence_is_filtered_by_whose_it_is(tmp_path):
    async with matrix_server(tmp_path, presence_enabled=True) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await alice.sync()
        found = await bob.sync(inline({"presence": {"not_senders": [bob.user]}}))
        assert [e["sender"] for e in found["presence"]["events"]] == [alice.user]
        bob.since = ""
        found = await bob.sync(inline({"presence": {"senders": [bob.user]}}))
        assert [e["sender"] for e in found["presence"]["events"]] == [bob.user]


@pytest.mark.parametrize("stored", [False, True])
async def test_events_as_servers_send_them(tmp_path, stored):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(name="Verona")
        said = await alice.say(room, "hello")
        wanted = {"event_format": "federation", "room": {"timeline": {"limit": 1}}}
        found = await alice.sync(await named(alice, wanted) if stored else inline(wanted))
        (event,) = found["rooms"]["join"][room]["timeline"]["events"]
        assert (event["event_id"], event["content"]["body"], event["room_id"]) == (said, "hello", room)
        assert set(event) >= {"auth_events", "prev_events", "depth", "hashes", "signatures"}
        assert event["unsigned"]["membership"] == "join"
        names = [e for e in found["rooms"]["join"][room]["state"]["events"] if e["type"] == "m.room.name"]
        assert names[0]["hashes"]


async def test_events_with_the_fields_that_are_wanted(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        await alice.say(room, **{"msgtype": "m.text", "body": "hello", "m.x": {"y": 1, "z": 2}, "b.c": 3})
        wanted = {
            "event_fields": ["content.body", "content.m\\.x.y", "content.none", "content.b\\.c"],
            "room": {"timeline": {"limit": 1}},
        }
        found = await alice.sync(inline(wanted))
        (event,) = found["rooms"]["join"][room]["timeline"]["events"]
        assert event["content"] == {"body": "hello", "m.x": {"y": 1}, "b.c": 3}
        assert "unsigned" not in event
        assert event["type"] == "m.room.message"
        assert all(e["content"] == {} for e in found["rooms"]["join"][room]["state"]["events"])
