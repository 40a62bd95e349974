"""E1 and E2: people of a real Synapse and of a real Prosody talk through one Hansa."""

from __future__ import annotations

import asyncio

import pytest
from e2e.three_servers import LOBBY, MUC, wait_linked, wait_matrix_member, wait_matrix_messages, xmpp_config
from peers.prosody import StanzaError
from peers.waiting import until

pytestmark = pytest.mark.e2e


async def talk(alice, room, juliet, *, count):
    """Both say ``count`` things, interleaved; each sees all of the other's, once, in order."""
    ghost = await wait_matrix_member(alice, room, "Juliet")
    nick = await juliet.until("Alice", lambda: next((n for n in juliet.occupants(MUC) if "lice" in n), ""))
    mine, hers = [f"from matrix {n}" for n in range(count)], [f"from xmpp {n}" for n in range(count)]

    async def alice_speaks():
        for text in mine:
            await alice.say(room, text)

    async def juliet_speaks():
        for at in range(0, count, 10):  # ten at a time: they are submitted together
            for name in [juliet.say(MUC, text) for text in hers[at : at + 10]]:
                assert await juliet.verdict(name, MUC) is None

    await asyncio.gather(alice_speaks(), juliet_speaks())
    await juliet.until("everything Alice said", lambda: len(juliet.bodies(MUC, nick=nick)) >= count, 60)
    assert juliet.bodies(MUC, nick=nick) == mine
    assert juliet.bodies(MUC, nick="Juliet") == hers
    await wait_matrix_messages(alice, room, ghost, hers)


@pytest.mark.parametrize("version", ["10", "11", "12"])
async def test_a_room_that_hansa_hosts(version, hansa, prosody, matrix_user, xmpp_user):
    server = await hansa(xmpp_config(prosody) + LOBBY, version=version)
    await wait_linked(server)
    juliet, alice = await xmpp_user("juliet"), await matrix_user("alice")
    await juliet.join(MUC, "Juliet")
    room = await alice.join(f"#lobby:{server.name}")
    assert (await alice.state(room))["m.room.create", ""]["content"]["room_version"] == version
    await talk(alice, room, juliet, count=200)


@pytest.mark.parametrize(
    ("version", "kind"),
    [("10", "mongo"), ("11", "mongo"), ("12", "mongo"), ("11", "postgres"), ("12", "postgres")],
)
async def test_a_room_that_hansa_keeps_in_a_database(
    version, kind, hansa, prosody, matrix_user, xmpp_user, request
):
    """E7."""
    store = request.getfixturevalue(f"{kind}_url")
    server = await hansa(xmpp_config(prosody) + LOBBY, version=version, store=store)
    await wait_linked(server)
    juliet, alice = await xmpp_user("juliet"), await matrix_user("alice")
    await juliet.join(MUC, "Juliet")
    room = await alice.join(f"#lobby:{server.name}")
    await talk(alice, room, juliet, count=200)
    assert not list(server.folder.glob("*.db*"))


async def linked_to_muc(server, native: str) -> None:
    """Tie the MUC to a room that the bridge user is in."""

    async def there():
        return [r for r in await server.run("rooms", "ls") if native in [x["link"] for x in r["links"]]]

    await until(f"{native} is known", there)
    await server.run("rooms", "link", native, "xmpp:lobby")


async def test_a_room_on_synapse_that_the_bridge_user_is_invited_to(hansa, prosody, matrix_user, xmpp_user):
    server = await hansa(xmpp_config(prosody))
    await wait_linked(server, rooms=0)
    juliet, alice = await xmpp_user("juliet"), await matrix_user("alice")
    room = await alice.create_room(name="Verona")
    await alice.invite(room, f"@hansa:{server.name}")
    await linked_to_muc(server, f"matrix:{room}")
    await juliet.join(MUC, "Juliet")
    await talk(alice, room, juliet, count=200)


async def test_a_room_on_synapse_joined_by_its_alias_keeps_its_rules(hansa, prosody, matrix_user, xmpp_user):
    server = await hansa(xmpp_config(prosody))
    await wait_linked(server, rooms=0)
    juliet, alice = await xmpp_user("juliet"), await matrix_user("alice")
    room = await alice.create_room(room_alias_name="verona", version="11")
    alias = f"#verona:{alice.id.partition(':')[2]}"
    await server.run("rooms", "create", f"matrix:{alias}", "xmpp:lobby")
    await juliet.join(MUC, "Juliet")
    await talk(alice, room, juliet, count=20)

    levels = (await alice.state(room))["m.room.power_levels", ""]["content"]
    await alice.set_state(room, "m.room.power_levels", {**levels, "events_default": 50})
    marker = await alice.say(room, "quiet, please")
    await juliet.until("the marker", lambda: "quiet, please" in juliet.bodies(MUC))
    refused = await juliet.verdict(juliet.say(MUC, "but I must"), MUC)
    assert refused is not None and refused.condition == "forbidden"
    await alice.set_state(room, "m.room.power_levels", levels)
    await alice.say(room, "go on")
    await juliet.until("the marker", lambda: "go on" in juliet.bodies(MUC))
    assert await juliet.verdict(juliet.say(MUC, "thank you"), MUC) is None
    assert "but I must" not in juliet.bodies(MUC)
    await until("Alice reads on", lambda: _says(alice, room, "thank you"))
    assert "but I must" not in await alice.bodies(room)
    assert marker

    await alice.set_state(room, "m.room.join_rules", {"join_rule": "invite"})
    await alice.say(room, "closed")
    await juliet.until("the marker", lambda: "closed" in juliet.bodies(MUC))
    romeo = await xmpp_user("romeo")
    with pytest.raises(StanzaError) as closed:
        await romeo.join(MUC, "Romeo")
    assert closed.value.condition == "registration-required"
    assert "Romeo" not in juliet.occupants(MUC)

    ghost = await wait_matrix_member(alice, room, "Juliet")
    await alice.ban(room, ghost)
    await juliet.until("her ban", lambda: "Juliet" not in juliet.occupants(MUC))
    with pytest.raises(StanzaError) as banned:
        await juliet.join(MUC, "Juliet")
    assert banned.value.condition == "forbidden"


async def _says(user, room, text):
    return text in await user.bodies(room)
