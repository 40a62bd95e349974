"""Commands in one room of a real Synapse, a real Prosody and a real ngircd."""

from __future__ import annotations

import pytest
from e2e.three_servers import MUC, xmpp_config
from peers.irc_bridge import bridge_table, reads
from peers.waiting import until

pytestmark = pytest.mark.e2e
CHANNEL, ROOM = "#lobby", "lobby"
MARK = "after the commands"


async def test_each_network_asks_and_no_other_sees_it(
    installed_irc, hansa, prosody, ngircd, irc_user, xmpp_user, matrix_user
):
    romeo, juliet, alice = await irc_user("Romeo"), await xmpp_user("juliet"), await matrix_user("alice")
    await romeo.join(CHANNEL)

    def config(server):
        room = f'links = ["matrix:#lobby:{server.name}", "irc:#lobby"'
        tables = bridge_table(server, ngircd).replace(room, f'{room}, "xmpp:{ROOM}"')
        operators = f'operators = ["matrix:{alice.id}"]'
        return f"[commands]\nenabled = true\n{operators}\n{xmpp_config(prosody)}{tables}"

    server = await hansa(config)

    async def linked():
        return any(len(room["links"]) == 3 for room in await server.run("rooms", "ls"))

    await until("three networks are linked", linked)
    name = alice.id[1:].partition(":")[0]
    await juliet.join(MUC, "Juliet")
    room = await alice.join(f"#lobby:{server.name}")
    await juliet.until("Alice", lambda: name in juliet.occupants(MUC))

    romeo.say(CHANNEL, "!hansa who")
    await romeo.until("an answer", lambda: any("Juliet" in text for text in romeo.texts("Romeo")))
    juliet.say(MUC, "!hansa who")
    await juliet.until("an answer", lambda: any("Romeo" in text for text in juliet.bodies(MUC)))
    await alice.say(room, "!hansa status")
    await reads(alice, room, "irc: up\nmatrix: up\nxmpp: up")
    await alice.say(room, f"!hansa link xmpp:{ROOM}2")
    await reads(alice, room, f"This room is linked to xmpp:{ROOM}2.")

    await alice.say(room, MARK)
    await romeo.seen(CHANNEL, f"<{name}> {MARK}")
    await juliet.until("the message", lambda: MARK in juliet.bodies(MUC))
    assert [text for text in romeo.texts(CHANNEL) if "hansa" in text or "xmpp: up" in text] == []
    own = [text for text in juliet.bodies(MUC) if "!hansa" in text or "irc: up" in text]
    assert own == ["!hansa who"]
    bodies = await alice.bodies(room)
    assert "!hansa who" not in bodies

    assert [one["room"] for one in await server.run("search", "rooms", ROOM)] != []
