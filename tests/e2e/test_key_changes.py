"""Keys as real servers see them: a rotation in a room that goes on, a notary that vouches for who is gone."""

from __future__ import annotations

import orjson
import pytest
from e2e.three_servers import wait_matrix_messages
from peers.waiting import until

pytestmark = pytest.mark.e2e

JULIET = "juliet@capulet"


async def test_a_room_goes_on_over_a_rotation_and_a_restart(stage, matrix_user):
    hansa, alice = await stage(), await matrix_user("alice")
    await hansa.run("rooms", "create", "matrix:#lobby", "stage:lobby")
    room = await alice.join(f"#lobby:{hansa.name}")
    await hansa.actor.join("lobby", JULIET, "Juliet")
    await hansa.actor.say("lobby", JULIET, "before")
    rotated = await hansa.run("matrix", "keys", "rotate")
    await hansa.actor.say("lobby", JULIET, "after")
    juliet = hansa.ghost(JULIET)
    await wait_matrix_messages(alice, room, juliet, ["before", "after"])
    await hansa.stop()
    await hansa.start()
    listed = await hansa.run("matrix", "keys", "ls")
    assert [k["key"] for k in listed if not k["expired"]] == [rotated["key"]] and len(listed) == 2
    await hansa.actor.say("lobby", JULIET, "again", origin="again")
    await wait_matrix_messages(alice, room, juliet, ["before", "after", "again"])
    # Who comes now gets the room with events by both keys, and takes it.
    other = await matrix_user("bob")
    assert await other.join(f"#lobby:{hansa.name}") == room
    await alice.say(room, "heard")
    await hansa.actor.until("lobby", 1)


async def test_a_real_notary_vouches_for_a_server_that_is_gone(stage, synapse, matrix_user):
    gone, alice = await stage(), await matrix_user("alice")
    await gone.run("rooms", "create", "matrix:#lobby", "stage:lobby")
    room = await alice.join(f"#lobby:{gone.name}")  # so Synapse knows its keys
    await gone.actor.join("lobby", JULIET)
    await gone.actor.say("lobby", JULIET, "good bye")
    await wait_matrix_messages(alice, room, gone.ghost(JULIET), ["good bye"])
    key = (await gone.run("matrix", "keys", "ls"))[0]
    await gone.stop()
    for notaries, found in (("[]", None), (f'["{synapse.name}"]', key["public"])):
        heir = await stage(matrix=f"trusted_key_servers = {notaries}")
        keyring = heir.matrix.keyring
        await keyring.ensure_keys([(gone.name, key["key"])], 1)
        known = keyring.get(gone.name, key["key"])
        assert (known.public if known else None) == found


async def test_we_are_a_notary_that_a_real_server_believes(stage, synapse, matrix_user):
    """Our answer about Synapse is its own document with one signature more."""
    hansa, alice = await stage(), await matrix_user("alice")
    await hansa.run("rooms", "create", "matrix:#lobby", "stage:lobby")
    await alice.join(f"#lobby:{hansa.name}")
    keyring = hansa.matrix.keyring

    async def known() -> bool:
        return await keyring.document_of(synapse.name, 0) is not None

    await until("Hansa has Synapse's keys", known)
    second = await stage(matrix=f'trusted_key_servers = ["{hansa.name}"]')
    doc = orjson.loads(await hansa.matrix.keyring.document_of(synapse.name, 0))
    given = await second.matrix.federation_client.request(
        "POST", hansa.name, "/_matrix/key/v2/query", {"server_keys": {synapse.name: {}}}, signed=False
    )
    (answered,) = given["server_keys"]
    assert {**answered, "signatures": doc["signatures"]} == doc
    assert set(answered["signatures"]) == {hansa.name, synapse.name}
    assert await second.matrix.keyring._has_notary_signature(answered, hansa.name)
