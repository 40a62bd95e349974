"""A real Dendrite, in Go and with its own reading of the specification, beside a Hansa and a Synapse.
Version 0.13.8 has rooms up to version 11.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from e2e.sides import Room, Side, mighty
from peers.dendrite import Dendrite
from peers.hansa import Hansa
from peers.synapse import MatrixUser, Refusal, Synapse
from peers.tcp_cutter import TcpCutter
from peers.waiting import until

pytestmark = pytest.mark.e2e

VERSIONS = ("10", "11")


@pytest.fixture
async def dendrite(ca, tmp_path) -> AsyncIterator[Dendrite]:
    server = await Dendrite(tmp_path / "dendrite", ca).start()
    yield server
    server.stop()


@pytest.fixture
async def both(dendrite, hansa, local_user) -> tuple[Hansa | MatrixUser, ...]:
    """A Hansa with two people, and two people of a Dendrite: ``(hansa, romeo, tybalt, anna, hugo)``."""
    server = await hansa()
    ours = [await local_user(server, name) for name in ("romeo", "tybalt")]
    theirs = [await local_user(dendrite, name) for name in ("anna", "hugo")]
    return server, *ours, *theirs


async def hear(users: list[MatrixUser], room: str, event_id: str) -> None:
    """Wait until everybody has an event in the room's history."""
    for user in users:

        async def heard(user: MatrixUser = user) -> bool:
            return any(e["event_id"] == event_id for e in await user.history(room, 60))

        await until(f"{user.id} has {event_id}", heard, 90)


async def is_in(user: MatrixUser, room: str, who: str, membership: str) -> None:
    """Waits until a user's membership is this one, as another user's server sees it."""

    async def so() -> bool:
        event = (await user.state(room)).get(("m.room.member", who), {})
        return bool(event.get("content", {}).get("membership") == membership)

    await until(f"{user.id} sees that {who} is {membership}", so, 90)


async def one_state(users: list[MatrixUser], room: str) -> None:
    """Wait until all servers have one state."""

    async def same() -> bool:
        states = [{k: e["event_id"] for k, e in (await u.state(room)).items()} for u in users]
        return all(state == states[0] for state in states)

    await until(f"one state of {room}", same, 90)


async def ephemeral(user: MatrixUser, room: str, kind: str) -> Any:
    """Returns the ephemeral events of a type in an initial sync."""
    joined = (await user.sync()).get("rooms", {}).get("join", {}).get(room, {})
    found = [e["content"] for e in joined.get("ephemeral", {}).get("events", []) if e["type"] == kind]
    return found[-1] if found else {}


@pytest.mark.parametrize("version", VERSIONS)
async def test_rooms_of_either_with_all_that_people_do(version, both):
    _, romeo, tybalt, anna, hugo = both
    await live_in(version, romeo, tybalt, anna, hugo, ours=romeo)
    await live_in(version, anna, hugo, romeo, tybalt, ours=romeo)


