"""People with an account on a Hansa in rooms of a Synapse, and the other way round."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import pytest
from peers.synapse import Refusal
from peers.waiting import until

pytestmark = pytest.mark.e2e
VERSIONS = ["9", "10", "11", "12"]


def part(text):
    return quote(text, safe="")


def domain(user):
    return user.id.partition(":")[2]


@pytest.fixture
async def two(hansa, synapse, matrix_user, local_user) -> Callable[..., Awaitable[Any]]:
    """``(host, guest)`` of the two servers, the host where it is wanted."""

    async def make(hosted, version="12"):
        server = await hansa(version=version)
        romeo, alice = await local_user(server, "romeo"), await matrix_user("alice")
        return (romeo, alice) if hosted == "here" else (alice, romeo)

    return make


async def standing(user, room, whom):
    found = await user.state(room)
    return found.get(("m.room.member", whom), {}).get("content", {}).get("membership")


async def stands(user, room, whom, wanted):
    async def there():
        return await standing(user, room, whom) == wanted

    await until(f"{whom} is {wanted} for {user.id}", there)


async def reads(user, room, sender, texts):
    async def there():
        return await user.bodies(room, sender) == texts

    await until(f"{user.id} reads {texts} of {sender}", there)


@pytest.mark.parametrize("hosted", ["here", "there"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_invited_in_out_and_banned(version, hosted, two):
    host, guest = await two(hosted, version)
    room = await host.create_room(version, preset="private_chat", name="balcony")
    await host.invite(room, guest.id)
    await until("the invite", lambda: invited(guest, room))
    await guest.leave(room)  # no, thank you
    await stands(host, room, guest.id, "leave")
    await host.invite(room, guest.id)
    await until("the invite again", lambda: invited(guest, room))
    await guest.join(room)
    await host.say(room, "good morrow")
    await reads(guest, room, host.id, ["good morrow"])
    await guest.say(room, "and to you")
    await reads(host, room, guest.id, ["and to you"])
    await host.kick(room, guest.id, "hush")
    await stands(host, room, guest.id, "leave")

    async def out():
        found = await guest.sync("&filter=" + part('{"room":{"include_leave":true}}'))
        return room in found.get("rooms", {}).get("leave", {})

    await until("the guest is told", out)
    with pytest.raises(Refusal):
        await guest.say(room, "but")
    await host.invite(room, guest.id)
    await until("the third invite", lambda: invited(guest, room))
    await host.kick(room, guest.id)  # taken back

    async def rescinded():
        return not await invited(guest, room)

    await until("the invite is gone", rescinded)
    await host.ban(room, guest.id)
    await stands(host, room, guest.id, "ban")
    with pytest.raises(Refusal):
        await guest.join(room, domain(host))


async def invited(user, room):
    return room in await user.invites()


@pytest.mark.parametrize("hosted", ["here", "there"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_knocking_and_rooms_of_a_space(version, hosted, two):
    host, guest = await two(hosted, version)
    knock = [{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]
    room = await host.create_room(version, preset="private_chat", initial_state=knock)
    await guest.call(
        "POST", f"/knock/{part(room)}?server_name={domain(host)}&via={domain(host)}", {"reason": "cold"}
    )
    await stands(host, room, guest.id, "knock")
    await host.invite(room, guest.id)
    await until("the answer", lambda: invited(guest, room))
    await guest.join(room, domain(host))
    await stands(host, room, guest.id, "join")
    space = await host.create_room(version, preset="public_chat", creation_content={"type": "m.space"})
    allow = [{"type": "m.room_membership", "room_id": space}]
    rules = [{"type": "m.room.join_rules", "content": {"join_rule": "restricted", "allow": allow}}]
    inner = await host.create_room(version, preset="private_chat", initial_state=rules, name="inner")
    await host.set_state(space, "m.space.child", {"via": [domain(host)]}, inner)
    with pytest.raises(Refusal):
        await guest.join(inner, domain(host))
    await guest.join(space, domain(host))
    found = await guest.call("GET", f"/../v1/rooms/{part(space)}/hierarchy")
    assert {r.get("name") for r in found["rooms"]} >= {"inner"}
    await guest.join(inner, domain(host))
    await stands(host, inner, guest.id, "join")


@pytest.mark.parametrize("hosted", ["here", "there"])
async def test_the_past_is_fetched_from_where_it_is(hosted, two):
    host, guest = await two(hosted)
    room = await host.create_room(preset="public_chat")
    said = [f"long ago {n}" for n in range(60)]
    for text in said:
        await host.say(room, text)
    await guest.join(room, domain(host))
    await reads(guest, room, host.id, said)


@pytest.mark.parametrize("hosted", ["here", "there"])
async def test_files_words_taken_back_typing_and_receipts(hosted, two):
    host, guest = await two(hosted)
    room = await host.create_room(preset="public_chat")
    await guest.join(room, domain(host))
    await stands(host, room, guest.id, "join")
    for one, other in ((host, guest), (guest, host)):
        data = secrets.token_bytes(5000)
        mxc = await one.upload(data, "application/octet-stream", "letter.bin")
        _, got = await other.download(mxc)
        assert got == data
        event = await one.say(room, "a slip")
        await reads(other, room, one.id, ["a slip"])
        await one.call("PUT", f"/rooms/{part(room)}/redact/{part(event)}/{secrets.token_hex(4)}", {})

        async def gone(other=other, event=event):
            found = await other.call("GET", f"/rooms/{part(room)}/event/{part(event)}")
            return found["content"] == {} and "redacted_because" in found["unsigned"]

        await until("the slip is gone", gone)
        since = (await other.sync())["next_batch"]
        await one.call(
            "PUT", f"/rooms/{part(room)}/typing/{part(one.id)}", {"typing": True, "timeout": 30_000}
        )
        last = await one.say(room, "read me")
        await reads(other, room, one.id, ["", "read me"])
        await other.call("POST", f"/rooms/{part(room)}/receipt/m.read/{part(last)}", {})

        async def typing(other=other, one=one, since=since):
            found = await other.call("GET", f"/sync?timeout=0&since={since}")
            events = (
                found.get("rooms", {}).get("join", {}).get(room, {}).get("ephemeral", {}).get("events", [])
            )
            return any(e["type"] == "m.typing" and one.id in e["content"]["user_ids"] for e in events)

        async def read(other=other, one=one, last=last):
            found = await one.sync()
            events = found["rooms"]["join"][room]["ephemeral"]["events"]
            return any(other.id in e["content"].get(last, {}).get("m.read", {}) for e in events)

        await until(f"{other.id} sees {one.id} type", typing)
        await until(f"{one.id} sees that {other.id} has read", read)
        await one.call("PUT", f"/rooms/{part(room)}/typing/{part(one.id)}", {"typing": False})


@pytest.mark.parametrize("hosted", ["here", "there"])
async def test_looking_around_and_moving_on(hosted, two):
    host, guest = await two(hosted, "10")
    name = f"plaza{secrets.token_hex(3)}"
    room = await host.create_room(
        "10", preset="public_chat", room_alias_name=name, name="Plaza", visibility="public"
    )
    await host.call("PUT", f"/profile/{part(host.id)}/displayname", {"displayname": "Host"})
    profile = await guest.call("GET", f"/profile/{part(host.id)}")
    assert profile["displayname"] == "Host"
    if hosted == "here":  # Synapse publishes no rooms to others unless it is told to
        listed = await guest.call("POST", f"/publicRooms?server={part(domain(host))}", {"limit": 10})
        assert room in [r["room_id"] for r in listed["chunk"]]
    assert await guest.join(f"#{name}:{domain(host)}") == room
    assert (await guest.state(room))["m.room.name", ""]["content"] == {"name": "Plaza"}

    async def named():
        return (await guest.members(room)).get(host.id) == "Host"

    await until("the host's name", named)
    new = (await host.call("POST", f"/rooms/{part(room)}/upgrade", {"new_version": "11"}))["replacement_room"]

    async def tombstone():
        return (await guest.state(room)).get(("m.room.tombstone", ""), {}).get("content", {}).get(
            "replacement_room"
        ) == new

    await until("the tombstone", tombstone)
    assert await guest.join(f"#{name}:{domain(host)}") == new
    await host.say(new, "here we are")
    await reads(guest, new, host.id, ["here we are"])
