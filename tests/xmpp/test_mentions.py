"""Mentions, threads and languages of messages, on a real core with a scripted network."""

from __future__ import annotations

import re
from urllib.parse import unquote
from xml.etree.ElementTree import Element

import pytest
from hansa import Edit, Event, Kind, Membership, Message, NativeId, Span, SpanKind
from hansa_xmpp.proto.mentions import MAX_REFERENCES, references_xml
from hypothesis import given
from hypothesis import strategies as st
from xmpp.stanzas import NS, groupchat
from xmpp.xmpp_server import XmppServer, mx, xm, xmpp_server

JULIET, ROMEO = "juliet@x.example/a", "romeo@x.example/b"
BODY, REFERENCE = f"{{{NS}}}body", "{urn:xmpp:reference:0}reference"
LANG = "{http://www.w3.org/XML/1998/namespace}lang"
PUPPET = "xmpp:alice%25m.example@gw.example"


def reference(uri: str, more: str = "", kind: str = "mention") -> str:
    return f"<reference xmlns='urn:xmpp:reference:0' type='{kind}' uri='{uri}' {more}/>"


async def enter_both(h: XmppServer) -> None:
    await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
    await h.enter(JULIET, "Jule")
    await h.enter(ROMEO, "Mr. Romeo")


def got(h: XmppServer, full: str) -> list[Element]:
    return [e for e in h.link.sent if e.get("to") == full and e.find(BODY) is not None]


async def shown(h: XmppServer, full: str, text: str) -> Element:
    def found() -> list[Element]:
        return [e for e in got(h, full) if text in (e.findtext(BODY) or "")]

    return (await h.link.until(found))[-1]


async def heard(h: XmppServer, number: int) -> Message:
    """A message that the other network got."""

    def found() -> list[Message]:
        return [e.content for e in h.other.got if isinstance(e.content, Message)]

    await h.until(lambda: len(found()) >= number)
    return found()[number - 1]


async def told(h: XmppServer, content: Message) -> Event:
    """Alice of the other network says something."""
    (outcome,) = await h.other.submit((mx("alice"), content))
    assert outcome.event is not None, outcome.refusal
    return outcome.event


def spans_of(message: Message) -> list[tuple[str, NativeId | None]]:
    return [
        (message.text[one.start : one.end], one.user) for one in message.spans if one.kind is SpanKind.MENTION
    ]


ALICE, MR_ROMEO = mx("alice"), xm("romeo")


@pytest.mark.parametrize(
    ("body", "more", "mentions", "spans"),
    [
        ("hello Alice", reference(PUPPET, "begin='6' end='11'"), [ALICE], [("Alice", ALICE)]),
        ("hello", reference(PUPPET), [ALICE], []),
        ("hello", reference("XMPP:lobby@gw.example/Alice?message"), [ALICE], []),
        ("hello", reference("xmpp:romeo@x.example/b"), [MR_ROMEO], []),
        ("*hi* Alice", reference(PUPPET, "begin='5' end='10'"), [ALICE], []),
        ("hi", reference(PUPPET, "begin='1' end='99'"), [ALICE], []),
        ("hi", reference(PUPPET, "begin='-1' end='x'"), [ALICE], []),
        ("hi", reference(PUPPET) * (MAX_REFERENCES + 1), [ALICE], []),
        ("hi", reference("xmpp:stranger@x.example"), [], []),
        ("hi", reference("xmpp:lobby@gw.example/Nobody"), [], []),
        ("hi", reference("https://x.example/Alice"), [], []),
        ("hi", reference("xmpp:@@/"), [], []),
        ("hi", reference(PUPPET, kind="data"), [], []),
        ("hi", reference(PUPPET, "anchor='xmpp:x'"), [], []),
        ("Alice: hello", "", [ALICE], [("Alice", ALICE)]),
        ("Alice, hello", "", [ALICE], [("Alice", ALICE)]),
        ("Mr. Romeo: hello", "", [MR_ROMEO], [("Mr. Romeo", MR_ROMEO)]),
        ("Alice:", reference(PUPPET), [ALICE], []),
        ("Alice hello", "", [], []),
        ("Alice:hello", "", [], []),
        ("well, Alice: hello", "", [], []),
        ("x" * 200 + ": hello", "", [], []),
    ],
)
async def test_a_message_mentions_occupants(
    body: str, more: str, mentions: list[NativeId], spans: list[tuple[str, NativeId]]
) -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        h.link.receive(groupchat(JULIET, f"<body>{body}</body>{more}"))
        message = await heard(h, 1)
        assert list(message.mentions) == mentions
        assert spans_of(message) == spans
        reflected = await shown(h, ROMEO, body)
        sent = more.count("<reference")
        assert (reflected.findtext(BODY), len(reflected.findall(REFERENCE))) == (body, sent)