async def live_in(
    version: str,
    host: MatrixUser,
    second: MatrixUser,
    guest: MatrixUser,
    fourth: MatrixUser,
    *,
    ours: MatrixUser,
) -> None:
    """Make a room for a guest of the other server and everything else that follows."""
    room = await host.create_room(version, room_alias_name="plaza")
    assert await guest.join(f"#plaza:{host.id.partition(':')[2]}") == room
    await host.invite(room, fourth.id)

    async def invited() -> bool:
        return room in await fourth.invites()

    await until("the invite", invited)
    await fourth.join(room, via=host.id.partition(":")[2])
    await second.join(room)
    for user in (host, guest):
        await is_in(user, room, fourth.id, "join")
        await is_in(user, room, second.id, "join")
    path = f"/rooms/{quote(room, safe='')}"
    for speaker, listener in ((host, guest), (guest, host)):
        said = [await speaker.say(room, f"{n} by {speaker.id}") for n in range(5)]
        await hear([host, guest], room, said[-1])
        assert await listener.bodies(room, speaker.id) == [f"{n} by {speaker.id}" for n in range(5)]
        await listener.call("POST", f"{path}/receipt/m.read/{quote(said[-1], safe='')}", {})

        async def read(speaker=speaker, listener=listener, said=said) -> bool:
            receipts = await ephemeral(speaker, room, "m.receipt")
            return listener.id in receipts.get(said[-1], {}).get("m.read", {})

        await until(f"{speaker.id} sees the receipt", read)
        target = f"{path}/typing/{quote(listener.id, safe='')}"
        await listener.call("PUT", target, {"typing": True, "timeout": 30_000})

        async def types(speaker=speaker, listener=listener) -> bool:
            return listener.id in (await ephemeral(speaker, room, "m.typing")).get("user_ids", [])

        await until(f"{speaker.id} sees who types", types)
        await listener.call("PUT", target, {"typing": False})
        await speaker.call("PUT", f"{path}/redact/{quote(said[0], safe='')}/{said[0][1:9]}", {"reason": "no"})

        # This Dendrite looks for what is redacted outside of the content alone, where version 11 has it no more.
        for user in (ours, listener) if version == "10" else (ours,):

            async def emptied(user: MatrixUser = user, said: list[str] = said) -> bool:
                return not next(e for e in await user.history(room) if e["event_id"] == said[0])["content"]

            await until(f"{user.id} sees the redaction", emptied)
    with pytest.raises(Refusal) as refused:
        await guest.kick(room, second.id)
    assert refused.value.status == 403
    levels = (await host.state(room))["m.room.power_levels", ""]["content"]
    await host.set_state(room, "m.room.power_levels", {**levels, "users": {host.id: 100, guest.id: 50}})

    async def raised() -> bool:
        content = (await guest.state(room))["m.room.power_levels", ""]["content"]
        return bool(content["users"].get(guest.id) == 50)

    await until("the level", raised)
    await guest.kick(room, second.id, "out")
    await is_in(host, room, second.id, "leave")
    await host.ban(room, fourth.id)
    await is_in(guest, room, fourth.id, "ban")
    with pytest.raises(Refusal) as refused:
        await fourth.join(room, via=host.id.partition(":")[2])
    assert refused.value.status == 403
    await host.call("POST", f"{path}/unban", {"user_id": fourth.id})
    await is_in(guest, room, fourth.id, "leave")
    await fourth.join(room, via=host.id.partition(":")[2])
    await is_in(host, room, fourth.id, "join")
    await fourth.leave(room)
    await is_in(host, room, fourth.id, "leave")
    await one_state([host, guest], room)


async def test_restricted_rooms_of_either(both):
    _, romeo, _, anna, _ = both
    sides = ((romeo, anna), (anna, romeo))
    for version, (host, guest) in itertools.product(VERSIONS, sides):
        via = host.id.partition(":")[2]
        club = await host.create_room(version)
        allow = [{"type": "m.room_membership", "room_id": club}]
        rule = {"join_rule": "restricted", "allow": allow}
        state = [{"type": "m.room.join_rules", "state_key": "", "content": rule}]
        room = await host.create_room(version, initial_state=state)
        with pytest.raises(Refusal) as refused:
            await guest.join(room, via=via)
        assert refused.value.status == 403
        await guest.join(club, via=via)
        await is_in(host, club, guest.id, "join")
        await guest.join(room, via=via)
        await is_in(host, room, guest.id, "join")
        await hear([host], room, await guest.say(room, "in"))
        await one_state([host, guest], room)


@pytest.mark.parametrize("hosted", ["here", "there"])
async def test_what_was_said_while_either_was_down(hosted, both, dendrite):
    server, romeo, _, anna, _ = both
    host, guest = (romeo, anna) if hosted == "here" else (anna, romeo)
    room = await host.create_room("11")
    await guest.join(room, via=host.id.partition(":")[2])
    await hear([host, guest], room, await guest.say(room, "before"))
    await server.stop()
    for number in range(40):
        await anna.say(room, f"anna {number}")
    await server.start()
    await hear([romeo], room, await anna.say(room, "is Romeo back?"))
    assert await romeo.bodies(room, anna.id) == await anna.bodies(room, anna.id)
    await hear([anna], room, await romeo.say(room, "he is"))
    dendrite.stop()
    for number in range(40):
        await romeo.say(room, f"romeo {number}")
    await dendrite.start()
    await hear([anna], room, await romeo.say(room, "is Anna back?"))

    async def whole() -> bool:
        return set(await romeo.bodies(room, romeo.id)) == set(await anna.bodies(room, romeo.id))

    await until("all that was said reaches Anna", whole)
    await hear([romeo], room, await anna.say(room, "she is"))
    await one_state([romeo, anna], room)


