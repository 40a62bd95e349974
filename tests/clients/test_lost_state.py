"""No state is lost by what a client does not want to see, by a gap, or by leaving."""

from __future__ import annotations

import json

import pytest
from clients.matrix_server import matrix_server, part
from clients.test_sync import bodies, timeline
from hansa_matrix.proto.pdu import pdu_from_raw
from matrix.server_with_peer import V2
from matrix.test_invites import foreign_room, invite_to
from matrix.two_servers import USER, at

MESSAGES = {"room": {"timeline": {"types": ["m.room.message"]}}}


def chosen(filter_):
    return f"&filter={part(json.dumps(filter_))}"


def state_of(found, room, kind="join"):
    events = found["rooms"][kind][room].get("state", {}).get("events", [])
    return {(e["type"], e["state_key"]): e["content"] for e in events}


async def test_what_a_filter_keeps_out_of_the_timeline_is_in_the_state(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(name="first")
        found = await alice.sync(chosen(MESSAGES))
        assert state_of(found, room)["m.room.name", ""] == {"name": "first"}
        await alice.state(room, "m.room.name", {"name": "second"})
        await alice.say(room, "hello")
        await alice.state(room, "m.room.topic", {"topic": "third"})
        found = await alice.sync(chosen(MESSAGES))
        assert bodies(timeline(found, room)) == ["hello"]
        assert len(timeline(found, room)) == 1
        state = state_of(found, room)
        assert state["m.room.name", ""] == {"name": "second"}
        assert state["m.room.topic", ""]["topic"] == "third"


async def test_a_limit_counts_what_the_filter_lets_pass(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        await alice.sync()
        for number in range(5):
            await alice.say(room, str(number))
        for number in range(40):
            await alice.state(room, "m.room.topic", {"topic": str(number)})
        wanted = {"room": {"timeline": {"types": ["m.room.message"], "limit": 4}}}
        before = alice.since
        found = await alice.sync(chosen(wanted))
        assert bodies(timeline(found, room)) == ["1", "2", "3", "4"]
        part_of = found["rooms"]["join"][room]["timeline"]
        assert part_of["limited"] is True
        rest = await alice.get(
            f"/rooms/{part(room)}/messages?dir=b&limit=50&from={part_of['prev_batch']}&to={before}"
        )
        assert [e["content"]["body"] for e in rest["chunk"] if e["type"] == "m.room.message"] == ["0"]
        wanted["room"]["timeline"]["limit"] = 5
        alice.since = before
        found = await alice.sync(chosen(wanted))
        assert bodies(timeline(found, room)) == ["0", "1", "2", "3", "4"]
        assert found["rooms"]["join"][room]["timeline"]["limited"] is False
        alice.since = ""
        found = await alice.sync(chosen(wanted))
        assert bodies(timeline(found, room)) == ["0", "1", "2", "3", "4"]


async def test_the_whole_state_again_does_not_repeat_what_was_said(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(name="Verona")
        await alice.say(room, "before")
        await alice.sync()
        await alice.say(room, "after")
        found = await alice.sync("&full_state=true")
        assert bodies(timeline(found, room)) == ["after"]
        assert ("m.room.name", "") in state_of(found, room)
        again = await alice.sync("&full_state=true")
        assert timeline(again, room) == []
        assert again["rooms"]["join"][room]["timeline"]["limited"] is False
        assert ("m.room.name", "") in state_of(again, room)


async def test_who_came_and_went_in_a_gap_is_told_though_they_say_nothing(tmp_path):
    lazy = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 1}}}
    async with matrix_server(tmp_path) as home:
        alice, bob, carol = [await home.person(name) for name in ("alice", "bob", "carol")]
        room = await alice.create(preset="public_chat", name="Verona")
        await bob.join(room)
        await alice.sync(chosen(lazy))
        await carol.join(room)
        await alice.room(room, "ban", {"user_id": bob.user})
        for number in range(5):
            await alice.say(room, str(number))
        found = await alice.sync(chosen(lazy))
        state = state_of(found, room)
        assert state["m.room.member", carol.user]["membership"] == "join"
        assert state["m.room.member", bob.user]["membership"] == "ban"


