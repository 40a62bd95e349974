"""E6: what XMPP people see after the policies changed, and who is out by words that nobody is shown."""

from __future__ import annotations

from xml.etree.ElementTree import Element, tostring

import pytest
from e2e.test_policies import policy
from e2e.three_servers import MUC, wait_linked, wait_matrix_member, xmpp_config
from peers.prosody import StanzaError, XmppUser
from peers.waiting import until

pytestmark = pytest.mark.e2e
WORD = "classified"


def subjects(user: XmppUser) -> list[str]:
    def is_one(e: Element) -> bool:
        return e.find("{jabber:client}subject") is not None and e.find("{jabber:client}body") is None

    return [e.findtext("{jabber:client}subject") or "" for e in user.stanzas if is_one(e)]


def said(user: XmppUser, since: int) -> str:
    return "".join(tostring(e).decode() for e in user.stanzas[since:])


async def test_a_reload_reaches_those_who_are_there(hansa, prosody, matrix_user, xmpp_user):
    server = await hansa(xmpp_config(prosody) + policy("words", 'words = ["nothing"]'))
    await wait_linked(server, rooms=0)
    alice, juliet, romeo, nurse = (
        await matrix_user("alice"),
        await xmpp_user("juliet"),
        await xmpp_user("romeo"),
        await xmpp_user("nurse"),
    )
    room = await alice.create_room(room_alias_name="square" + alice.id[1:8], preset="public_chat")
    alias = (await alice.state(room))["m.room.canonical_alias", ""]["content"]["alias"]
    await server.run("rooms", "create", f"matrix:{alias}", "xmpp:lobby")
    await wait_linked(server)
    member = {"membership": "join", "displayname": f"Alice {WORD}"}
    await alice.set_state(room, "m.room.member", member, alice.id)
    await alice.set_state(room, "m.room.topic", {"topic": f"a {WORD} topic"})
    await juliet.join(MUC, "Juliet")
    await romeo.join(MUC, f"Romeo {WORD}")
    ghost = await wait_matrix_member(alice, room, f"Romeo {WORD}")
    await juliet.until("the topic", lambda: subjects(juliet)[-1:] == [f"a {WORD} topic"])
    await juliet.until("Alice", lambda: f"Alice {WORD}" in juliet.occupants(MUC))
    await juliet.until("Romeo", lambda: f"Romeo {WORD}" in juliet.occupants(MUC))

    server.config.write_text(server.config.read_text().replace('["nothing"]', f'["{WORD}"]'))
    await server.run("reload")
    await juliet.until("no topic", lambda: subjects(juliet)[-1:] == [""])
    await juliet.until("no names", lambda: not any(WORD in nick for nick in juliet.occupants(MUC)))
    assert {"Juliet", "romeo"} < juliet.occupants(MUC)
    await romeo.until("his new nick", lambda: "romeo" in romeo.occupants(MUC))

    since = len(nurse.stanzas)
    await nurse.join(MUC, "Nurse", "maxstanzas='100'")
    romeo.say(MUC, "hello")
    await nurse.until("Romeo", lambda: "hello" in nurse.bodies(MUC, nick="romeo"))
    assert WORD not in said(nurse, since)

    # A ban takes effect although its words are shown to nobody.
    await alice.call("POST", f"/rooms/{room}/ban", {"user_id": ghost, "reason": f"it is {WORD}"})
    await romeo.until("that he is out", lambda: "romeo" not in romeo.occupants(MUC))
    await juliet.until("that he is out", lambda: "romeo" not in juliet.occupants(MUC))
    heard = len(romeo.bodies(MUC))
    await alice.say(room, "he is gone")
    await juliet.until("Alice", lambda: "he is gone" in juliet.bodies(MUC))
    assert len(romeo.bodies(MUC)) == heard
    assert WORD not in said(nurse, since)
    with pytest.raises(StanzaError, match="forbidden"):
        await romeo.join(MUC, "Romeo")


