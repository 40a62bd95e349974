"""A room of Prosody's own MUC service, linked to a room on a real Synapse."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import pytest
from e2e.three_servers import wait_linked, wait_matrix_member, wait_matrix_messages, xmpp_config
from peers.prosody import MUC_SERVICE
from peers.waiting import until

pytestmark = pytest.mark.e2e
ROOM = f"garden@{MUC_SERVICE}"
LINKS = f'\n[commands]\nenabled = true\n[[rooms]]\nlinks = ["matrix:#garden", "xmpp:{ROOM}"]\n'


async def test_people_talk_through_a_room_elsewhere(prosody, hansa, matrix_user, xmpp_user):
    juliet = await xmpp_user("juliet")
    await juliet.join(ROOM, "Juliet")
    server = await hansa(xmpp_config(prosody) + LINKS)
    await wait_linked(server)
    alice = await matrix_user("alice")
    room = await alice.join(f"#garden:{server.name}")
    ghost = await wait_matrix_member(alice, room, "Juliet")
    await alice.say(room, "hello from Matrix")
    await juliet.until("the message", lambda: "hello from Matrix" in juliet.bodies(ROOM))
    (said,) = [e for e in juliet.messages(ROOM) if "hello" in (e.findtext("{*}body") or "")]
    assert said.get("from") != f"{ROOM}/hansa"
    juliet.say(ROOM, "hello from XMPP")
    await wait_matrix_messages(alice, room, ghost, ["hello from XMPP"])
    assert juliet.bodies(ROOM) == ["hello from Matrix", "hello from XMPP"]


def _groupchat(inner: str, id_: str) -> str:
    return f"<message to='{ROOM}' type='groupchat' id='{id_}'>{inner}</message>"


def _stanza_id(e) -> str:
    return e.find("{urn:xmpp:sid:0}stanza-id").get("id")


async def _found(user, tag: str, number: int = 1):
    """The latest stanza of the room with an element, once there are so many."""

    def there():
        found = [e for e in user.stanzas if e.find(tag) is not None and e.get("from", "").startswith(ROOM)]
        return found[-1] if len(found) >= number else None

    return await user.until(f"{number} of {tag}", there)


async def _send(user, room: str, kind: str, content) -> str:
    path = f"/rooms/{quote(room, safe='')}/send/{kind}/{secrets.token_hex(6)}"
    return (await user.call("PUT", path, content))["event_id"]


@pytest.fixture
def scene(prosody, hansa, matrix_user, xmpp_user) -> Callable[..., Awaitable[Any]]:
    """Juliet in the room elsewhere, Alice in the Matrix room; makes it with further settings."""

    async def make(**settings):
        juliet = await xmpp_user("juliet")
        await juliet.join(ROOM, "Juliet")
        more = "".join(f"{key} = {value}\n" for key, value in settings.items())
        server = await hansa(xmpp_config(prosody) + more + LINKS)
        await wait_linked(server)
        alice = await matrix_user("alice")
        room = await alice.join(f"#garden:{server.name}")
        await wait_matrix_member(alice, room, "Juliet")
        return server, juliet, alice, room

    return make


async def _event(alice, room: str, what: str, holds):
    async def there():
        return next((e for e in await alice.history(room) if holds(e)), None)

    return await until(what, there)


async def test_all_kinds_cross_in_both_directions(scene):
    _, juliet, alice, room = await scene()
    juliet.raw(_groupchat("<body>helo</body>", "j1"))
    first = await _event(alice, room, "helo", lambda e: e["content"].get("body") == "helo")
    juliet.raw(_groupchat("<body>hello</body><replace xmlns='urn:xmpp:message-correct:0' id='j1'/>", "j2"))
    await _event(
        alice,
        room,
        "the correction",
        lambda e: e["content"].get("m.relates_to", {}).get("event_id") == first["event_id"],
    )
    answer = {"msgtype": "m.text", "body": "an answer"}
    answer["m.relates_to"] = {"m.in_reply_to": {"event_id": first["event_id"]}}
    said = await _send(alice, room, "m.room.message", answer)
    reply = await _found(juliet, "{urn:xmpp:reply:0}reply")
    stable = _stanza_id(next(e for e in juliet.messages(ROOM) if e.findtext("{*}body") == "helo"))
    assert reply.find("{urn:xmpp:reply:0}reply").get("id") == stable
    edit = {
        "msgtype": "m.text",
        "body": "* an edit",
        "m.new_content": {"msgtype": "m.text", "body": "an edit"},
    }
    edit["m.relates_to"] = {"rel_type": "m.replace", "event_id": said}
    await _send(alice, room, "m.room.message", edit)
    corrected = await _found(juliet, "{urn:xmpp:message-correct:0}replace", 2)
    assert corrected.find("{urn:xmpp:message-correct:0}replace").get("id") == reply.get("id")
    assert corrected.get("from") == reply.get("from")
    about = {"rel_type": "m.annotation", "event_id": first["event_id"], "key": "👍"}
    await _send(alice, room, "m.reaction", {"m.relates_to": about})
    reactions = (await _found(juliet, "{urn:xmpp:reactions:0}reactions")).find("{*}reactions")
    assert (reactions.get("id"), [one.text for one in reactions]) == (stable, ["👍"])
    mark = (
        f"<reactions xmlns='urn:xmpp:reactions:0' id='{_stanza_id(reply)}'><reaction>❤</reaction></reactions>"
    )
    juliet.raw(_groupchat(mark, "j3"))
    await _event(
        alice,
        room,
        "the reaction",
        lambda e: e["content"].get("m.relates_to", {}).get("event_id") == said and e["type"] == "m.reaction",
    )
    back = f"<reply xmlns='urn:xmpp:reply:0' id='{_stanza_id(reply)}' to='{reply.get('from')}'/>"
    juliet.raw(_groupchat(f"<body>my reply</body>{back}", "j4"))
    found = await _event(alice, room, "the reply", lambda e: "my reply" in e["content"].get("body", ""))
    assert found["content"]["m.relates_to"]["m.in_reply_to"]["event_id"] == said
    await alice.call("PUT", f"/rooms/{quote(room, safe='')}/redact/{quote(said, safe='')}/r1", {})
    retract = await _found(juliet, "{urn:xmpp:message-retract:1}retract")
    assert retract.find("{urn:xmpp:message-retract:1}retract").get("id") == _stanza_id(reply)
    juliet.raw(_groupchat(f"<retract xmlns='urn:xmpp:message-retract:1' id='{stable}'/>", "j5"))
    await _event(
        alice,
        room,
        "the retraction",
        lambda e: (
            e["type"] == "m.room.redaction"
            and first["event_id"] in (e.get("redacts"), e["content"].get("redacts"))
        ),
    )
    juliet.raw(_groupchat("<subject>roses</subject>", "j6"))
    await _event(alice, room, "the topic", lambda e: e["content"].get("topic") == "roses")
    juliet.leave(ROOM, "Juliet")

    async def gone():
        return "Juliet" not in (await alice.members(room)).values()

    await until("Juliet has left", gone)


async def test_messages_from_an_outage_of_the_component_come_in_order(scene, prosody):
    server, juliet, alice, room = await scene()
    juliet.say(ROOM, "before")
    await _event(alice, room, "before", lambda e: e["content"].get("body") == "before")
    await server.kill()
    for number in range(60):
        juliet.say(ROOM, f"missed {number}")
    await alice.say(room, "from Matrix meanwhile")
    await server.start()
    await juliet.until("the message", lambda: "from Matrix meanwhile" in juliet.bodies(ROOM))
    texts = ["before", *(f"missed {number}" for number in range(60))]

    async def there():
        return len(await alice.bodies(room, "juliet")) >= len(texts) or len(
            await alice.bodies(room, "garden")
        ) >= len(texts)

    await until("what was missed", there)
    told = [text for text in await alice.bodies(room) if text in texts]
    assert told == texts
    assert juliet.bodies(ROOM).count("from Matrix meanwhile") == 1


async def test_a_restart_of_the_server_loses_nothing(scene, prosody):
    _, juliet, alice, room = await scene()
    await alice.say(room, "one")
    await juliet.until("one", lambda: "one" in juliet.bodies(ROOM))
    juliet.cut()
    await prosody.stop()
    await alice.say(room, "two")
    await prosody.start()
    await juliet.connect()
    await juliet.join(ROOM, "Juliet", "maxstanzas='20'")
    await juliet.until("two", lambda: "two" in juliet.bodies(ROOM))
    juliet.say(ROOM, "three")
    await _event(alice, room, "three", lambda e: e["content"].get("body") == "three")
    await alice.say(room, "four")
    await juliet.until("four", lambda: "four" in juliet.bodies(ROOM))
    assert juliet.bodies(ROOM).count("two") == 1


async def _kick(moderator, nick: str) -> None:
    item = f"<item nick='{nick}' role='none'><reason>enough</reason></item>"
    query = f"<query xmlns='http://jabber.org/protocol/muc#admin'>{item}</query>"
    moderator.raw(f"<iq to='{ROOM}' type='set' id='k'>{query}</iq>")


async def test_a_puppet_that_is_kicked_is_told_and_does_not_come_back_until_asked(scene, xmpp_user):
    _, juliet, alice, room = await scene()
    nurse = await xmpp_user("nurse")
    await nurse.join(ROOM, "Nurse")
    await wait_matrix_member(alice, room, "Nurse")
    await _kick(juliet, "Nurse")

    async def gone():
        return "Nurse" not in (await alice.members(room)).values()

    await until("the nurse is gone on Matrix too", gone)
    await alice.say(room, "one")
    await juliet.until("one", lambda: "one" in juliet.bodies(ROOM))
    nick = juliet.messages(ROOM)[-1].get("from").partition("/")[2]
    await _kick(juliet, nick)
    await _event(alice, room, "the notice", lambda e: "enough" in e["content"].get("body", ""))
    await alice.say(room, "two")
    await juliet.until(
        "two, by the listener", lambda: any(t.endswith("> two") for t in juliet.bodies(ROOM, nick="hansa"))
    )
    await alice.say(room, f"!hansa xmpp return {ROOM}")
    await _event(
        alice,
        room,
        "the answer",
        lambda e: "again" in e["content"].get("body", "") and e["content"].get("msgtype") == "m.notice",
    )
    await alice.say(room, "three")
    await juliet.until("three, by the puppet", lambda: "three" in juliet.bodies(ROOM, nick=nick))


async def test_a_nick_in_use_gets_a_suffix_and_further_people_are_relayed(scene, matrix_user, xmpp_user):
    server, juliet, alice, room = await scene(muc_puppets=1)
    name = next(n for u, n in (await alice.members(room)).items() if u == alice.id)
    other = await xmpp_user("nurse")
    await other.join(ROOM, name)
    await wait_matrix_member(alice, room, name)
    await alice.say(room, "with a suffix")
    await juliet.until("the message", lambda: "with a suffix" in juliet.bodies(ROOM))
    nick = juliet.messages(ROOM)[-1].get("from").partition("/")[2]
    assert nick != name
    assert nick.startswith(name)
    bob = await matrix_user("bob")
    await bob.join(f"#garden:{server.name}")
    await bob.say(room, "relayed")
    await juliet.until(
        "the relayed message", lambda: any(t.endswith("> relayed") for t in juliet.bodies(ROOM, nick="hansa"))
    )
