"""The history of a room between a real Synapse and a Hansa: redactions, upgrades."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from e2e.three_servers import wait_matrix_member, wait_matrix_messages
from peers.scripted_hansa import ScriptedHansa
from peers.synapse import MatrixUser
from peers.waiting import until

pytestmark = pytest.mark.e2e

JULIET = "juliet@capulet"
VERSIONS = pytest.mark.parametrize("version", ["9", "10", "11", "12"])


async def entered(hansa: ScriptedHansa, alice: MatrixUser, version: str, hosted: str) -> str:
    """A room of either with Alice and Juliet in it."""
    if hosted == "here":
        room = (await hansa.run("matrix", "rooms", "create", "#lobby", "--version", version))["room"]
        await hansa.run("rooms", "create", "matrix:#lobby", "stage:lobby")
        await alice.join(room, via=hansa.name)
        level = "100" if version != "12" else "90"
        await hansa.run("matrix", "rooms", "level", room, alice.id, level)
    else:
        alias = f"verona{hansa.hansa.port}"
        room = await alice.create_room(version, room_alias_name=alias)
        await hansa.run("rooms", "create", f"matrix:#{alias}:{alice.id.partition(':')[2]}", "stage:lobby")
    await hansa.actor.join("lobby", JULIET, "Juliet")
    await wait_matrix_member(alice, room, "Juliet")
    return room


async def stored(hansa: ScriptedHansa, event_id: str) -> dict[str, Any]:
    """An event's content as Hansa keeps and serves it."""
    row = await hansa.matrix.store.get("pdu", (event_id,))
    return orjson.loads(row.body)["content"] if row is not None else {"absent": True}


@VERSIONS
@pytest.mark.parametrize("hosted", ["here", "there"])
async def test_redactions_both_ways(version, hosted, stage, matrix_user):
    hansa, alice = await stage(), await matrix_user("alice")
    room = await entered(hansa, alice, version, hosted)
    said = await alice.say(room, "a secret")
    await hansa.actor.until("lobby", 1)
    where = f"/rooms/{quote(room, safe='')}/redact/{quote(said, safe='')}/{secrets.token_hex(4)}"
    await alice.call("PUT", where, {"reason": "typo"})
    await until("Hansa keeps it no more", lambda: _is(hansa, said, {}))

    theirs = (await hansa.actor.say("lobby", JULIET, "their secret")).event
    await wait_matrix_messages(alice, room, hansa.ghost(JULIET), ["their secret"])
    native = await hansa.matrix.ctx.native_id(theirs)
    if hosted == "here":
        await hansa.run("matrix", "rooms", "redact", room, native, "--reason", "so")
    else:
        where = f"/rooms/{quote(room, safe='')}/redact/{quote(native, safe='')}/{secrets.token_hex(4)}"
        await alice.call("PUT", where, {})
        await until("Hansa keeps it no more", lambda: _is(hansa, native, {}))

    async def gone() -> bool:
        event = await alice.call("GET", f"/rooms/{quote(room, safe='')}/event/{quote(native, safe='')}")
        return event["content"] == {}

    await until("Alice reads it no more", gone)
    history = await hansa.actor.ctx.read_history("lobby", limit=50)
    assert not any("secret" in getattr(e.content, "text", "") for e in history)
    # Who comes now gets the room with its redacted events, and takes it.
    bob = await matrix_user("bob")
    await bob.join(room, via=hansa.name if hosted == "here" else "")
    await hansa.actor.say("lobby", JULIET, "all is well")

    async def read() -> bool:
        said = await bob.bodies(room, hansa.ghost(JULIET))
        assert "their secret" not in said
        return "all is well" in said

    await until("Bob reads on", read)


async def _is(hansa: ScriptedHansa, event_id: str, content: dict[str, Any]) -> bool:
    return await stored(hansa, event_id) == content


async def replaced(user: MatrixUser, room: str) -> str:
    """The room that a room's tombstone names."""
    tombstone = (await user.state(room)).get(("m.room.tombstone", ""))
    return tombstone["content"]["replacement_room"] if tombstone else ""


