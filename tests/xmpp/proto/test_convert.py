"""Content <-> stanza."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hansa import Content, Custom, Encrypted, Member, Membership, Message, Name, NativeId, Style, Topic
from hansa_xmpp.proto import convert, render
from hansa_xmpp.proto.convert import StanzaIds
from hansa_xmpp.proto.stanza import Stanza, parse_stanza
from hypothesis import given
from hypothesis import strategies as st

NS = "jabber:component:accept"
GW = "gw.example"
xml_text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1).filter(
    lambda t: render.xml_text(t).find("\ufffd") < 0
)


def message(inner: str, more: str = "") -> Stanza:
    text = (
        f"<message xmlns='{NS}' from='j@x.example/a' to='lobby@{GW}' type='groupchat'{more}>{inner}</message>"
    )
    return parse_stanza(ET.fromstring(text), GW)


@given(xml_text, st.sampled_from([Style.TEXT, Style.EMOTE]))
def test_words_survive_the_way_there_and_back(text: str, style: Style) -> None:
    content = Message(text=text, style=style)
    body = convert.body_from_content(content)
    assert body is not None
    back = convert.content_of(message(body.to_xml()))
    expected = " " + text if style is Style.TEXT and text.startswith("/me ") else text
    assert back == Message(text=expected, style=style)


@given(st.text(st.characters(codec=None)))
def test_any_text_is_well_formed_in_a_body_and_in_an_attribute(text: str) -> None:
    made = f"<m a='{render.xml_attribute(text)}'>{render.xml_text(text)}</m>"
    parsed = ET.fromstring(made.encode())
    assert (parsed.text or "") == parsed.get("a")


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ("<body>hi</body>", Message(text="hi")),
        ("<body>/me waves</body>", Message(text="waves", style=Style.EMOTE)),
        ("<body>/mexico</body>", Message(text="/mexico")),
        ("<body></body>", None),
        ("<subject>new</subject>", Topic(text="new")),
        ("<subject/>", Topic(text="")),
        ("<subject>s</subject><body>b</body>", Message(text="b")),
        ("<subject>s</subject><thread>t</thread>", None),
        ("<active xmlns='http://jabber.org/protocol/chatstates'/>", None),
        ("<body>fallback</body><encrypted xmlns='eu.siacs.conversations.axolotl'/>", Encrypted()),
        ("<encrypted xmlns='urn:xmpp:omemo:2'/>", Encrypted()),
        ("<body xmlns='jabber:other'>hi</body>", Custom(type="jabber:other")),
        ("<displayed xmlns='urn:xmpp:chat-markers:0' id='x'/>", None),
    ],
)
def test_what_a_message_says(inner: str, expected: Content | None) -> None:
    assert convert.content_of(message(inner)) == expected


@pytest.mark.parametrize(
    ("content", "body"),
    [
        (Message(text="psst", style=Style.NOTICE), "psst"),
        (Message(text=""), None),
        (Message(text="", style=Style.EMOTE), None),
        (Encrypted(), "[encrypted message, not readable here]"),
        (Custom(type="poll", text="a poll"), "a poll"),
        (Custom(type="poll"), None),
        (Topic(text="x"), None),
    ],
)
def test_bodies(content: Content, body: str | None) -> None:
    made = convert.body_from_content(content)
    assert (made and made.text) == body


def test_a_body_is_bounded() -> None:
    body = convert.body_from_content(Message(text="é" * convert.MAX_TEXT, style=Style.EMOTE))
    assert body is not None
    assert len(body.text.encode()) <= convert.MAX_TEXT


@given(
    st.lists(
        st.sampled_from(["*", "_", "~", "`", "```", ">", " ", "\n", "a", "b c", "/me "]), max_size=25
    ).map("".join)
)
def test_a_body_comes_back_as_it_was(text: str) -> None:
    """The log reflects a message to the network of its sender: no mark is lost, added or moved."""
    content = convert.content_of(message(f"<body>{render.xml_text(text)}</body>"))
    if not text:
        assert content is None
        return
    assert isinstance(content, Message)
    body = convert.body_from_content(content, own=True)
    if content.text:
        assert body is not None and not body.unstyled
        assert body.text.removeprefix(" ") == text.removeprefix(" ")


@given(st.text(max_size=30), st.text(max_size=30))
def test_the_senders_ids_ride_in_the_origin(own: str, origin: str) -> None:
    ids = StanzaIds(own, origin)
    assert convert.stanza_ids_of(convert.submission_id("n", ids)) == ids
    assert convert.stanza_ids_of(own.replace(" ", "")) == StanzaIds()


def test_the_ids_of_a_message() -> None:
    stanza = message("<body>x</body><origin-id xmlns='urn:xmpp:sid:0' id='o1'/>", " id='m1'")
    assert convert.parse_ids(stanza) == StanzaIds("m1", "o1")
    assert convert.parse_ids(message("<body>x</body>")) == StanzaIds()


@given(st.integers(0, 4_102_444_800_000))
def test_times(ms: int) -> None:
    assert convert.parse_timestamp(convert.format_timestamp(ms)) == ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01T01:00:01+01:00", 1000),
        ("19700101T00:00:01", 1000),
        ("1969-01-01T00:00:00Z", 0),
        ("yesterday", None),
        ("0001-01-01T00:00:00+23:59", 0),
        ("", None),
    ],
)
def test_parsed_times(text: str, ms: int | None) -> None:
    assert convert.parse_timestamp(text) == ms


def test_facts() -> None:
    juliet = NativeId("x", "juliet@x.example")
    member = Member(user=juliet, membership=Membership.JOIN, name="Jülie")
    facts = convert.policy_facts(member, "x.example")
    assert (facts.type, facts.texts, facts.size, facts.sender_server) == (
        "presence",
        ("Jülie",),
        6,
        "x.example",
    )
    assert convert.policy_facts(Encrypted(), "x").encrypted
    for content in (Message(text="t"), Topic(text="t"), Name(text="t"), Custom(type="c", text="t")):
        assert convert.policy_facts(content, "x").texts == ("t",)
