"""Coming and going between a real Synapse and a Hansa, in rooms of either and of several versions."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from e2e.three_servers import wait_matrix_member
from hansa import Kind, Member, Membership, NativeId
from peers.hansa import CommandFailed
from peers.scripted_hansa import ScriptedHansa
from peers.synapse import MatrixUser, Refusal
from peers.waiting import until

pytestmark = pytest.mark.e2e

JULIET = "juliet@capulet"
VERSIONS = pytest.mark.parametrize("version", ["9", "10", "11", "12"])
HOSTED = pytest.mark.parametrize("hosted", ["here", "there"])


async def is_(user: MatrixUser, room: str, whom: str, *memberships: str) -> None:
    """Waits until a Matrix user sees another user's membership."""

    async def so() -> bool:
        member = (await user.state(room)).get(("m.room.member", whom))
        return (member["content"]["membership"] if member else "none") in memberships

    await until(f"{whom} is {memberships} in {room}", so)


async def shown(hansa: ScriptedHansa, room: str, whom: str, membership: str) -> None:
    """Waits until Hansa shows a user's membership."""

    async def so() -> bool:
        people = (await hansa.run("rooms", "show", f"matrix:{room}"))["people"]
        return any(whom in p["user"] and p["membership"] == membership for p in people)

    await until(f"Hansa shows {whom} as {membership}", so)


async def rule(hansa: ScriptedHansa, room: str, join_rule: str, **more: Any) -> None:
    content = json.dumps({"join_rule": join_rule, **more})
    await hansa.run("matrix", "rooms", "set", room, "m.room.join_rules", content)


async def made(hansa: ScriptedHansa, version: str, name: str = "lobby") -> str:
    """A room of Hansa's with Juliet in it."""
    room = (await hansa.run("matrix", "rooms", "create", f"#{name}", "--version", version))["room"]
    await hansa.run("rooms", "create", f"matrix:#{name}", f"stage:{name}")
    await hansa.actor.join(name, JULIET, "Juliet")
    return room


async def entered(hansa: ScriptedHansa, alice: MatrixUser, version: str, **options: Any) -> str:
    """A room of Alice's with Juliet in it."""
    alias = f"verona{hansa.hansa.port}"
    room = await alice.create_room(version, room_alias_name=alias, **options)
    await hansa.run("rooms", "create", f"matrix:#{alias}:{alice.id.partition(':')[2]}", "stage:lobby")
    await hansa.actor.join("lobby", JULIET, "Juliet")
    return room


@VERSIONS
@HOSTED
async def test_kick_ban_unban_and_coming_back(version, hosted, stage, matrix_user):
    hansa, alice, bob = await stage(), await matrix_user("alice"), await matrix_user("bob")
    juliet, bridge = hansa.ghost(JULIET), hansa.matrix.bridge_user
    if hosted == "here":
        room = await made(hansa, version)
        await alice.join(room, via=hansa.name)
        await hansa.run("matrix", "rooms", "level", room, alice.id, "60")
    else:
        room = await entered(hansa, alice, version)
        levels = (await alice.state(room))["m.room.power_levels", ""]["content"]
        await alice.set_state(
            room, "m.room.power_levels", {**levels, "users": {**levels["users"], juliet: 60}}
        )
    await bob.join(room, via=hansa.name if hosted == "here" else "")
    await wait_matrix_member(alice, room, "Juliet")
    await shown(hansa, room, bob.id, "join")

    # Their users out of our room by us, our users by them: kicked and banned.
    async def act(membership: Membership, reason: str) -> None:
        home = NativeId("matrix", bob.id)
        content = Member(user=home, membership=membership, reason=reason)
        if hosted == "there":
            outcome = await hansa.actor.do("lobby", JULIET, content)
            assert outcome.refusal is None, outcome
        else:
            body = {"membership": membership.value, "reason": reason}
            refusal = await hansa.matrix.local_events.send_membership(bridge, room, content, bob.id, body)
            assert refusal is None, refusal

    await act(Membership.LEAVE, "out")
    await is_(alice, room, bob.id, "leave")
    await bob.join(room, via=hansa.name)
    await shown(hansa, room, bob.id, "join")
    await act(Membership.BAN, "for good")
    await is_(alice, room, bob.id, "ban")
    with pytest.raises(Refusal):
        await bob.join(room, via=hansa.name)
    await act(Membership.LEAVE, "again")
    await is_(alice, room, bob.id, "leave")
    await bob.join(room, via=hansa.name)
    await shown(hansa, room, bob.id, "join")

    if hosted == "there":  # Alice may not act against Juliet, who is as mighty
        levels = (await alice.state(room))["m.room.power_levels", ""]["content"]
        await alice.set_state(
            room, "m.room.power_levels", {**levels, "users": {**levels["users"], juliet: 0}}
        )
    await alice.ban(room, juliet)
    await shown(hansa, room, JULIET, "ban")
    refused = await hansa.actor.join("lobby", JULIET, "Juliet")
    assert refused.refusal is not None and refused.refusal.code.value == "banned"
    await alice.call("POST", f"/rooms/{quote(room, safe='')}/unban", {"user_id": juliet})
    await shown(hansa, room, JULIET, "leave")
    assert (await hansa.actor.join("lobby", JULIET, "Juliet")).refusal is None
    await is_(alice, room, juliet, "join")
    assert any(c.kind is Kind.MEMBER for c in hansa.actor.contents("lobby"))