async def test_no_payload_brings_a_word_over(hansa, prosody, matrix_user, xmpp_user):
    """Everything that a client can put into a stanza, through a real server."""
    server = await hansa(
        xmpp_config(prosody)
        + '\n[[rooms]]\nlinks = ["matrix:#lobby", "xmpp:lobby"]\n'
        + policy("words", f'words = ["{WORD}"]')
    )
    await wait_linked(server)
    alice, juliet, romeo = await matrix_user("alice"), await xmpp_user("juliet"), await xmpp_user("romeo")
    room = await alice.join(f"#lobby:{server.name}")
    await juliet.join(MUC, "Juliet")
    await romeo.join(MUC, "Romeo")
    ghost = await wait_matrix_member(alice, room, "Juliet")
    since = len(romeo.stanzas)
    wide, cut = "\uff43\uff4c\uff41\uff53\uff53\uff49\uff46\uff49\uff45\uff44", "clas\u200bsified"
    for number, inner in enumerate(
        [
            f"<body>{WORD}</body>",
            f"<body>{wide}</body>",
            f"<body>{cut}</body>",
            "<body>cl&#97;ssified</body>",
            f"<body><![CDATA[{WORD}]]></body>",
            f"<body>x</body><body xml:lang='de'>{WORD}</body>",
            f"<body xml:lang='de'>{WORD}</body><body>x</body>",
            f"<subject>{WORD}</subject>",
            f"<subject>x</subject><subject xml:lang='de'>{WORD}</subject>",
            (
                "<body>x</body><html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>"
                "<p>clas<b>sif</b>ied</p></body></html>"
            ),
            f"<body>x</body><x xmlns='jabber:x:oob'><url>https://a.example/{WORD}.png</url><desc>{WORD}</desc></x>",
            (
                f"<body>&gt; {WORD}\nx</body><reply xmlns='urn:xmpp:reply:0' to='{MUC}/Romeo' id='1'/>"
                "<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='12'/></fallback>"
            ),
            f"<body>{WORD}</body><replace xmlns='urn:xmpp:message-correct:0' id='m0'/>",
            f"<body>x</body><nick xmlns='http://jabber.org/protocol/nick'>{WORD}</nick>",
            f"<body>x</body><subject>{WORD}</subject>",
            f"<body>x</body><thread>{WORD}</thread>",
            f"<body>x</body><spoiler xmlns='urn:xmpp:spoiler:0'>{WORD}</spoiler>",
            f"<body>{WORD}</body><encryption xmlns='urn:xmpp:eme:0' namespace='urn:x' name='x'/>",
        ]
    ):
        juliet.raw(f"<message to='{MUC}' type='groupchat' id='p{number}'>{inner}</message>")
        assert (await juliet.verdict(f"p{number}", MUC)) is not None, inner
    juliet.raw(f"<presence to='{MUC}/Juliet'><show>away</show><status>{WORD}</status></presence>")
    juliet.raw(
        f"<presence to='{MUC}/Juliet'><nick xmlns='http://jabber.org/protocol/nick'>{WORD}</nick></presence>"
    )
    juliet.raw(f"<presence to='{MUC}/{WORD}'/>")
    juliet.raw(f"<message to='{MUC}/Romeo' type='chat' id='pm'><body>{WORD}</body></message>")
    assert (await juliet.verdict("pm", MUC)) is not None
    form = (
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#request"
        f"</value></field><field var='muc#role'><value>{WORD}</value></field></x>"
    )
    juliet.raw(f"<message to='{MUC}' id='voice'>{form}</message>")
    assert (await juliet.verdict("voice", MUC)) is not None
    assert await juliet.verdict(juliet.say(MUC, "the last"), MUC) is None
    await romeo.until("the last", lambda: "the last" in romeo.bodies(MUC))
    await until("Alice reads on", lambda: _reads(alice, room, ghost, "the last"))
    assert await alice.bodies(room, ghost) == ["the last"]
    assert WORD not in said(romeo, since) and wide not in said(romeo, since) and cut not in said(romeo, since)


async def _reads(user, room, sender, text):
    return text in await user.bodies(room, sender)
