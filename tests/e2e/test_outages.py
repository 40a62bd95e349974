"""E3 to E5: after an outage a server gets the events that it missed."""

from __future__ import annotations

import asyncio

import pytest
from e2e.three_servers import LOBBY, MUC, wait_linked, wait_matrix_member, wait_matrix_messages, xmpp_config
from peers.synapse import Synapse
from peers.waiting import until

pytestmark = pytest.mark.e2e


async def test_hansa_was_away(hansa, prosody, matrix_user, xmpp_user):
    """E3: 150 messages on Synapse while Hansa is down."""
    server = await hansa(xmpp_config(prosody) + LOBBY)
    await wait_linked(server)
    alice, bob = await matrix_user("alice"), await matrix_user("bob")
    room = await alice.join(f"#lobby:{server.name}")
    await bob.join(f"#lobby:{server.name}")
    await alice.say(room, "before")
    juliet = await xmpp_user("juliet")
    await juliet.join(MUC, "Juliet", "maxstanzas='10'")
    await juliet.until("the first", lambda: "before" in juliet.bodies(MUC))
    await server.stop()

    missed = [f"missed {n}" for n in range(150)]
    for n, text in enumerate(missed):
        await (alice, bob)[n % 2].say(room, text)
    await server.start()
    await wait_linked(server)
    await juliet.join(MUC, "Juliet", "maxstanzas='0'")

    romeo = await xmpp_user("romeo")

    async def in_the_log():
        (found,) = await server.run("rooms", "ls")
        return found["events"] >= before + 150

    before = 3
    await until("the log has what was missed", in_the_log, 90)
    await juliet.until("what was missed", lambda: len(juliet.bodies(MUC)) >= 151, 60)
    assert [b for b in juliet.bodies(MUC) if b.startswith("missed")] == missed
    await romeo.join(MUC, "Romeo", "maxstanzas='1000'")
    await romeo.until("history", lambda: len(romeo.bodies(MUC)) >= 151)
    assert romeo.bodies(MUC) == ["before", *missed]


async def test_both_were_away(ca, tmp_path, hansa, prosody, xmpp_user, local_user):
    """E3 where Synapse restarted meanwhile: it pushes only the newest event, the gap before it is asked for."""
    synapse = await Synapse(tmp_path / "synapse", ca).start()
    try:
        server = await hansa(xmpp_config(prosody) + LOBBY)
        await wait_linked(server)
        alice, juliet = await local_user(synapse, "alice"), await xmpp_user("juliet")
        room = await alice.join(f"#lobby:{server.name}")
        await juliet.join(MUC, "Juliet")
        await wait_matrix_member(alice, room, "Juliet")
        await server.stop()
        missed = [f"missed {n}" for n in range(70)]
        for text in missed:
            await alice.say(room, text)
        synapse.stop()
        await synapse.start()
        await server.start()
        await alice.say(room, "the newest")
        await juliet.until("the newest", lambda: "the newest" in juliet.bodies(MUC), 90)
        assert juliet.bodies(MUC) == [*missed, "the newest"]
    finally:
        synapse.stop()


async def test_prosody_was_away_and_hansa_was_killed(hansa, prosody, matrix_user, xmpp_user):
    """E4: Prosody stopped, 300 messages, Hansa killed in the burst; juliet comes back and asks since when."""
    server = await hansa(xmpp_config(prosody) + LOBBY)
    await wait_linked(server)
    alice, juliet = await matrix_user("alice"), await xmpp_user("juliet")
    room = await alice.join(f"#lobby:{server.name}")
    await juliet.join(MUC, "Juliet")
    await alice.say(room, "long ago")
    await alice.say(room, "last seen")
    await juliet.until("the last", lambda: "last seen" in juliet.bodies(MUC))
    rest = await xmpp_user("friar")
    await rest.join(MUC, "Friar", "maxstanzas='1'")
    (seen,) = rest.messages(MUC)
    since = seen.find("{urn:xmpp:delay}delay").get("stamp")
    await rest.close()
    await juliet.close()
    await prosody.stop()

    burst = [f"burst {n}" for n in range(300)]

    async def talks():
        for text in burst:
            await alice.say(room, text)

    talking = asyncio.ensure_future(talks())

    async def some_arrived():
        (found,) = await server.run("rooms", "ls")
        return found["events"] > 60

    await until("part of the burst arrived", some_arrived, 60)
    await server.kill()
    assert not talking.done()
    await server.start()
    await talking
    await prosody.start()
    await juliet.connect()

    async def component():
        return (await server.run("status"))["networks"][1]["state"] == "up"

    await until("the component is back", component, 60)
    before = len(juliet.bodies(MUC))
    await juliet.join(MUC, "Juliet", f"since='{since}'")
    await juliet.until("the burst", lambda: burst[-1] in juliet.bodies(MUC), 90)
    got = juliet.bodies(MUC)[before:]
    assert got == ["last seen", *burst]
    assert all(not link["dead"] for link in await server.run("deliveries", "ls"))


async def test_synapse_was_away(ca, tmp_path, hansa, prosody, xmpp_user, local_user):
    """E5: Synapse is stopped until Hansa has failed three times; ``hansa where`` tells the truth."""
    synapse = await Synapse(tmp_path / "synapse", ca).start()
    try:
        server = await hansa(xmpp_config(prosody) + LOBBY)
        await wait_linked(server)
        alice, juliet = await local_user(synapse, "alice"), await xmpp_user("juliet")
        room = await alice.join(f"#lobby:{server.name}")
        await juliet.join(MUC, "Juliet")
        ghost = await wait_matrix_member(alice, room, "Juliet")
        synapse.stop()

        texts = [f"nobody hears {n}" for n in range(20)]
        for text in texts:
            assert await juliet.verdict(juliet.say(MUC, text), MUC) is None
        last = juliet.messages(MUC)[-1].find("{urn:xmpp:sid:0}stanza-id").get("id")

        async def destination():
            found = await server.run("where", last)
            return next(d for d in found["destinations"] if synapse.name in d["destination"])

        async def failing():
            found = await destination()
            return found if found["state"] == "failed" and found.get("failures", 0) >= 3 else None

        trouble = await until("three failed attempts", failing, 60)
        assert trouble["since"] > 0 and trouble["reason"]
        await synapse.start()
        await wait_matrix_messages(alice, room, ghost, texts, 120)

        async def delivered():
            return (await destination())["state"] == "delivered"

        await until("`hansa where` says delivered", delivered)
    finally:
        synapse.stop()