async def test_mentions_of_another_network_are_references() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        text = "Jule and Jule, and Bob"
        spans = (
            Span(start=0, end=8, kind=SpanKind.BOLD),
            Span(start=9, end=13, kind=SpanKind.MENTION, user=xm("juliet")),
            Span(start=19, end=22, kind=SpanKind.MENTION, user=mx("bob")),
        )
        said = Message(text=text, spans=spans, mentions=(xm("juliet"), xm("romeo")))
        await told(h, said)
        stanza = await shown(h, JULIET, "Bob")
        body = stanza.findtext(BODY) or ""
        assert body == "*Jule and* Jule, and Bob"
        found = [
            (unquote(one.get("uri", "")), body[int(one.get("begin", 0)) : int(one.get("end", 0))])
            for one in stanza.findall(REFERENCE)
        ]
        assert found == [
            ("xmpp:juliet@x.example", "Jule"),
            ("xmpp:bob%m.example@gw.example", "Bob"),
            ("xmpp:romeo@x.example", ""),
        ]


async def test_a_reference_stands_behind_the_quote_of_an_answer() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        first = await told(h, Message(text="who is Jule?"))
        span = Span(start=0, end=4, kind=SpanKind.MENTION, user=xm("juliet"))
        await told(h, Message(text="Jule is here", spans=(span,), reply_to=first.id))
        stanza = await shown(h, ROMEO, "is here")
        body, one = stanza.findtext(BODY) or "", stanza.find(REFERENCE)
        assert one is not None
        assert body.startswith("> Alice: who is Jule?\n")
        assert int(one.get("begin", 0)) == body.rindex("Jule")


async def test_a_thread_of_another_network_goes_on() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        first = await told(h, Message(text="who comes?"))
        await told(h, Message(text="aside", thread=first.id))
        assert (await shown(h, JULIET, "aside")).findtext(f"{{{NS}}}thread") == first.id
        h.link.receive(groupchat(JULIET, f"<body>I do</body><thread>{first.id}</thread>"))
        assert (await heard(h, 1)).thread == first.id
        assert (await shown(h, ROMEO, "I do")).findall(f"{{{NS}}}thread")[0].text == first.id
        h.link.receive(groupchat(JULIET, "<body>so what</body><thread>a-client's-own</thread>"))
        assert (await heard(h, 2)).thread == ""


async def test_an_answer_in_a_thread_is_in_the_thread() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        first = await told(h, Message(text="who comes?"))
        aside = await told(h, Message(text="aside", thread=first.id))
        answers = f"<reply xmlns='urn:xmpp:reply:0' id='{aside.id}'/><thread>{aside.id}</thread>"
        h.link.receive(groupchat(JULIET, f"<body>I do</body>{answers}"))
        message = await heard(h, 1)
        assert (message.reply_to, message.thread) == (aside.id, first.id)


async def test_the_language_of_a_body_is_that_of_the_message() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        await told(h, Message(text="guten Tag", language="de-AT"))
        found = (await shown(h, JULIET, "guten")).find(BODY)
        assert found is not None
        assert found.get(LANG) == "de-AT"
        h.link.receive(groupchat(JULIET, "<body xml:lang='it'>buon giorno</body>"))
        assert (await heard(h, 1)).language == "it"
        h.link.receive(groupchat(JULIET, "<body xml:lang='&lt;x&gt;'>ciao</body>"))
        assert (await heard(h, 2)).language == ""


async def test_an_edit_keeps_its_mentions() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        h.link.receive(groupchat(JULIET, "<body>Alic: hello</body>", id_="1"))
        await heard(h, 1)
        replaced = "<replace xmlns='urn:xmpp:message-correct:0' id='1'/>"
        h.link.receive(groupchat(JULIET, f"<body>Alice: hello</body>{replaced}", id_="2"))
        await h.until(lambda: h.other.got[-1].content.kind is Kind.EDIT)
        edit = h.other.got[-1].content
        assert isinstance(edit, Edit)
        assert edit.message.mentions == (ALICE,)


@given(st.text(), st.text(min_size=1), st.text())
def test_a_reference_covers_the_words_of_the_mention(before: str, name: str, after: str) -> None:
    text = before + name + after
    span = Span(start=len(before), end=len(before) + len(name), kind=SpanKind.MENTION, user=ALICE)
    xml = references_xml(Message(text=text, spans=(span,)), text, 0, lambda user: user.id)
    begin, end = (int(one) for one in re.findall(r"(?:begin|end)='(\d+)'", xml))
    assert text[begin:end] == name
