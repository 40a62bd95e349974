"""Content besides text, both ways, between a real Synapse and a real Prosody."""

from __future__ import annotations

import pytest
from e2e.three_servers import (
    LOBBY,
    MUC,
    wait_linked,
    wait_matrix_member,
    wait_matrix_messages,
    xmpp_config,
)
from peers.hansa import Hansa
from peers.prosody import StanzaError, XmppUser
from peers.synapse import MatrixUser
from peers.waiting import until

pytestmark = pytest.mark.e2e


@pytest.fixture
async def lobby(hansa, prosody, matrix_user, xmpp_user) -> tuple[Hansa, XmppUser, MatrixUser, str, str]:
    """Alice and Juliet in one room, each seen by the other."""
    server = await hansa(xmpp_config(prosody) + LOBBY)
    await wait_linked(server)
    juliet, alice = await xmpp_user("juliet", "balcony"), await matrix_user("alice")
    await juliet.join(MUC, "Juliet")
    room = await alice.join(f"#lobby:{server.name}")
    ghost = await wait_matrix_member(alice, room, "Juliet")
    await juliet.until("Alice", lambda: len(juliet.occupants(MUC)) == 3)
    return server, juliet, alice, room, ghost


async def _member(user, room, who):
    return (await user.state(room))["m.room.member", who]["content"]


async def test_emotes_topics_names_and_nicks(lobby):
    _, juliet, alice, room, ghost = lobby
    await alice.say(room, "waves", "m.emote")
    await juliet.until("the emote", lambda: "/me waves" in juliet.bodies(MUC))
    juliet.say(MUC, "/me sighs")

    async def sighs():
        found = [e for e in await alice.history(room) if e["content"].get("body") == "sighs"]
        return found and found[0]["content"]["msgtype"] == "m.emote"

    await until("her sigh", sighs)

    await alice.set_state(room, "m.room.topic", {"topic": "Balconies"})

    def subjects():
        return [e.findtext("{jabber:client}subject") for e in juliet.stanzas if e.tag.endswith("message")]

    await juliet.until("the subject", lambda: "Balconies" in subjects())
    juliet.set_subject(MUC, "Feuds")
    await until("the topic", lambda: _is(alice, room, "m.room.topic", "topic", "Feuds"))

    await alice.set_state(room, "m.room.name", {"name": "Verona"})
    changed = (
        "{http://jabber.org/protocol/muc#user}x/{http://jabber.org/protocol/muc#user}status[@code='104']"
    )
    await juliet.until("status 104", lambda: any(e.find(changed) is not None for e in juliet.stanzas))

    await alice.set_state(room, "m.room.member", {"membership": "join", "displayname": "Alicia"}, alice.id)
    await juliet.until("Alicia", lambda: "Alicia" in juliet.occupants(MUC))
    assert len(juliet.occupants(MUC)) == 3
    juliet.raw(f"<presence to='{MUC}/Jule'/>")
    await juliet.until("her new nick", lambda: "Jule" in juliet.occupants(MUC))
    assert "Juliet" not in juliet.occupants(MUC)
    await until("her new name", lambda: _is_named(alice, room, ghost, "Jule"))


async def _is(user, room, kind, key, value):
    return (await user.state(room)).get((kind, ""), {"content": {}})["content"].get(key) == value


async def _is_named(user, room, who, name):
    return (await user.members(room)).get(who) == name


async def _is_gone(user, room, who):
    return who not in await user.members(room)


async def test_leaving_kicking_and_losing_the_connection(lobby, xmpp_user):
    _, juliet, alice, room, ghost = lobby
    romeo = await xmpp_user("romeo", "garden")
    await romeo.join(MUC, "Romeo")
    his = await wait_matrix_member(alice, room, "Romeo")
    with pytest.raises(StanzaError) as taken:
        await (await xmpp_user("tybalt")).join(MUC, "Romeo")
    assert taken.value.condition == "conflict"

    before = len(await alice.history(room))
    romeo.cut()
    await juliet.until("Romeo gone", lambda: "Romeo" not in juliet.occupants(MUC))
    assert await juliet.ping(f"{MUC}/Juliet") is None
    await romeo.connect()
    await romeo.join(MUC, "Romeo")
    assert his in await alice.members(room)
    assert len(await alice.history(room)) == before
    romeo.leave(MUC, "Romeo")
    await until("his ghost gone", lambda: _is_gone(alice, room, his))
    outside = await romeo.ping(f"{MUC}/Romeo")
    assert outside is not None and outside.condition == "not-acceptable"

    await alice.leave(room)
    await juliet.until("Alice gone", lambda: len(juliet.occupants(MUC)) == 2)
    juliet.leave(MUC, "Juliet")
    await alice.join(room, via=ghost.partition(":")[2])
    await until("her ghost gone", lambda: _is_gone(alice, room, ghost))