@pytest.mark.parametrize(("old", "new"), [("9", "10"), ("10", "12"), ("11", "12"), ("12", "11")])
async def test_a_room_of_ours_is_upgraded_and_everything_follows(old, new, stage, matrix_user):
    hansa, alice = await stage(), await matrix_user("alice")
    room = await entered(hansa, alice, old, "here")
    await hansa.run("matrix", "rooms", "set", room, "m.room.topic", '{"topic": "kept"}')
    made = (await hansa.run("matrix", "rooms", "upgrade", room, new))["room"]
    await until("Alice sees where the room went", lambda: replaced(alice, room))
    assert await replaced(alice, room) == made
    assert await alice.join(f"#lobby:{hansa.name}") == made
    state = await alice.state(made)
    assert state["m.room.create", ""]["content"]["predecessor"]["room_id"] == room
    assert state["m.room.topic", ""]["content"] == {"topic": "kept"}
    assert state["m.room.member", hansa.ghost(JULIET)]["content"]["membership"] == "join"
    assert (await hansa.actor.say("lobby", JULIET, "over here")).refusal is None
    await wait_matrix_messages(alice, made, hansa.ghost(JULIET), ["over here"])
    await alice.say(made, "I followed")
    await hansa.actor.until_shown(
        "lobby", lambda seen: any(getattr(c, "text", "") == "I followed" for c in seen)
    )

    async def closed():  # nobody who is not set over others speaks in it any more
        levels = (await alice.state(room))["m.room.power_levels", ""]["content"]
        return (levels["events_default"], levels["invite"]) == (50, 50)

    await until("the old room is closed", closed)


@pytest.mark.parametrize(("old", "new"), [("9", "11"), ("11", "12")])
async def test_a_room_of_theirs_is_upgraded_and_we_follow(old, new, stage, matrix_user):
    hansa, alice = await stage(), await matrix_user("alice")
    room = await entered(hansa, alice, old, "there")
    answer = await alice.call("POST", f"/rooms/{quote(room, safe='')}/upgrade", {"new_version": new})
    made = answer["replacement_room"]
    await wait_matrix_member(alice, made, "Juliet")
    await alice.say(made, "over here")
    await hansa.actor.until_shown(
        "lobby", lambda seen: any(getattr(c, "text", "") == "over here" for c in seen)
    )
    assert (await hansa.actor.say("lobby", JULIET, "I followed")).refusal is None
    await wait_matrix_messages(alice, made, hansa.ghost(JULIET), ["I followed"])


async def test_the_public_list_a_space_and_a_time_over_federation(stage, matrix_user, synapse):
    hansa, alice = await stage(), await matrix_user("alice")
    room = await entered(hansa, alice, "11", "here")
    await hansa.run("matrix", "rooms", "set", room, "m.room.name", '{"name": "The harbour"}')
    await hansa.run("matrix", "rooms", "publish", room)
    query = {"filter": {"generic_search_term": "harb"}, "limit": 10}
    found = await alice.call("POST", f"/publicRooms?server={hansa.name}", query)
    assert [(r["room_id"], r["name"]) for r in found["chunk"]] == [(room, "The harbour")]

    space = await alice.create_room("11", creation_content={"type": "m.space"})
    await alice.set_state(space, "m.space.child", {"via": [hansa.name]}, room)
    other = (await hansa.run("matrix", "rooms", "create", "#other"))["room"]
    await alice.set_state(space, "m.space.child", {"via": [hansa.name]}, other)
    where = f"{alice.url}/_matrix/client/v1/rooms/{quote(space, safe='')}/hierarchy"
    assert alice._http is not None
    async with alice._http.get(where) as answer:
        rooms = {r["room_id"]: r for r in (await answer.json())["rooms"]}
    assert rooms[other]["canonical_alias"] == f"#other:{hansa.name}"  # which Synapse is not in, and asks us

    said = await alice.say(room, "noon")
    await hansa.actor.until("lobby", 1)
    row = await hansa.matrix.store.get("pdu", (said,))
    ts = orjson.loads(row.body)["origin_server_ts"]
    target = f"/_matrix/federation/v1/timestamp_to_event/{quote(room, safe='')}?ts={ts}&dir=b"
    status, event = await synapse.signer().request("GET", hansa.name, target)
    assert (status, event["event_id"]) == (200, said)


@VERSIONS
async def test_what_was_said_before_we_came_is_fetched(version, stage, matrix_user):
    hansa, alice = await stage(), await matrix_user("alice")
    alias = f"verona{hansa.hansa.port}"
    room = await alice.create_room(version, room_alias_name=alias)
    said = [await alice.say(room, f"long ago {number}") for number in range(30)]
    await alice.call(
        "PUT", f"/rooms/{quote(room, safe='')}/redact/{quote(said[0], safe='')}/{secrets.token_hex(4)}", {}
    )
    await hansa.run("rooms", "create", f"matrix:#{alias}:{alice.id.partition(':')[2]}", "stage:lobby")
    answer = await hansa.run("matrix", "rooms", "backfill", room, "--limit", "5")
    assert (answer["events"], answer["complete"], answer["failed"]) == (5, False, {})
    answer = await hansa.run("matrix", "rooms", "backfill", room)
    assert (answer["complete"], answer["failed"]) == (True, {})
    assert await stored(hansa, said[-1]) == {"msgtype": "m.text", "body": "long ago 29"}
    assert await stored(hansa, said[0]) == {}
    checked = await hansa.run("matrix", "rooms", "check", room)
    assert checked["statuses"].keys() == {"accepted"} and checked["events"] >= 5 + answer["events"]
    assert hansa.actor.texts("lobby") == []
