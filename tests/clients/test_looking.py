"""Rooms as they were, and as who is not in them sees them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from clients.matrix_server import LocalUser, MatrixServer, Refused, matrix_server, part
from hansa.testing import until


async def open_to_all(alice: LocalUser) -> str:
    history = {"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}}
    return await alice.create(preset="public_chat", initial_state=[history])


def bodies(events: list[Any]) -> list[str]:
    return [e["content"]["body"] for e in events if e["type"] == "m.room.message"]


async def members(person: LocalUser, room: str, query: str) -> set[tuple[str, str]]:
    chunk = (await person.get(f"/rooms/{part(room)}/members?{query}"))["chunk"]
    return {(m["state_key"].split(":")[0][1:], m["content"]["membership"]) for m in chunk}


async def test_members_at_every_token(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob, eve = await home.person("alice"), await home.person("bob"), await home.person("eve")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        start = (await alice.get(f"/rooms/{part(room)}/messages?dir=b&limit=100"))["end"]
        assert await members(alice, room, f"at={start}") == set()
        both = {("alice", "join"), ("bob", "join")}
        middle = (await alice.sync())["next_batch"]
        await bob.room(room, "leave")
        await alice.room(room, "invite", {"user_id": eve.user})
        later = (await alice.sync())["next_batch"]
        now = {("alice", "join"), ("bob", "leave"), ("eve", "invite")}
        assert await members(alice, room, "") == now
        assert await members(alice, room, f"at={middle}") == both
        # Who left knows the people up to then, whatever the token says.
        assert await members(bob, room, f"at={middle}") == both
        assert await members(bob, room, f"at={later}") == {("alice", "join"), ("bob", "leave")}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("membership=join", {"alice"}), ("membership=ban", {"dan"}), ("not_membership=leave", {"alice", "dan", "eve"}),
        ("not_membership=join", {"bob", "dan", "eve"}), ("membership=invite&not_membership=join", {"bob", "dan", "eve"}),
        ("membership=join&not_membership=join", {"alice", "bob", "dan", "eve"}), ("membership=knock", set()),
        ("membership=member", None), ("not_membership=x", None),
    ],
)  # fmt: skip
async def test_members_of_some_kind(tmp_path, query, found):
    async with matrix_server(tmp_path) as home:
        alice, bob, eve, dan = [await home.person(name) for name in ("alice", "bob", "eve", "dan")]
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await bob.room(room, "leave")
        await alice.room(room, "invite", {"user_id": eve.user})
        await alice.room(room, "ban", {"user_id": dan.user})
        if found is None:
            with pytest.raises(Refused, match="M_INVALID_PARAM"):
                await members(alice, room, query)
        else:
            assert {name for name, _ in await members(alice, room, query)} == found


async def test_who_may_not_know_who_was_there_is_not_told(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        history = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
        room = await alice.create(preset="public_chat", initial_state=[history])
        await alice.say(room, "before bob")
        before = (await alice.sync())["next_batch"]
        await bob.join(room)
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await members(bob, room, f"at={before}")
        assert await members(bob, room, "") == {("alice", "join"), ("bob", "join")}
        assert await members(bob, room, f"at={(await bob.sync())['next_batch']}")


async def test_a_room_that_one_left_is_looked_at_as_it_was(tmp_path):
    """However much was said since: the page ends at the leave, and is full."""
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat", name="then")
        await bob.join(room)
        for number in range(8):
            await alice.say(room, str(number))
        await bob.room(room, "leave")
        for number in range(30):
            await alice.say(room, f"after {number}")
        await alice.state(room, "m.room.name", {"name": "now"})
        found = await bob.get(f"/rooms/{part(room)}/initialSync?limit=5")
        assert found["membership"] == "leave"
        assert bodies(found["messages"]["chunk"]) == ["4", "5", "6", "7"]
        assert found["messages"]["chunk"][-1]["state_key"] == bob.user
        assert {e["content"].get("name") for e in found["state"] if e["type"] == "m.room.name"} == {"then"}
        token = found["messages"]["start"]
        more = await bob.get(f"/rooms/{part(room)}/messages?dir=b&from={token}")
        assert bodies(more["chunk"])[:4] == ["3", "2", "1", "0"]


async def test_who_looks_into_a_room_hears_what_is_said_there(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await open_to_all(alice)
        look = f"/events?room_id={part(room)}"
        token = (await bob.get(f"/rooms/{part(room)}/initialSync"))["messages"]["end"]
        said = [await alice.say(room, str(n)) for n in range(2)]
        found = await bob.get(f"{look}&from={token}")
        assert [e["event_id"] for e in found["chunk"]] == said
        assert {e["room_id"] for e in found["chunk"]} == {room}
        assert found["start"] == token
        nothing = await bob.get(f"{look}&from={found['end']}")
        assert (nothing["chunk"], nothing["end"]) == ([], found["end"])
        waiting = asyncio.ensure_future(bob.get(f"{look}&from={found['end']}&timeout=10000"))
        await _listening(home, room)
        last = await alice.say(room, "last")
        assert [e["event_id"] for e in (await waiting)["chunk"]] == [last]
        assert (await bob.get(look))["chunk"] == []


async def _listening(home: MatrixServer, room: str) -> None:
    """Waits until a request waits for news of a room."""
    await until(lambda: home.matrix.stream_waiters.get(room))


async def test_who_may_not_look_hears_nothing(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room, hidden = await open_to_all(alice), await alice.create(preset="private_chat")
        for target, code in (
            (f"/events?room_id={part(hidden)}", "M_FORBIDDEN"), (f"/events?room_id={part('!none:x')}", "M_FORBIDDEN"),
            ("/events", "M_MISSING_PARAM"), (f"/events?room_id={part(room)}&from=x", "M_INVALID_PARAM"),
            (f"/events?room_id={part(room)}&timeout=x", "M_INVALID_PARAM"),
        ):  # fmt: skip
            with pytest.raises(Refused, match=code):
                await bob.get(target)
        waiting = asyncio.ensure_future(bob.get(f"/events?room_id={part(room)}&timeout=10000"))
        await _listening(home, room)
        await alice.state(room, "m.room.history_visibility", {"history_visibility": "joined"})
        await alice.say(room, "not for bob")
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await waiting


async def test_rooms_that_two_share(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        rooms = sorted([await alice.create(preset="public_chat") for _ in range(3)])
        for room in rooms[:2]:
            await bob.join(room)
        base = "/_matrix/client/v1/mutual_rooms"
        asked = f"{base}?user_id={part(bob.user)}"
        assert await alice.get(asked) == {"joined": rooms[:2], "count": 2}
        assert (await alice.get(f"{asked}&from={part(rooms[0])}"))["joined"] == [rooms[1]]
        nobody = f"{base}?user_id={part('@nobody:elsewhere')}"
        assert await alice.get(nobody) == {"joined": [], "count": 0}
        await bob.room(rooms[0], "leave")
        assert (await alice.get(asked))["joined"] == [rooms[1]]
        for query in (
            "",
            f"?user_id={part(alice.user)}",
            "?user_id=bob",
            f"?user_id={part(bob.user)}&from=x",
        ):
            status, found = await alice.ask("GET", base + query)
            assert (status, found["errcode"]) == (400, "M_INVALID_PARAM" if query else "M_MISSING_PARAM")
