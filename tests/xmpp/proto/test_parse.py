"""The stream's parser: bounds, and what ends a stream."""

from __future__ import annotations

import weakref
from xml.etree import ElementTree as ET

import pytest
from hansa import RemoteProtocolError
from hansa_xmpp.proto.parse import BoundedParser, OversizedStanza, StanzaLimits
from hansa_xmpp.proto.stanza import parse_stanza
from hypothesis import given
from hypothesis import strategies as st
from memory import peak_memory

NS = "jabber:component:accept"
OPEN = f"<?xml version='1.0'?><stream:stream xmlns='{NS}' xmlns:stream='http://etherx.jabber.org/streams' id='s'>"
SMALL = StanzaLimits(stanza=2000, token=5000, depth=5, elements=20)


def parser(bounds: StanzaLimits = SMALL) -> tuple[BoundedParser, list[OversizedStanza]]:
    over: list[OversizedStanza] = []
    made = BoundedParser(bounds, over.append)
    made.feed(OPEN.encode())
    (event,) = made.read_events()
    assert event[0] == "start"
    assert event[1].get("id") == "s"
    return made, over


def whole(made: BoundedParser) -> list[str]:
    return [ET.tostring(e, encoding="unicode") for kind, e in made.read_events() if kind == "end"]


STANZAS = [
    f"<message xmlns='{NS}' to='a@b'><body>x &lt; é</body>tail<y xmlns='urn:y' a='1'>1<z/>2</y>3</message>",
    f"<presence xmlns='{NS}' from='a@b/c'/>",
    f"<iq xmlns='{NS}' xml:lang='en' id='1'><query xmlns='q'/></iq>",
]


@given(st.lists(st.sampled_from(STANZAS), max_size=5), st.integers(1, 50))
def test_the_same_as_the_standard_library_however_the_bytes_are_cut(stanzas: list[str], step: int) -> None:
    made, over = parser()
    data = "".join(stanzas).encode()
    got: list[str] = []
    for at in range(0, len(data), step):
        made.feed(data[at : at + step])
        got += whole(made)
    assert got == [ET.tostring(ET.fromstring(s), encoding="unicode") for s in stanzas]
    assert over == []


def test_the_end_of_the_stream_is_told() -> None:
    made, _ = parser()
    made.feed(b"</stream:stream>")
    assert [kind for kind, _ in made.read_events()] == ["end"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"<!-- x -->", "restricted-xml"),
        (b"<message><?php x ?></message>", "restricted-xml"),
        (b"<message><!-- x --></message>", "restricted-xml"),
        (b"<message>&lol;</message>", "not-well-formed"),
        (b"<message></presence>", "not-well-formed"),
        (b"<message>\x00</message>", "not-well-formed"),
        (b"<message>\xff</message>", "not-well-formed"),
        (b"<message a='1' a='2'/>", "not-well-formed"),
        (b"<message a='" + b"x" * 6000, "policy-violation"),
        (b"</stream:stream><message/>", "not-well-formed"),
    ],
)
def test_what_ends_a_stream(data: bytes, code: str) -> None:
    made, _ = parser()
    with pytest.raises(RemoteProtocolError) as caught:
        made.feed(data)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "data",
    [
        "<!DOCTYPE a [<!ENTITY lol 'lol'>]><a>&lol;</a>",
        "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>",
        "<?xml-stylesheet href='x'?><a/>",
    ],
)
def test_no_document_type(data: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        BoundedParser(SMALL, lambda _: None).feed(data.encode())
    assert caught.value.code == "restricted-xml"


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        ("<body>" + "x" * 3000 + "</body>", "bytes"),
        ("<a>" * 6 + "</a>" * 6, "deep"),
        ("<a/>" * 21, "elements"),
        ("<a b='" + "x" * 2500 + "'/>", "bytes"),
    ],
)
def test_a_stanza_over_the_bounds_takes_nothing_else_down(inner: str, reason: str) -> None:
    made, over = parser()
    made.feed(f"<message from='a@b/c' id='7'>{inner}<b>after</b></message><presence from='d@e'/>".encode())
    assert [e.get("from") for kind, e in made.read_events() if kind == "end"] == ["d@e"]
    (excess,) = over
    assert reason in excess.reason
    assert excess.element.attrib == {"from": "a@b/c", "id": "7"}
    assert len(excess.element) == 0
    assert not excess.element.text


@pytest.mark.parametrize("inner", ["<a>" * 4 + "</a>" * 4, "<a/>" * 20, "<body>" + "x" * 1900 + "</body>"])
def test_what_is_just_within_the_bounds(inner: str) -> None:
    made, over = parser()
    made.feed(f"<message from='a@b/c'>{inner}</message>".encode())
    assert len(whole(made)) == 1
    assert over == []


def test_a_stream_that_ended_holds_nothing() -> None:
    made, _ = parser()
    made.feed(b"<message><body>")
    held = weakref.ref(made)
    made.close()
    del made
    assert held() is None  # without waiting for cycles to be collected


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ("to='room@gw.example'", "improper-addressing"),
        ("from='' to='room@gw.example'", "improper-addressing"),
        ("from='a@b/c'", "improper-addressing"),
        ("from='a@@b' to='room@gw.example'", "improper-addressing"),
        ("from='a@b/😀' to='room@gw.example'", "improper-addressing"),
        ("from='a@b/c' to='room@gw.example/😀'", "jid-malformed"),
        ("from='evil@gw.example/x' to='a b@gw.example'", "invalid-from"),
        ("from='evil@gw.example/x' to='room@gw.example'", "invalid-from"),
        ("from='gw.example' to='room@gw.example'", "invalid-from"),
        ("from='a@b/c' to='room@other.example'", "host-unknown"),
    ],
)
def test_addresses_that_cannot_be_answered(attributes: str, code: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_stanza(ET.fromstring(f"<message xmlns='{NS}' {attributes}/>"), "gw.example")
    assert caught.value.code == code


@pytest.mark.parametrize("where", ["root", "child"])
def test_a_stanza_of_attributes_is_excess(where: str) -> None:
    """A tag may have 1 MiB, of which 150,000 attributes were kept twice."""
    many = " ".join(f"a{n}=''" for n in range(StanzaLimits().attributes + 1))
    root, child = (many, "") if where == "root" else ("", many)
    made, over = parser(StanzaLimits())
    made.feed(f"<message from='m@x' to='a@b' {root}><y {child}/></message><message id='2'/>".encode())
    assert [e.get("id") for e in map(ET.fromstring, whole(made))] == ["2"]
    (excess,) = over
    assert "attributes" in excess.reason
    assert excess.element.attrib == {"from": "m@x", "to": "a@b"}


def test_a_large_tag_takes_little_memory() -> None:
    many = " ".join(f"a{n}=''" for n in range(90_000))
    data = f"<message from='m@x' {many}/>".encode()
    assert len(data) < StanzaLimits().token
    made, over = parser(StanzaLimits())
    with peak_memory() as peak:
        made.feed(data)
    assert [one.element.attrib for one in over] == [{"from": "m@x"}]
    assert peak.bytes < 32 * 1024 * 1024
