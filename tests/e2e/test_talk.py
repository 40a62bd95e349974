"""E1 and E2: people of a real Synapse and of a real Prosody talk through one Hansa."""

from __future__ import annotations

import asyncio

import pytest
from e2e.town import LOBBY, MUC, matrix_reads, matrix_sees, up, xmpp_table

pytestmark = pytest.mark.e2e


async def talk(alice, room, juliet, *, count):
    """Both say ``count`` things, interleaved; each sees all of the other's, once, in order."""
    ghost = await matrix_sees(alice, room, "Juliet")
    nick = await juliet.until("Alice", lambda: next((n for n in juliet.occupants(MUC) if "lice" in n), ""))
    mine, hers = [f"from matrix {n}" for n in range(count)], [f"from xmpp {n}" for n in range(count)]

    async def alice_speaks():
        for text in mine:
            await alice.say(room, text)

    async def juliet_speaks():
        for text in hers:
            assert await juliet.verdict(juliet.say(MUC, text), MUC) is None

    await asyncio.gather(alice_speaks(), juliet_speaks())
    await juliet.until("everything Alice said", lambda: len(juliet.bodies(MUC, nick=nick)) >= count, 60)
    assert juliet.bodies(MUC, nick=nick) == mine
    assert juliet.bodies(MUC, nick="Juliet") == hers
    await matrix_reads(alice, room, ghost, hers)


@pytest.mark.parametrize("version", ["10", "11", "12"])
async def test_a_room_that_hansa_hosts(version, hansa, prosody, matrix_user, xmpp_user):
    server = await hansa(xmpp_table(prosody) + LOBBY, version=version)
    await up(server)
    juliet, alice = await xmpp_user("juliet"), await matrix_user("alice")
    await juliet.join(MUC, "Juliet")
    room = await alice.join(f"#lobby:{server.name}")
    assert (await alice.state(room))["m.room.create", ""]["content"]["room_version"] == version
    await talk(alice, room, juliet, count=200)