@VERSIONS
async def test_invites_of_theirs_by_us_accepted_and_rejected(version, stage, matrix_user):
    hansa, alice, bob = await stage(), await matrix_user("alice"), await matrix_user("bob")
    room = await made(hansa, version)
    await rule(hansa, room, "invite")
    for user in (alice, bob):
        with pytest.raises(Refusal):
            await user.join(room, via=hansa.name)
        assert (await hansa.actor.invite("lobby", JULIET, NativeId("matrix", user.id))).refusal is None

        async def invited(user: MatrixUser = user) -> bool:
            return room in await user.invites()

        await until(f"{user.id} is invited", invited)
    await alice.join(room, via=hansa.name)
    await shown(hansa, room, alice.id, "join")
    await bob.leave(room)
    await shown(hansa, room, bob.id, "leave")
    with pytest.raises(Refusal):
        await bob.join(room, via=hansa.name)


@VERSIONS
async def test_invites_of_ours_by_them_accepted_declined_and_taken_back(version, stage, matrix_user):
    hansa, alice = await stage(matrix="accept_invites = false"), await matrix_user("alice")
    bridge = hansa.matrix.bridge_user
    rooms = [await alice.create_room(version, preset="private_chat") for _ in range(3)]
    for room in rooms:
        await alice.invite(room, bridge)

    async def listed() -> set[str]:
        return {w["room"] for w in await hansa.run("matrix", "invites", "ls")}

    assert await listed() == set(rooms)
    accepted, declined, taken_back = rooms
    await hansa.run("matrix", "invites", "accept", accepted)
    await is_(alice, accepted, bridge, "join")
    answer = await hansa.run("matrix", "invites", "decline", declined)
    assert answer["told"] is True
    await is_(alice, declined, bridge, "leave")
    await alice.kick(taken_back, bridge)

    async def gone() -> bool:
        return await listed() == set()

    await until("the invite is taken back", gone)
    with pytest.raises(CommandFailed, match="is not invited there"):
        await hansa.run("matrix", "invites", "accept", taken_back)


@VERSIONS
async def test_knocks_of_theirs_on_our_door(version, stage, matrix_user):
    hansa, alice, bob = await stage(), await matrix_user("alice"), await matrix_user("bob")
    room = await made(hansa, version)
    await rule(hansa, room, "knock")
    for user in (alice, bob):
        await user.call(
            "POST", f"/knock/{quote(room, safe='')}?server_name={hansa.name}", {"reason": "please"}
        )
        await shown(hansa, room, user.id, "knock")
    assert (await hansa.actor.invite("lobby", JULIET, NativeId("matrix", alice.id))).refusal is None
    await until("Alice is let in", lambda: _joined(alice, room, hansa.name))
    await shown(hansa, room, alice.id, "join")
    body = {"membership": "leave", "reason": "no"}
    content = Member(user=NativeId("matrix", bob.id), membership=Membership.LEAVE)
    refusal = await hansa.matrix.local_events.send_membership(
        hansa.matrix.bridge_user, room, content, bob.id, body
    )
    assert refusal is None
    await is_(alice, room, bob.id, "leave")


async def _joined(user: MatrixUser, room: str, via: str) -> bool:
    try:
        await user.join(room, via=via)
    except Refusal:
        return False
    return True


@VERSIONS
async def test_our_knock_on_their_door(version, stage, matrix_user):
    hansa, alice = await stage(), await matrix_user("alice")
    alias, server = f"door{hansa.hansa.port}", alice.id.partition(":")[2]
    room = await alice.create_room(version, room_alias_name=alias)
    await alice.set_state(room, "m.room.join_rules", {"join_rule": "knock"})
    await hansa.run("matrix", "rooms", "knock", f"#{alias}:{server}")
    await is_(alice, room, hansa.matrix.bridge_user, "knock")
    (waiting,) = await hansa.run("matrix", "invites", "ls")
    assert (waiting["room"], waiting["is"]) == (room, "knock")
    await alice.invite(room, hansa.matrix.bridge_user)
    await is_(alice, room, hansa.matrix.bridge_user, "join")  # who is invited accepts
    await until("nothing waits", lambda: _nothing(hansa))


async def _nothing(hansa: ScriptedHansa) -> bool:
    return await hansa.run("matrix", "invites", "ls") == []


@VERSIONS
async def test_restricted_rooms_of_ours(version, stage, matrix_user):
    hansa, alice, bob = await stage(), await matrix_user("alice"), await matrix_user("bob")
    space = await made(hansa, version, "space")
    room = await made(hansa, version)
    await rule(hansa, room, "restricted", allow=[{"type": "m.room_membership", "room_id": space}])
    await alice.join(space, via=hansa.name)
    await shown(hansa, space, alice.id, "join")
    await alice.join(room, via=hansa.name)
    await shown(hansa, room, alice.id, "join")
    member = (await alice.state(room))["m.room.member", alice.id]
    assert member["content"]["join_authorised_via_users_server"] == hansa.matrix.bridge_user
    with pytest.raises(Refusal):
        await bob.join(room, via=hansa.name)
    await alice.leave(room)
    await rule(hansa, room, "restricted", allow=[{"type": "m.room_membership", "room_id": "!elsewhere:x"}])
    with pytest.raises(Refusal):
        await alice.join(room, via=hansa.name)