async def test_a_room_that_one_left_has_the_state_that_changed_before(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat", name="first")
        await bob.join(room)
        await bob.sync()
        await alice.state(room, "m.room.name", {"name": "second"})
        for number in range(20):
            await alice.say(room, str(number))
        await alice.room(room, "kick", {"user_id": bob.user, "reason": "enough"})
        await alice.state(room, "m.room.name", {"name": "not for bob"})
        found = await bob.sync()
        shown = found["rooms"]["leave"][room]
        assert shown["timeline"]["events"][-1]["content"]["reason"] == "enough"
        assert shown["timeline"]["limited"] is True
        assert len(shown["timeline"]["events"]) == 10
        assert state_of(found, room, "leave")["m.room.name", ""] == {"name": "second"}


@pytest.mark.parametrize("limit", [0, 10])
async def test_a_left_room_is_filtered(tmp_path, limit):
    wanted = {"room": {"timeline": {"types": ["m.room.message"], "limit": limit}}}
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await bob.sync()
        await alice.say(room, "hello")
        await alice.room(room, "kick", {"user_id": bob.user})
        found = await bob.sync(chosen(wanted))
        assert bodies(timeline(found, room, "leave")) == ["hello"][:limit]
        assert len(timeline(found, room, "leave")) == min(limit, 1)
        assert state_of(found, room, "leave")["m.room.member", bob.user]["membership"] == "leave"


@pytest.mark.parametrize("who", ["declined", "withdrawn"])
async def test_the_end_of_an_invite_is_told_and_nothing_of_the_room(tmp_path, who):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(name="secret")
        await alice.room(room, "invite", {"user_id": bob.user})
        await bob.sync()
        await alice.say(room, "not for bob")
        if who == "declined":
            await bob.room(room, "leave", {"reason": "no"})
        else:
            await alice.room(room, "kick", {"user_id": bob.user})
        found = await bob.sync()
        shown = found["rooms"]["leave"][room]
        (event,) = shown["timeline"]["events"]
        assert (event["type"], event["state_key"]) == ("m.room.member", bob.user)
        assert event["content"]["membership"] == "leave"
        assert event["event_id"]
        assert shown["state"]["events"] == []
        assert "rooms" not in await bob.sync()


async def test_the_end_of_a_knock_is_told(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(
            initial_state=[{"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}]
        )
        await bob.call("POST", f"/knock/{part(room)}", {})
        await bob.sync()
        await alice.room(room, "kick", {"user_id": bob.user, "reason": "not now"})
        (event,) = timeline(await bob.sync(), room, "leave")
        assert (event["sender"], event["content"]["reason"]) == (alice.user, "not now")


@pytest.mark.parametrize("who", ["declined", "withdrawn"])
async def test_the_end_of_an_invite_to_a_room_elsewhere_is_told(tmp_path, who):
    async with matrix_server(tmp_path) as home:
        wire, bob = home.wire, await home.person("bob")
        room = foreign_room(wire, "12")
        invite = pdu_from_raw(invite_to(wire, room, bob.user), room.version)
        body = {
            "room_version": "12",
            "event": invite.raw,
            "invite_room_state": [wire.forger.created[room.room_id]],
        }
        path = f"{V2}/invite/{at(room.room_id, invite.event_id)}"
        assert (await wire.ask("PUT", path, body))[0] == 200
        assert room.room_id in (await bob.sync())["rooms"]["invite"]
        room.keep(invite)
        draft = wire.forger.draft(room, "m.room.member", {"membership": "leave"}, bob.user)
        if who == "declined":
            asked = []

            def answer(request):
                if "/make_leave/" in request.target:
                    return 200, {"room_version": "12", "event": {**draft, "sender": bob.user}}
                if "/send_leave/" in request.target:
                    asked.append(json.loads(request.body))
                    return 200, {}
                return None

            wire.peer.answer = answer
            await bob.room(room.room_id, "leave", {"reason": "no time"})
            assert asked[0]["content"]["reason"] == "no time"
        else:
            draft["auth_events"] = [*draft["auth_events"], invite.event_id]
            await wire.send(wire.forger.finish(room, draft))
        found = await bob.sync()
        (event,) = timeline(found, room.room_id, "leave")
        assert event["content"]["membership"] == "leave"
        assert event["state_key"] == bob.user
        assert event["sender"] == (bob.user if who == "declined" else USER)
        assert event["event_id"].startswith("$")
        assert "hashes" not in event
        await bob.room(room.room_id, "forget")
        assert await home.matrix.store.count("left") == 0


async def test_who_came_and_went_between_two_syncs_is_told(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat", name="Verona")
        await bob.sync()
        await bob.join(room)
        await alice.say(room, "hello")
        await bob.room(room, "leave")
        found = await bob.sync()
        assert "hello" in bodies(timeline(found, room, "leave"))
        assert timeline(found, room, "leave")[-1]["content"]["membership"] == "leave"


async def test_a_token_of_the_future_is_none(tmp_path):
    """The store was set back: all is told again, and no message to a device is taken for received."""
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await bob.sync()
        await alice.call("PUT", "/sendToDevice/test.x/1", {"messages": {bob.user: {"*": {"a": 1}}}})
        for token in ("s99999_99_99999", "s1_1_99999"):
            bob.since = token
            found = await bob.sync()
            assert [e["content"] for e in found["to_device"]["events"]] == [{"a": 1}]
            assert "m.room.create" in str(found["rooms"]["join"][room])
        assert "to_device" not in await bob.sync()


@pytest.mark.parametrize("how", ["leaves", "declines"])
async def test_the_state_behind_a_left_room(tmp_path, how):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat", invite=[bob.user])
        if how == "leaves":
            await bob.join(room)
        await bob.sync()
        await bob.room(room, "leave")
        left = (await bob.sync("&use_state_after=true"))["rooms"]["leave"][room]
        assert "state" not in left
        member = [e for e in left["state_after"]["events"] if e["type"] == "m.room.member"]
        assert [e["content"]["membership"] for e in member] == ["leave"]


async def test_the_heroes_are_those_who_came_first_of_who_is_there(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(preset="public_chat")
        people = [await home.person(f"p{n:02}") for n in range(60)]
        for one in (*people[:54], *people[:53:-1]):
            await one.join(room)
        for one in people[:52]:
            await one.room(room, "leave")
        found = (await alice.sync())["rooms"]["join"][room]["summary"]
        here = [people[at].user for at in (52, 53, 59, 58, 57)]
        assert found["m.heroes"] == here
        assert found["m.joined_member_count"] == 9
        for one in people[52:]:
            await one.room(room, "leave")
        found = (await alice.sync())["rooms"]["join"][room]["summary"]
        assert len(found["m.heroes"]) == 5
        assert found["m.joined_member_count"] == 1