async def test_what_either_asks_the_other_for(both):
    """Names, aliases, published rooms, files, spaces, and what was said before a join."""
    _, romeo, _, anna, _ = both
    for host, guest in ((romeo, anna), (anna, romeo)):
        via = host.id.partition(":")[2]
        await host.call("PUT", f"/profile/{quote(host.id)}/displayname", {"displayname": "Host"})
        profile = await guest.call("GET", f"/profile/{quote(host.id)}")
        assert profile["displayname"] == "Host"
        headers, data = await guest.download(await host.upload(b"a letter", "text/plain", "letter.txt"))
        assert (data, headers["content-type"].partition(";")[0]) == (b"a letter", "text/plain")
        room = await host.create_room("11", name="Plaza", room_alias_name="square", visibility="public")
        assert (await guest.call("GET", f"/directory/room/{quote(f'#square:{via}')}"))["room_id"] == room
        published = (await guest.call("GET", f"/publicRooms?server={via}"))["chunk"]
        assert [(r["room_id"], r["name"]) for r in published] == [(room, "Plaza")]
        space = await host.create_room("11", name="Town", creation_content={"type": "m.space"})
        await host.set_state(space, "m.space.child", {"via": [via]}, room)
        await guest.join(space, via=via)
        tree = (await guest.call("GET", f"/../v1/rooms/{quote(space, safe='')}/hierarchy"))["rooms"]
        assert [r["name"] for r in tree] == ["Town", "Plaza"]
        for number in range(120):
            await host.say(room, str(number))
        await guest.join(room, via=via)
        said = [str(number) for number in range(120)]

        async def all_read(guest=guest, host=host, room=room, said=said) -> bool:
            return len(await guest.bodies(room, host.id)) >= len(said)

        await until("what was said before the join", all_read, 60)
        assert await guest.bodies(room, host.id) == said


@pytest.mark.parametrize("hosted", ["here", "there"])
async def test_encrypted_with_a_dendrite(hosted, both, dendrite, nio_user):
    """Devices are found, keys claimed and sent to devices, both ways."""
    server, ours, _, theirs, _ = both
    romeo = await nio_user(server.url, ours.id)
    anna = await nio_user(dendrite.url, theirs.id, dendrite.password)
    host, guest = (romeo, anna) if hosted == "here" else (anna, romeo)
    room = await host.encrypted_with(guest, room_version="11")
    for one, other in ((host, guest), (guest, host)):

        async def known(one=one, other=other) -> bool:
            await one.sync()
            there = room in one.client.rooms and one.client.rooms[room].encrypted
            return there and bool(list(one.client.device_store.active_user_devices(other.id)))

        await until(f"{one.id} knows the devices of {other.id}", known)
    for number in range(3):
        await host.say(room, f"to the guest {number}")
        await guest.say(room, f"to the host {number}")
    for one, other, word in ((guest, host, "guest"), (host, guest, "host")):
        await one.until(
            "everything deciphered", lambda one=one, other=other: len(one.bodies(room, other.id)) >= 3
        )
        assert one.bodies(room, other.id) == [f"to the {word} {n}" for n in range(3)]
        assert not one.undecipherable


async def test_what_a_dendrite_does_meanwhile_makes_nobody_differ(ca, tmp_path, hansa, local_user):
    """A Dendrite, a Synapse and a Hansa without each other: power levels, bans, joins and topics changed at once
    on all three. Synapse and Hansa have one state afterwards, whatever the Dendrite did and let be, and it
    hears both. (Its own state differs from that of two Synapses too.)
    """
    cables = [TcpCutter() for _ in range(3)]
    others = (
        Dendrite(tmp_path / "dendrite", ca, seen_at=cables[0].port),
        Synapse(tmp_path / "synapse", ca, seen_at=cables[1].port),
    )
    try:
        await asyncio.gather(*(server.start() for server in others))
        ours = await hansa(seen_at=cables[2].port)
        for cable, port in zip(cables, [*(s.fed_port for s in others), ours.port], strict=True):
            await cable.lay(port)
        names = ("mighty", "first", "second")
        sides = [
            Side(server.name, *[await local_user(server, name) for name in names], server.signer())
            for server in (*others, ours)
        ]
        rooms = [Room(version, host) for version in VERSIONS for host in sides[1:]]
        for room in rooms:
            await room.open(sides)
        for room in rooms:
            await until(f"all have power in {room}", lambda room=room: mighty(room, sides), 60)
        for cable in cables:
            await cable.cut()
        for turn, room in enumerate(rooms):
            await room.act(sides, turn)
        for cable in cables:
            await cable.mend()
        for room in rooms:
            await sides[0].mighty.say(room.id, "the Dendrite is back")
        await asyncio.gather(*(room.agree(sides[1:]) for room in rooms))
        for room in rooms:
            for side in sides:
                said = await side.mighty.say(room.id, f"the last of {side.name}")
                await hear([one.mighty for one in sides], room.id, said)
    finally:
        for server in others:
            server.stop()
        for cable in cables:
            await cable.cut()
