"""The unsigned fields of an event: the same by each endpoint."""

from __future__ import annotations

from typing import Any

import pytest
from clients.matrix_server import LocalUser, matrix_server, part
from hansa_matrix.client_api.rooms import client_events

V1 = "/_matrix/client/v1"


async def everywhere(person: LocalUser, room: str, event: str) -> dict[str, Any]:
    """An event as each endpoint gives it."""
    where = f"/rooms/{part(room)}"
    timeline = part('{"room":{"timeline":{"limit":50}}}')
    answers = {
        "sync": (await person.get(f"/sync?filter={timeline}"))["rooms"]["join"][room]["timeline"]["events"],
        "messages": (await person.get(f"{where}/messages?dir=b&limit=50"))["chunk"],
        "event": [await person.get(f"{where}/event/{part(event)}")],
        "context": [(await person.get(f"{where}/context/{part(event)}"))["event"]],
        "initialSync": (await person.get(f"{where}/initialSync?limit=50"))["messages"]["chunk"],
        "events": (await person.get(f"/events?room_id={part(room)}&from=s0"))["chunk"],
    }
    found: dict[str, Any] = {}
    for name, events in answers.items():
        (found[name],) = [e for e in events if e["event_id"] == event]
        found[name]["unsigned"].pop("age")
        found[name].pop("room_id", None)
        for inner in found[name]["unsigned"].values():
            if isinstance(inner, dict):
                inner.pop("room_id", None)
    return found