async def test_a_kick_reaches_the_one_who_is_kicked(hansa, prosody, matrix_user, xmpp_user):
    server = await hansa(xmpp_config(prosody))
    await wait_linked(server, rooms=0)
    juliet, alice = await xmpp_user("juliet"), await matrix_user("alice")
    room = await alice.create_room(room_alias_name="tomb" + alice.id[1:9])
    alias = (await alice.state(room))["m.room.canonical_alias", ""]["content"]["alias"]
    await server.run("rooms", "create", f"matrix:{alias}", "xmpp:lobby")
    await juliet.join(MUC, "Juliet")
    ghost = await wait_matrix_member(alice, room, "Juliet")
    await alice.kick(room, ghost, "wake up")
    muc_user = "{http://jabber.org/protocol/muc#user}"

    def kicked():
        for e in juliet.stanzas:
            codes = {s.get("code") for s in e.iter(f"{muc_user}status")}
            if e.get("type") == "unavailable" and {"307", "110"} <= codes:
                return e
        return None

    stanza = await juliet.until("her kick", kicked)
    assert stanza.find(f"{muc_user}x/{muc_user}item/{muc_user}reason").text == "wake up"
    refused = await juliet.verdict(juliet.say(MUC, "I was asleep"), MUC)
    assert refused is not None and refused.condition == "not-acceptable"
    await juliet.join(MUC, "Juliet")
    assert await juliet.verdict(juliet.say(MUC, "I am awake"), MUC) is None


async def test_invites_cross_both_ways(lobby, synapse, matrix_user, xmpp_user):
    _, juliet, alice, room, _ = lobby
    bob = await matrix_user("bob")
    name, _, domain = bob.id[1:].partition(":")
    puppet = f"{name}%{domain.replace(':', chr(92) + '3a')}@{MUC.partition('@')[2]}"
    muc_user = "http://jabber.org/protocol/muc#user"
    juliet.raw(
        f"<message to='{MUC}' id='i1'><x xmlns='{muc_user}'><invite to='{puppet}'><reason>come</reason></invite></x></message>"
    )
    await until("the invite", lambda: _invited(bob, room))
    await bob.join(room)
    await juliet.until("Bob", lambda: name in juliet.occupants(MUC))

    romeo = await xmpp_user("romeo")
    await romeo.join(MUC, "Romeo")
    his = await wait_matrix_member(alice, room, "Romeo")
    romeo.leave(MUC, "Romeo")
    await until("his ghost gone", lambda: _is_gone(alice, room, his))
    await alice.invite(room, his)

    def invite():
        return next(
            (e for e in romeo.stanzas if e.find(f"{{{muc_user}}}x/{{{muc_user}}}invite") is not None), None
        )

    asked = await romeo.until("an invite", invite)
    assert asked.get("from") == MUC
    await romeo.join(MUC, "Romeo")

    stranger = f"nobody%127.0.0.1{chr(92)}3a1@{MUC.partition('@')[2]}"
    juliet.raw(f"<message to='{MUC}' id='i2'><x xmlns='{muc_user}'><invite to='{stranger}'/></x></message>")
    refused = await juliet.verdict("i2", MUC)
    assert refused is not None and refused.condition == "remote-server-timeout"


async def _invited(user, room):
    return room in await user.invites()


async def test_a_restart_of_the_xmpp_server_writes_no_lines_and_members_come_back(
    hansa, prosody, matrix_user, xmpp_user
):
    """Also into a room that takes invites alone."""
    server = await hansa(xmpp_config(prosody))
    await wait_linked(server, rooms=0)
    juliet, alice = await xmpp_user("juliet"), await matrix_user("alice")
    room = await alice.create_room(room_alias_name="vault" + alice.id[1:9])
    alias = (await alice.state(room))["m.room.canonical_alias", ""]["content"]["alias"]
    await server.run("rooms", "create", f"matrix:{alias}", "xmpp:lobby")
    await juliet.join(MUC, "Juliet")
    ghost = await wait_matrix_member(alice, room, "Juliet")
    await alice.set_state(room, "m.room.join_rules", {"join_rule": "invite"})
    before = [event["event_id"] for event in await alice.history(room)]
    await juliet.close()
    await prosody.stop()
    await prosody.start()

    async def component() -> bool:
        return (await server.run("status"))["networks"][1]["state"] == "up"

    await until("the component is back", component, 60)
    await juliet.connect()
    await juliet.join(MUC, "Juliet")
    assert await juliet.verdict(juliet.say(MUC, "back"), MUC) is None
    await wait_matrix_messages(alice, room, ghost, ["back"])
    events = [event["event_id"] for event in await alice.history(room)]
    assert events[:-1] == before