@VERSIONS
async def test_restricted_rooms_of_theirs(version, stage, matrix_user):
    hansa, alice = await stage(), await matrix_user("alice")
    server, port = alice.id.partition(":")[2], hansa.hansa.port
    space = await alice.create_room(version, room_alias_name=f"space{port}", preset="public_chat")
    allow = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": space}]}
    room = await alice.create_room(version, room_alias_name=f"inner{port}")
    await alice.set_state(room, "m.room.join_rules", allow)
    with pytest.raises(CommandFailed):
        await hansa.run("rooms", "create", f"matrix:#inner{port}:{server}")
    await hansa.run("rooms", "create", f"matrix:#space{port}:{server}")
    await hansa.run("rooms", "create", f"matrix:#inner{port}:{server}")
    member = (await alice.state(room))["m.room.member", hansa.matrix.bridge_user]
    assert member["content"]["membership"] == "join"
    assert member["content"]["join_authorised_via_users_server"] == alice.id


@VERSIONS
async def test_a_restricted_room_whose_people_here_may_not_invite(version, hansa, local_user, matrix_user):
    server, alice = await hansa(), await matrix_user("alice")
    first, second = await local_user(server, "first"), await local_user(server, "second")
    home = alice.id.partition(":")[2]
    space = await alice.create_room(version)
    allow = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": space}]}
    room = await alice.create_room(version)
    levels = (await alice.state(room))["m.room.power_levels", ""]["content"]
    await alice.set_state(room, "m.room.power_levels", {**levels, "invite": 50})
    await alice.set_state(room, "m.room.join_rules", allow)
    for user in (first, second):
        await user.join(space, via=home)
    for user in (first, second):  # the second one meets a room that its server is in
        await user.join(room, via=home)
        await is_(alice, room, user.id, "join")
        member = (await user.state(room))["m.room.member", user.id]["content"]
        assert (member["membership"], member["join_authorised_via_users_server"]) == ("join", alice.id)
    said = await second.say(room, "I am in")

    async def heard():
        return said in [event["event_id"] for event in await alice.history(room)]

    await until("Alice hears", heard)


@pytest.mark.parametrize("version", ["9", "12"])
async def test_j9_after_the_last_one_left_the_door_is_knocked_at_again(version, stage, matrix_user):
    hansa, alice = await stage(), await matrix_user("alice")
    room = await entered(hansa, alice, version)
    juliet, bridge = hansa.ghost(JULIET), hansa.matrix.bridge_user
    await wait_matrix_member(alice, room, "Juliet")
    await alice.kick(room, juliet)
    await alice.kick(room, bridge)

    async def out() -> bool:
        (listed,) = await hansa.run("matrix", "rooms", "ls")
        return not listed["resident"]

    await until("Hansa is out of the room", out)
    assert (await hansa.actor.join("lobby", JULIET)).refusal is not None
    await alice.say(room, "while you were out")
    await hansa.run("rooms", "create", f"matrix:#verona{hansa.hansa.port}:{alice.id.partition(':')[2]}")
    await is_(alice, room, bridge, "join")
    assert (await hansa.actor.join("lobby", JULIET, "Juliet")).refusal is None
    await is_(alice, room, juliet, "join")
    assert "while you were out" not in hansa.actor.texts("lobby")


@pytest.mark.parametrize("version", ["10", "12"])
async def test_a_server_acl_bars_a_real_server_until_it_is_lifted(version, stage, matrix_user):
    hansa = await stage(host="localhost")
    alice, bob = await matrix_user("alice"), await matrix_user("bob")
    room = await made(hansa, version)
    await alice.join(room, via=hansa.name)
    await shown(hansa, room, alice.id, "join")
    host = alice.id.partition(":")[2].partition(":")[0]
    assert host != hansa.name.partition(":")[0]
    acl = {"allow": ["*"], "deny": [host]}
    await hansa.run("matrix", "rooms", "set", room, "m.room.server_acl", json.dumps(acl))
    await alice.say(room, "barred")

    async def refused() -> bool:
        counted = hansa.counted("matrix_pdus")
        return counted.get("barred", 0) > 0

    await until("what the barred server sends is refused", refused)
    await bob.join(room)  # their server is in the room, and lets them in by itself
    acl = json.dumps({"allow": ["*"]})
    await hansa.run("matrix", "rooms", "set", room, "m.room.server_acl", acl)
    assert hansa.actor.texts("lobby") == []
    await alice.say(room, "free")
    await hansa.actor.until_shown("lobby", lambda seen: any(getattr(c, "text", "") == "free" for c in seen))
    await shown(hansa, room, bob.id, "join")