async def test_what_was_there_before(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        first = await alice.state(room, "m.room.topic", {"topic": "first"})
        second = await alice.state(room, "m.room.topic", {"topic": "second"})
        for one in (await everywhere(alice, room, second)).values():
            assert one["unsigned"]["prev_content"] == {"topic": "first"}
            assert one["unsigned"]["replaces_state"] == first
        for one in (await everywhere(alice, room, first)).values():
            assert "prev_content" not in one["unsigned"] and "replaces_state" not in one["unsigned"]
        found = await alice.get(f"/rooms/{part(room)}/state/m.room.topic?format=event")
        assert found["unsigned"]["replaces_state"] == first
        assert "age" in found["unsigned"] and found["room_id"] == room


async def test_pages_of_large_states_name_what_they_replaced_behind_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(client_events, "MAX_BYTES", 20_000)
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        said = [await alice.state(room, "m.room.topic", {"topic": f"{n}" * 9000}) for n in range(6)]
        chunk = (await alice.get(f"/rooms/{part(room)}/messages?dir=b&limit=5"))["chunk"]
        assert [e["unsigned"]["replaces_state"] for e in chunk] == said[4::-1]
        assert ["prev_content" in e["unsigned"] for e in chunk] == [True, True, True, False, False]


async def in_states(person: LocalUser, room: str, key: tuple[str, str], event: str) -> dict[str, Any]:
    """A state event as each answer gives it that has a whole state, or a part of one."""
    where = f"/rooms/{part(room)}"
    lazy = part('{"lazy_load_members":true}')
    wanted = part('{"room":{"timeline":{"limit":0}}}')
    sync = await person.get(f"/sync?full_state=true&filter={wanted}")
    after = await person.get(f"/sync?full_state=true&use_state_after=true&filter={wanted}")
    answers = {
        "state": await person.get(f"{where}/state"),
        "members": (await person.get(f"{where}/members"))["chunk"],
        "sync": sync["rooms"]["join"][room]["state"]["events"],
        "after": after["rooms"]["join"][room]["state_after"]["events"],
        "initialSync": (await person.get(f"{where}/initialSync"))["state"],
        "context": (await person.get(f"{where}/context/{part(event)}"))["state"],
        "messages": (await person.get(f"{where}/messages?dir=b&filter={lazy}"))["state"],
    }
    found: dict[str, Any] = {}
    for name, events in answers.items():
        if name not in {"members", "messages"} or key[0] == "m.room.member":
            (found[name],) = [e for e in events if (e["type"], e["state_key"]) == key]
    return found


async def test_what_was_there_before_in_every_state(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        first = await alice.state(room, "m.room.topic", {"topic": "first"})
        second = await alice.state(room, "m.room.topic", {"topic": "second"})
        (joined,) = [e["event_id"] for e in (await alice.get(f"/rooms/{part(room)}/members"))["chunk"]]
        named = {"membership": "join", "displayname": "Al"}
        called = await alice.state(room, "m.room.member", named, alice.user)
        for one in (await in_states(alice, room, ("m.room.topic", ""), second)).values():
            assert one["unsigned"]["prev_content"] == {"topic": "first"}
            assert (one["unsigned"]["replaces_state"], one["unsigned"]["prev_sender"]) == (first, alice.user)
        for one in (await in_states(alice, room, ("m.room.member", alice.user), called)).values():
            assert one["unsigned"]["prev_content"] == {"membership": "join", "displayname": "alice"}
            assert one["unsigned"]["replaces_state"] == joined
        for one in (await in_states(alice, room, ("m.room.create", ""), called)).values():
            assert one["unsigned"].keys() == {"age"}


@pytest.mark.parametrize("visibility", ["joined", "invited"])
async def test_who_came_later_reads_of_no_state_what_it_was_before(tmp_path, visibility):
    """A replacing event is shown for its effect on the room, even to users who may not read its past."""
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        hidden = {
            "type": "m.room.history_visibility",
            "state_key": "",
            "content": {"history_visibility": visibility},
        }
        room = await alice.create(preset="public_chat", initial_state=[hidden])
        await alice.state(room, "m.room.topic", {"topic": "Bob is dismissed"})
        second = await alice.state(room, "m.room.topic", {"topic": "welcome"})
        secret = {"membership": "join", "displayname": "enemy of Bob"}
        await alice.state(room, "m.room.member", secret, alice.user)
        called = await alice.state(room, "m.room.member", {"membership": "join"}, alice.user)
        await bob.join(room)
        said = await alice.say(room, "x")
        for key in (("m.room.topic", ""), ("m.room.member", alice.user)):
            for name, one in (await in_states(bob, room, key, said)).items():
                assert one["unsigned"].keys() == {"age"}, name
            event = second if key[0] == "m.room.topic" else called
            for name, one in (await in_states(alice, room, key, said)).items():
                assert one["event_id"] == event and "prev_content" in one["unsigned"], name
        last = await alice.state(room, "m.room.topic", {"topic": "what Bob was here for"})
        for one in (await in_states(bob, room, ("m.room.topic", ""), last)).values():
            if one["event_id"] == last:  # what stands before it is the one of before
                assert one["unsigned"]["prev_content"] == {"topic": "welcome"}
        # What was said before the room was opened stays with who was there.
        opened = {"history_visibility": "shared"}
        await alice.state(room, "m.room.history_visibility", opened)
        eve = await home.person("eve")
        await eve.join(room)
        for one in await eve.get(f"/rooms/{part(room)}/state"):
            if one["type"] == "m.room.topic" or one["state_key"] == alice.user:
                assert one["unsigned"].keys() == {"age"}
        again = await alice.state(room, "m.room.topic", {"topic": "open"})
        zoe = await home.person("zoe")
        await zoe.join(room)
        found = await zoe.get(f"/rooms/{part(room)}/state")
        (topic,) = [e for e in found if e["type"] == "m.room.topic"]
        assert (topic["event_id"], topic["unsigned"]["prev_content"]) == (
            again,
            {"topic": "what Bob was here for"},
        )


async def test_a_state_that_was_taken_back_says_so_in_every_state(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        topic = await alice.state(room, "m.room.topic", {"topic": "x"})
        path = f"/rooms/{part(room)}/redact/{part(topic)}/1"
        by = (await alice.call("PUT", path, {"reason": "oops"}))["event_id"]
        for one in (await in_states(alice, room, ("m.room.topic", ""), topic)).values():
            assert (one["content"], one["unsigned"]["redacted_by"]) == ({}, by)
            assert one["unsigned"]["redacted_because"]["content"]["reason"] == "oops"


@pytest.mark.parametrize("version", ["10", "12"])
async def test_what_was_taken_back(tmp_path, version):
    async with matrix_server(tmp_path, version) as home:
        alice = await home.person("alice")
        room = await alice.create(room_version=version)
        said = await alice.say(room, "x")
        topic = await alice.state(room, "m.room.topic", {"topic": "x"})
        for event in (said, topic):
            path = f"/rooms/{part(room)}/redact/{part(event)}/{event[1:5]}"
            by = (await alice.call("PUT", path, {"reason": "oops"}))["event_id"]
            shown = await everywhere(alice, room, event)
            for one in shown.values():
                assert one["content"] == {}
                assert one["unsigned"]["redacted_by"] == by
                because = one["unsigned"]["redacted_because"]
                assert (because["event_id"], because["content"]["reason"]) == (by, "oops")
                assert because["redacts"] == because["content"]["redacts"] == event
        found = await alice.get(f"/rooms/{part(room)}/state/m.room.topic?format=event")
        assert found["unsigned"]["redacted_by"] == by


async def test_by_which_request_it_was_sent(tmp_path):
    """For the device that sent it alone."""
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        phone = await home.person("alice", "PHONE")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        path = f"/rooms/{part(room)}/send/m.room.message/mine"
        said = (await alice.call("PUT", path, {"msgtype": "m.text", "body": "x"}))["event_id"]
        for reader, known in ((alice, "mine"), (phone, None), (bob, None)):
            for one in (await everywhere(reader, room, said)).values():
                assert one["unsigned"].get("transaction_id") == known
        inside = {
            "m.relates_to": {"rel_type": "m.replace", "event_id": said},
            "body": "y",
            "msgtype": "m.text",
        }
        edit = (await alice.call("PUT", f"{path}2", inside))["event_id"]
        shown = await everywhere(alice, room, said)
        for one in shown.values():
            bundled = one["unsigned"]["m.relations"]["m.replace"]
            assert (bundled["event_id"], bundled["unsigned"]["transaction_id"]) == (edit, "mine2")
        related = await alice.get(f"{V1}/rooms/{part(room)}/relations/{part(said)}")
        assert related["chunk"][0]["unsigned"]["transaction_id"] == "mine2"
