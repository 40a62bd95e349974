"""The elements of streams between servers: what is read, what is refused, and where to connect."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from xml.etree.ElementTree import Element, fromstring

import pytest
from hansa import RemoteProtocolError, SrvRecord
from hansa_xmpp.places import Target, parse_route
from hansa_xmpp.proto import stream_xml
from hansa_xmpp.proto.stream_xml import StreamFeatures
from hypothesis import given
from hypothesis import strategies as st


def element(text: str) -> Element:
    return fromstring(
        f"<x xmlns='jabber:server' xmlns:stream='{stream_xml.NS_STREAMS}' "
        f"xmlns:db='{stream_xml.NS_DIALBACK}'>{text}</x>"
    )[0]


def root(**attributes: str) -> Element:
    return Element(stream_xml.STREAM, attributes)


def test_a_header_is_read_as_it_is_written() -> None:
    text = stream_xml.header_xml("a.example", "b.example", "id<1>") + "</stream:stream>"
    header = stream_xml.parse_header(fromstring(text))
    assert (header.sender, header.to, header.id) == ("a.example", "b.example", "id<1>")


@pytest.mark.parametrize(
    ("made", "condition"),
    [
        (Element("{jabber:server}stream", {"version": "1.0"}), "invalid-namespace"),
        (root(), "unsupported-version"),
        (root(version="2.0"), "unsupported-version"),
    ],
)
def test_a_header_that_is_refused(made: Element, condition: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        stream_xml.parse_header(made)
    assert refused.value.code == condition


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("A.Example", "a.example"),
        ("a.example", "a.example"),
        ("juliet@a.example", ""),
        ("a.example/x", ""),
        ("", ""),
        ("a b", ""),
        ("@", ""),
    ],
)
def test_a_domain_alone_is_a_domain(text: str, domain: str) -> None:
    assert stream_xml.domain_of_text(text) == domain


@given(st.builds(StreamFeatures, st.booleans(), st.booleans(), st.booleans()))
def test_features_are_read_as_they_are_written(features: StreamFeatures) -> None:
    assert stream_xml.parse_features(element(features.to_xml())) == features


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        (stream_xml.external_xml("b.example"), "b.example"),
        ("<auth xmlns='{}' mechanism='EXTERNAL'>=</auth>", "claimed.example"),
        ("<auth xmlns='{}' mechanism='EXTERNAL'/>", "claimed.example"),
        ("<auth xmlns='{}' mechanism='PLAIN'>=</auth>", ""),
        ("<auth xmlns='{}' mechanism='EXTERNAL'>?</auth>", ""),
        ("<auth xmlns='{}' mechanism='EXTERNAL'>/w==</auth>", ""),
        (f"<auth xmlns='{{}}' mechanism='EXTERNAL'>{base64.b64encode(b'a@b').decode()}</auth>", ""),
    ],
)
def test_who_a_peer_wants_to_be(text: str, domain: str) -> None:
    made = element(text.format(stream_xml.NS_SASL))
    assert stream_xml.external_domain(made, "claimed.example") == domain


def test_dialback_elements_are_read_as_they_are_written() -> None:
    asked = stream_xml.parse_dialback(element(stream_xml.result_xml("a.example", "b.example", key="k&")))
    assert (asked.sender, asked.to, asked.key, asked.type) == ("a.example", "b.example", "k&", "")
    said = stream_xml.verify_xml("a.example", "b.example", "1", type_="invalid")
    answer = stream_xml.parse_dialback(element(said))
    assert (answer.id, answer.key, answer.type) == ("1", "", "invalid")
    error = element(stream_xml.result_xml("a.example", "b.example", type_="error", condition="not-allowed"))
    assert error.find(".//{urn:ietf:params:xml:ns:xmpp-stanzas}not-allowed") is not None


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("<db:result from='a.example'>k</db:result>", "improper-addressing"),
        ("<db:result from='x@a.example' to='b.example'>k</db:result>", "improper-addressing"),
        (f"<db:result from='a.example' to='b.example'>{'k' * 513}</db:result>", "policy-violation"),
        (f"<db:verify from='a.example' to='b.example' id='{'i' * 257}'/>", "policy-violation"),
    ],
)
def test_dialback_that_is_refused(text: str, condition: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        stream_xml.parse_dialback(element(text))
    assert refused.value.code == condition


def test_the_key_of_the_example_in_the_specification() -> None:
    key = stream_xml.dialback_key(b"s3cr3tf0rd14lb4ck", "xmpp.example.com", "example.org", "D60000229F")
    assert key == "37c69b1cf07a3f67c04a5ef5902fa5114f2c76fe4a2686482ba5b89323075643"


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_keys_are_of_one_pair_and_one_stream(a: str, b: str, one: str, other: str) -> None:
    key = stream_xml.dialback_key(b"x", "b.example", "a.example", one)
    assert stream_xml.same_key(key, key)
    assert stream_xml.same_key(key, stream_xml.dialback_key(b"x", "b.example", "a.example", other)) == (
        one == other
    )
    assert not stream_xml.same_key(key, stream_xml.dialback_key(b"y", "b.example", "a.example", one))
    assert not stream_xml.same_key(key, a + b)


@pytest.mark.parametrize(
    ("names", "domain", "covers"),
    [
        (["a.example"], "a.example", True),
        (["A.Example"], "a.example", True),
        (["b.example", "a.example"], "a.example", True),
        (["*.example.org"], "xmpp.example.org", True),
        (["*.example.org"], "example.org", False),
        (["*.example.org"], "a.b.example.org", False),
        (["*.example"], "a.example", False),
        (["*"], "example", False),
        (["a.example"], "xa.example", False),
        (["a.example"], "", False),
        ([], "a.example", False),
        (["xn--bcher-kva.example"], "bücher.example", True),
    ],
)
def test_a_certificate_is_of_a_domain(names: list[str], domain: str, covers: bool) -> None:
    certificate = {"subjectAltName": tuple(("DNS", name) for name in names)}
    assert stream_xml.certificate_covers(certificate, domain) is covers


def test_a_common_name_and_an_address_are_no_domain() -> None:
    certificate = {
        "subject": ((("commonName", "a.example"),),),
        "subjectAltName": (("IP Address", "a.example"), ("email", "a.example")),
    }
    assert not stream_xml.certificate_covers(certificate, "a.example")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("x.example:5269", Target("x.example", 5269)),
        ("tls:10.0.0.1:5270", Target("10.0.0.1", 5270, direct=True)),
        ("[2001:db8::1]:1", Target("2001:db8::1", 1)),
    ],
)
def test_a_route(text: str, target: Target) -> None:
    assert parse_route(text) == target


@pytest.mark.parametrize("text", ["", "x", "x:", ":1", "x:0", "x:65536", "x:1x", "x:٣"])
def test_what_is_not_a_route(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_route(text)


def records(*found: tuple[int, int, int, str]) -> Sequence[SrvRecord]:
    return [SrvRecord(priority, weight, port, target) for priority, weight, port, target in found]


@pytest.mark.parametrize(
    ("direct", "plain", "targets"),
    [
        ((), (), [Target("x.example", 5269)]),
        ((), ((0, 0, 0, "."),), []),
        ((), ((10, 0, 2, "b"), (0, 0, 1, "a")), [Target("a", 1), Target("b", 2)]),
        (
            ((5, 0, 3, "c"),),
            ((0, 0, 1, "a"), (9, 0, 2, "b")),
            [Target("a", 1), Target("c", 3, True), Target("b", 2)],
        ),
        (((0, 0, 0, "."),), ((0, 0, 1, "a"),), [Target("a", 1)]),
    ],
)
def test_where_to_connect(direct: tuple, plain: tuple, targets: list[Target]) -> None:
    found = stream_xml.order_targets("x.example", records(*direct), records(*plain), lambda: 0.5)
    assert found == targets


def test_records_of_one_priority_are_drawn_by_weight() -> None:
    both = records((0, 90, 1, "heavy"), (0, 10, 2, "light"))
    first = [
        stream_xml.order_targets("x", (), both, lambda c=chance: c / 100)[0].host for chance in range(100)
    ]
    assert 85 <= first.count("heavy") <= 95
