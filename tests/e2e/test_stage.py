"""People of a Hansa in the test's process meet a real Synapse: in rooms of either side, of every room version."""

from __future__ import annotations

import pytest
from e2e.three_servers import wait_matrix_member, wait_matrix_messages
from hansa import Kind
from peers.hansa import CommandFailed
from peers.waiting import until

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("version", ["1", "2", "3", "6", "8", "9", "10", "11", "12"])
@pytest.mark.parametrize("hosted", ["here", "there"])
async def test_both_speak_in_a_room_of_either(version, hosted, stage, matrix_user):
    hansa, alice = await stage(), await matrix_user("alice")
    if hosted == "here":
        await hansa.run("matrix", "rooms", "create", "#lobby", "--version", version)
        await hansa.run("rooms", "create", "matrix:#lobby", "stage:lobby")
        room = await alice.join(f"#lobby:{hansa.name}")
    else:
        room = await alice.create_room(version, room_alias_name=f"verona{hansa.hansa.port}")
        alias = f"#verona{hansa.hansa.port}:{alice.id.partition(':')[2]}"
        await hansa.run("rooms", "create", f"matrix:{alias}", "stage:lobby")
    await hansa.actor.join("lobby", "juliet@capulet", "Juliet")
    assert await wait_matrix_member(alice, room, "Juliet") == hansa.ghost("juliet@capulet")
    await alice.say(room, "who is there?")
    await hansa.actor.until("lobby", 1)
    for number in range(5):
        assert (await hansa.actor.say("lobby", "juliet@capulet", f"it is {number}")).refusal is None
    await wait_matrix_messages(alice, room, hansa.ghost("juliet@capulet"), [f"it is {n}" for n in range(5)])
    assert hansa.actor.texts("lobby") == ["who is there?"]
    if hosted == "here":
        await hansa.run("matrix", "rooms", "level", room, alice.id, "100" if version != "12" else "50")
        await hansa.run("matrix", "rooms", "set", room, "m.room.topic", '{"topic": "by the house"}')

    async def allowed() -> bool:
        levels = (await alice.state(room))["m.room.power_levels", ""]["content"]
        return hosted == "there" or levels["users"].get(alice.id, 0) >= 50

    await until("Alice may kick", allowed)
    await alice.kick(room, hansa.ghost("juliet@capulet"))

    async def out() -> bool:
        return hansa.ghost("juliet@capulet") not in await alice.members(room)

    await until("Juliet is out", out)
    await hansa.actor.until_shown("lobby", lambda seen: seen[-1].kind is Kind.MEMBER)
    assert (await hansa.actor.join("lobby", "juliet@capulet", "Juliet")).refusal is None
    await wait_matrix_member(alice, room, "Juliet")
    created = (await alice.state(room))["m.room.create", ""]["content"]
    assert created.get("room_version", "1") == version
    if hosted == "here":
        assert (await alice.state(room))["m.room.topic", ""]["content"] == {"topic": "by the house"}
        bad = '{"users": {"nobody": 1}}'
        with pytest.raises(CommandFailed, match="was refused: "):
            await hansa.run("matrix", "rooms", "set", room, "m.room.power_levels", bad)
