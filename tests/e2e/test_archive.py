"""The archive of a room that Hansa hosts, read by slixmpp's client of XEP-0313 at a real Prosody."""

from __future__ import annotations

import secrets

import pytest
from e2e.three_servers import LOBBY, MUC, wait_linked, xmpp_config
from slixmpp.exceptions import IqError

pytestmark = pytest.mark.e2e
RETRACT = "urn:xmpp:message-retract:1"


async def test_who_was_away_reads_what_they_missed(hansa, prosody, xmpp_user, local_user):
    server = await hansa(xmpp_config(prosody) + LOBBY)
    await wait_linked(server)
    alice = await local_user(server, "alice")
    room = await alice.join(f"#lobby:{server.name}")
    juliet, romeo = await xmpp_user("juliet"), await xmpp_user("romeo")
    await juliet.join(MUC, "Juliet")
    await romeo.join(MUC, "Romeo")
    await romeo.verdict(romeo.say(MUC, "I go now"), MUC)
    await romeo.close()  # the connection ends, and he stays a member
    names = [juliet.say(MUC, f"word {n}") for n in range(25)]
    names.append(juliet.say(MUC, "too much"))
    for name in names:
        assert await juliet.verdict(name, MUC) is None
    stable = juliet.messages(MUC)[-1].find("{urn:xmpp:sid:0}stanza-id").get("id")
    retract = f"<retract xmlns='{RETRACT}' id='{stable}'/>"
    juliet.raw(f"<message to='{MUC}' type='groupchat' id='s2'>{retract}</message>")
    tag = f"{{{RETRACT}}}retract"
    await juliet.until("the retraction", lambda: [e for e in juliet.stanzas if e.find(tag) is not None])
    await alice.say(room, "from Matrix")
    await juliet.until("Alice's words", lambda: "from Matrix" in juliet.bodies(MUC))

    await romeo.connect()
    forth = await romeo.archive(MUC, page=10)
    back = await romeo.archive(MUC, page=7, reverse=True)

    def texts(messages):
        return [e.findtext("{jabber:client}body") or "" for e in messages]

    said = ["I go now", *(f"word {n}" for n in range(25)), "from Matrix"]
    assert [text for text in texts(forth) if text in said] == said
    assert sorted(texts(back)) == sorted(texts(forth))
    (stone,) = [e for e in forth if e.find(f"{{{RETRACT}}}retracted") is not None]
    assert stone.find("{jabber:client}body") is None
    assert len([e for e in forth if e.find(tag) is not None]) == 1

    stranger = await xmpp_user("tybalt")
    with pytest.raises(IqError) as refused:
        await stranger.archive(MUC, page=10)
    assert refused.value.condition == "forbidden"


async def test_who_scrolls_back_reads_what_was_said_on_matrix_before_the_link(
    hansa, prosody, xmpp_user, synapse, matrix_user
):
    alice = await matrix_user("alice")
    name = f"old{secrets.token_hex(3)}"
    room = await alice.create_room("11", room_alias_name=name, preset="public_chat")
    for n in range(30):
        await alice.say(room, f"old {n}")
    server = await hansa(xmpp_config(prosody))
    await server.run("rooms", "create", f"matrix:#{name}:{alice.id.partition(':')[2]}", "xmpp:lobby")
    juliet = await xmpp_user("juliet")
    await juliet.join(MUC, "Juliet")
    assert await juliet.verdict(juliet.say(MUC, "new"), MUC) is None

    async def scrolled() -> list[str]:
        pages = await juliet.archive(MUC, page=10, reverse=True)
        return sorted(e.findtext("{jabber:client}body") or "" for e in pages)

    assert await scrolled() == sorted([*(f"old {n}" for n in range(30)), "new"])
    romeo = await xmpp_user("romeo")
    await romeo.join(MUC, "Romeo", history="maxstanzas='5'")
    await romeo.until("five messages", lambda: len(romeo.bodies(MUC)) == 5)
    assert romeo.bodies(MUC) == ["old 26", "old 27", "old 28", "old 29", "new"]
