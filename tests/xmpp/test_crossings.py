"""Every stanza that comes in or goes out is asked about, and none brings what a policy denies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hansa import (
    Action,
    DirectoryQuery,
    EventIn,
    EventOut,
    Member,
    Membership,
    Message,
    Name,
    Reason,
    Topic,
    Verdict,
    hookimpl,
    peers_of,
    people_of,
    texts_of,
)
from xmpp.stanzas import GW, NS, ROOM, groupchat, iq, join
from xmpp.xmpp_server import XmppServer, mx, xm, xmpp_server

JULIET, ROMEO = "juliet@x.example/a", "romeo@x.example/b"
WORD = "classified"
X = "<x xmlns='http://jabber.org/protocol/muc'/>"
USER = "http://jabber.org/protocol/muc#user"
ADMIN = "http://jabber.org/protocol/muc#admin"


class Censor:
    """Denies a word, a server and a person, wherever they are; keeps what it was asked."""

    def __init__(self, word: str = WORD, server: str = "evil.example") -> None:
        self.word, self.server = word, server
        self.asked: list[Any] = []

    @hookimpl
    async def check(self, crossing: Any) -> Verdict | None:
        self.asked.append(crossing)
        bad = any(self.word in text.lower() for text in texts_of(crossing))
        bad = bad or self.server in peers_of(crossing)
        bad = bad or any(user.id.endswith(self.server) for user in people_of(crossing))
        return Verdict(Action.DENY, (Reason(code="NO", text="not that"),)) if bad else None


def message(inner: str, type_: str = "groupchat", to: str = ROOM) -> str:
    return f"<message from='{JULIET}' to='{to}' id='m' type='{type_}'>{inner}</message>"


def mediated(to: str, reason: str) -> str:
    return message(f"<x xmlns='{USER}'><invite to='{to}'><reason>{reason}</reason></invite></x>", "normal")


def form(name: str) -> str:
    return iq(
        JULIET,
        ROOM,
        "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'>"
        f"<field var='muc#roomconfig_roomname'><value>{name}</value></field></x></query>",
        type_="set",
    )


#: One forbidden word in every place of every stanza; what its sender is answered (empty: nothing at all).
WAYS: dict[str, tuple[str, str]] = {
    "body": (message(f"<body>it is {WORD}</body>"), "modify policy-violation"),
    "emote": (message(f"<body>/me {WORD}</body>"), "modify policy-violation"),
    "subject": (message(f"<subject>{WORD}</subject>"), "modify policy-violation"),
    "xhtml": (
        message(
            "<body>x</body><html xmlns='http://jabber.org/protocol/xhtml-im'><body>"
            f"<p>clas<b/>sified {WORD}</p></body></html>"
        ),
        "modify policy-violation",
    ),
    "xhtml in pieces": (
        message(
            "<body>x</body><html xmlns='http://jabber.org/protocol/xhtml-im'><p>clas<b>sif</b>ied</p></html>"
        ),
        "modify policy-violation",
    ),
    "oob": (
        message(f"<body>x</body><x xmlns='jabber:x:oob'><url>https://a.example/{WORD}</url></x>"),
        "modify policy-violation",
    ),
    "unknown payload": (message(f"<body>x</body><y xmlns='urn:y'><z>{WORD}</z></y>"), "modify policy-violation"),
    "attribute": (message(f"<body>x</body><y xmlns='urn:y' note='{WORD}'/>"), "modify policy-violation"),
    "second body": (
        message(f"<body>x</body><body xml:lang='de'>{WORD}</body>"),
        "modify policy-violation",
    ),
    "beside ciphertext": (
        message(f"<encrypted xmlns='urn:xmpp:omemo:2'>AAAA</encrypted><body>{WORD}</body>"),
        "modify policy-violation",
    ),
    "thread": (message(f"<body>x</body><thread>{WORD}</thread>"), "modify policy-violation"),
    "reaction": (
        message(f"<reactions xmlns='urn:xmpp:reactions:0' id='x'><reaction>{WORD}</reaction></reactions>"),
        "cancel item-not-found",
    ),
    "correction": (
        message(f"<body>{WORD}</body><replace xmlns='urn:xmpp:message-correct:0' id='x'/>"),
        "cancel item-not-found",
    ),
    "extension": (message(f"<body>x</body><a xmlns='urn:a'><b c='{WORD}'/></a>"), "modify policy-violation"),
    "extension alone": (message(f"<a xmlns='urn:a'>{WORD}</a>"), "modify policy-violation"),
    "chat state": (message(f"<composing xmlns='http://jabber.org/protocol/chatstates'>{WORD}</composing>"), ""),
    "private message": (
        message(f"<body>{WORD}</body>", "chat", f"{ROOM}/Romeo"),
        "modify policy-violation",
    ),
    "private message to another network": (
        message(f"<body>{WORD}</body>", "chat", f"{ROOM}/Alice"),
        "modify policy-violation",
    ),
    "direct invite": (
        message(
            f"<x xmlns='jabber:x:conference' jid='{ROOM}' reason='{WORD}'/>", "normal", f"bob%m.example@{GW}"
        ),
        "auth forbidden",
    ),
    "message to the service": (message(f"<body>{WORD}</body>", "normal", GW), "cancel service-unavailable"),
    "nick": (join(JULIET, WORD, inner=""), "modify policy-violation"),
    "status": (join(JULIET, "Jule", inner=f"<status>{WORD}</status>"), ""),
    "show": (join(JULIET, "Jule", inner=f"<show>{WORD}</show>"), ""),
    "room name": (form(WORD), "modify policy-violation"),
    "invite": (mediated("nurse@x.example", WORD), "auth forbidden"),
    "invite of a denied person": (mediated("mal@evil.example", "come"), "auth forbidden"),
    "kick": (
        iq(JULIET, ROOM, f"<query xmlns='{ADMIN}'><item nick='Romeo' role='none'><reason>{WORD}</reason>"
           "</item></query>", type_="set"),
        "auth forbidden",
    ),
    "ban": (
        iq(JULIET, ROOM, f"<query xmlns='{ADMIN}'><item jid='{ROMEO}' affiliation='outcast'><reason>{WORD}"
           "</reason></item></query>", type_="set"),
        "auth forbidden",
    ),
    "registration": (
        iq(JULIET, ROOM, f"<query xmlns='jabber:iq:register'><nick>{WORD}</nick></query>", type_="set"),
        "cancel service-unavailable",
    ),
    "vcard": (
        iq(JULIET, ROOM, f"<vCard xmlns='vcard-temp'><FN>{WORD}</FN></vCard>", type_="set"),
        "cancel service-unavailable",
    ),
    "version of an occupant": (
        iq(JULIET, f"{ROOM}/Romeo", f"<query xmlns='jabber:iq:version'><name>{WORD}</name></query>"),
        "cancel service-unavailable",
    ),
}  # fmt: skip


def told(h: XmppServer, to: str) -> str:
    return "".join(ET.tostring(e, "unicode") for e in h.link.sent if e.get("to") == to)


@pytest.mark.parametrize("way", WAYS)
async def test_no_stanza_brings_a_forbidden_word_to_anybody(way: str) -> None:
    stanza, answer = WAYS[way]
    censor = Censor()
    async with xmpp_server(policy=censor, owners=["xmpp:juliet@x.example"]) as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.enter(ROMEO, "Romeo")
        await h.enter(JULIET, "Jule")
        before = len(h.link.sent)
        h.link.receive(stanza)
        h.link.receive(groupchat(JULIET, "<body>the last</body>"))
        await h.link.until(lambda: "the last" in h.link.bodies(ROMEO))
        await h.until(lambda: any(e.content == Message(text="the last") for e in h.other.got))
        errors = [
            f"{e.find(f'{{{NS}}}error').get('type')} {e.find(f'{{{NS}}}error')[0].tag.rpartition('}')[2]}"  # type: ignore[index,union-attr]
            for e in h.link.sent[before:]
            if e.get("type") == "error" and e.get("to") == JULIET
        ]
        assert errors == ([answer] if answer else [])
        assert WORD not in told(h, ROMEO).lower()
        assert WORD not in repr([event.content for event in h.other.got])
        assert xm("mal") not in h.ctx.get_view(ROOM).people  # type: ignore[union-attr]


async def test_a_join_that_a_policy_denies_is_forbidden() -> None:
    async with xmpp_server(policy=Censor()) as h:
        h.link.receive(join("mal@evil.example/x", "Mal"))
        await h.link.line("mal/x < Mal presence error: auth forbidden")
        h.link.receive(join(JULIET, WORD))
        await h.link.line(f"juliet/a < {WORD} presence error: auth forbidden")
        h.link.receive(join(JULIET, "Jule", inner=f"{X}<status>{WORD}</status>"))
        await h.link.line("juliet/a < Jule presence error: auth forbidden")
        assert not list(h.ctx.get_view(ROOM).joined())  # type: ignore[union-attr]


#: Every request that a user outside of a room can send.
QUESTIONS = {
    "items of the service": (GW, "<query xmlns='http://jabber.org/protocol/disco#items'/>"),
    "info of the service": (GW, "<query xmlns='http://jabber.org/protocol/disco#info'/>"),
    "ping of the service": (GW, "<ping xmlns='urn:xmpp:ping'/>"),
    "items of a room": (ROOM, "<query xmlns='http://jabber.org/protocol/disco#items'/>"),
    "info of a room": (ROOM, "<query xmlns='http://jabber.org/protocol/disco#info'/>"),
    "ping of a room": (ROOM, "<ping xmlns='urn:xmpp:ping'/>"),
    "the owner's form": (ROOM, "<query xmlns='http://jabber.org/protocol/muc#owner'/>"),
    "version": (ROOM, "<query xmlns='jabber:iq:version'/>"),
    "a room that is not there": (f"other@{GW}", "<query xmlns='http://jabber.org/protocol/disco#info'/>"),
    "an occupant": (f"{ROOM}/Romeo", "<ping xmlns='urn:xmpp:ping'/>"),
}


@pytest.mark.parametrize("question", QUESTIONS)
async def test_whoever_is_denied_is_answered_no_question(question: str) -> None:
    to, inner = QUESTIONS[question]
    censor = Censor()
    async with xmpp_server(policy=censor) as h:
        h.link.receive(iq("mal@evil.example/x", to, inner))
        await h.link.until(lambda: h.link.sent)
        (answer,) = h.link.sent
        assert answer.get("type") == "error" and answer.find(".//{*}forbidden") is not None
        assert isinstance(censor.asked[-1], DirectoryQuery) and censor.asked[-1].server == "evil.example"
        h.link.receive(iq(JULIET, to, inner))
        await h.link.until(lambda: len(h.link.sent) == 2)
        assert h.link.sent[-1].find(".//{*}forbidden") is None or question == "the owner's form"


async def test_what_goes_out_is_asked_about_for_the_links_own_people_too() -> None:
    censor = Censor()
    async with xmpp_server(policy=censor) as h:
        await h.enter(JULIET, "Jule")
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        h.say(JULIET, "hello")
        await h.link.until(lambda: "hello" in h.link.bodies(JULIET))
        said = [c for c in censor.asked if getattr(c, "content", None) == Message(text="hello")]
        assert [type(c) for c in said[:1]] == [EventIn]
        assert {c.link.native.network for c in said if isinstance(c, EventOut)} == {"xmpp", "matrix"}


async def test_the_speaker_is_refused_while_a_denied_server_is_in_the_room() -> None:
    censor = Censor(server="nobody.example")
    async with xmpp_server(policy=censor) as h:
        await h.enter(JULIET, "Jule")
        await h.enter("mal@evil.example/x", "Mal")
        censor.server = "evil.example"
        h.say(JULIET, "hello")
        await h.link.line("juliet/a < * message error: modify policy-violation")
        assert h.link.bodies("mal@evil.example/x") == []


@pytest.mark.parametrize(
    "show",
    [
        lambda h: h.other.submit((mx("alice"), Name(text=WORD))),
        lambda h: h.other.submit((mx("alice"), Topic(text=WORD))),
        lambda h: h.other.submit((mx("alice"), Message(text=WORD))),
        lambda h: h.other.submit(
            (mx("alice"), Member(user=mx("alice"), membership=Membership.JOIN, name=WORD))
        ),
        lambda h: h.other.submit((mx("bob"), Member(user=mx("bob"), membership=Membership.JOIN, name=WORD))),
    ],
    ids=["name", "topic", "words", "display name", "first display name"],
)
async def test_what_another_network_says_of_a_forbidden_thing_is_in_no_stanza(
    show: Callable[[XmppServer], Any],
) -> None:
    async with xmpp_server(policy=Censor()) as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.enter(JULIET, "Jule")
        await show(h)
        await h.other.say("alice", "the last")
        await h.link.until(lambda: "the last" in h.link.bodies(JULIET))
        await h.enter(ROMEO, "Romeo")
        await h.link.until(lambda: "the last" in h.link.bodies(ROMEO))
        h.link.receive(iq(ROMEO, ROOM, "<query xmlns='http://jabber.org/protocol/disco#info'/>"))
        await h.link.until(lambda: any(e.find(".//{*}identity") is not None for e in h.link.sent))
        assert WORD not in told(h, JULIET) + told(h, ROMEO)
