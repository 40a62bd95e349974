"""Messages that occupants get back whole: each element that its sender wrote comes once."""

from __future__ import annotations

import pytest
from hansa import Edit, Message, Span, SpanKind
from xmpp.stanzas import groupchat
from xmpp.test_targets import BODY, JULIET, REPLACE, ROMEO, enter_both, got, message, said
from xmpp.xmpp_server import xmpp_server

CORRECTED = "{urn:xmpp:message-correct:0}replace"
TWO_BODIES = "<body>hello</body><body xml:lang='de'>hallo</body>"
QUOTED = (
    "<body>&gt; Jule: helo\nhello</body><reply xmlns='urn:xmpp:reply:0' id='{}'/>"
    "<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='13'/></fallback>"
)
SHARED = "<body>https://x.example/a.png</body><x xmlns='jabber:x:oob'><url>https://x.example/a.png</url></x>"


@pytest.mark.parametrize(
    ("inner", "bodies"),
    [
        (TWO_BODIES, ["hello", "hallo"]),
        ("<body xml:lang='en'>hello</body>", ["hello"]),
        (SHARED, ["https://x.example/a.png"]),
        (QUOTED.format("m0"), ["> Jule: helo\nhello"]),
    ],
)
async def test_a_correction_that_is_given_back_whole_names_its_target_once(
    inner: str, bodies: list[str]
) -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        h.link.receive(groupchat(JULIET, "<body>helo</body>", id_="1"))
        await message(h, ROMEO, 1)
        h.link.receive(groupchat(JULIET, inner + REPLACE.format("1"), id_="2"))
        shown = await message(h, ROMEO, 2)
        assert [one.get("id") for one in shown.findall(CORRECTED)] == ["1"]
        assert [one.text for one in shown.findall(BODY)] == bodies
        edit = (await said(h, 2))[1]
        assert isinstance(edit, Edit)
        late = "eve@x.example/c"
        await h.enter(late, "Eve")
        past = await message(h, late, 1)
        assert [one.text for one in past.findall(BODY)] == bodies
        assert past.findall(CORRECTED) == []  # the history has the latest text, as one message


async def test_bodies_in_two_languages_and_the_quote_of_a_reply_come_once() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        h.link.receive(groupchat(JULIET, TWO_BODIES, id_="1"))
        first = await message(h, ROMEO, 1)
        assert [one.text for one in first.findall(BODY)] == ["hello", "hallo"]
        assert [event.text for event in await said(h, 1) if isinstance(event, Message)] == ["hello"]
        known = first.find("{urn:xmpp:sid:0}stanza-id")
        assert known is not None
        h.link.receive(groupchat(JULIET, QUOTED.format(known.get("id")), id_="2"))
        reply = await message(h, ROMEO, 2)
        assert [one.text for one in reply.findall(BODY)] == ["> Jule: helo\nhello"]
        assert len(reply.findall("{urn:xmpp:reply:0}reply")) == 1
        assert len(reply.findall("{urn:xmpp:fallback:0}fallback")) == 1
        assert len(got(h, ROMEO)) == 2


async def test_the_markup_of_a_message_comes_back_and_its_body_gets_no_marks() -> None:
    markup = "<markup xmlns='urn:xmpp:markup:0'><span start='3' end='9'><strong/></span></markup>"
    async with xmpp_server() as h:
        await enter_both(h)
        h.link.receive(groupchat(JULIET, f"<body>no reason</body>{markup}"))
        shown = await message(h, ROMEO, 1)
        assert [one.text for one in shown.findall(BODY)] == ["no reason"]
        assert len(shown.findall("{urn:xmpp:markup:0}markup")) == 1
        bold = Span(start=3, end=9, kind=SpanKind.BOLD)
        assert await said(h, 1) == [Message(text="no reason", spans=(bold,))]
