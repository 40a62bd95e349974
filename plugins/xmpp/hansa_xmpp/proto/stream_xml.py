"""The elements of streams between servers, without I/O: headers, features, dialback, SASL EXTERNAL.

SPEC: RFC 6120 section 4 (streams), section 5 (STARTTLS), section 6 (SASL); XEP-0220 section 2 (dialback);
XEP-0185 section 3 (keys); XEP-0178 section 3 (EXTERNAL); XEP-0368 section 2 (direct TLS).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from hansa import RemoteProtocolError, SrvRecord, order_srv
from slixmpp.jid import JID, InvalidJID

from hansa_xmpp.places import Target
from hansa_xmpp.proto.parse import BoundedParser, StanzaLimits
from hansa_xmpp.proto.render import xml_element, xml_text
from hansa_xmpp.proto.stanza import KINDS

NS_SERVER = "jabber:server"
NS_STREAMS = "http://etherx.jabber.org/streams"
NS_STREAM_ERRORS = "urn:ietf:params:xml:ns:xmpp-streams"
NS_TLS = "urn:ietf:params:xml:ns:xmpp-tls"
NS_SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
NS_DIALBACK = "jabber:server:dialback"
NS_DIALBACK_FEATURE = "urn:xmpp:features:dialback"

STREAM, FEATURES, ERROR = (f"{{{NS_STREAMS}}}{name}" for name in ("stream", "features", "error"))
STARTTLS, PROCEED = (f"{{{NS_TLS}}}{name}" for name in ("starttls", "proceed"))
AUTH, SUCCESS, FAILURE = (f"{{{NS_SASL}}}{name}" for name in ("auth", "success", "failure"))
RESULT, VERIFY = f"{{{NS_DIALBACK}}}result", f"{{{NS_DIALBACK}}}verify"
STANZAS = frozenset(f"{{{NS_SERVER}}}{kind}" for kind in KINDS)

#: The longest id of a stream and the longest dialback key that are read (characters).
_MAX_ID, _MAX_KEY = 256, 512
#: The ports of a domain without records: RFC 6120 section 3.2.2.
_PORT = 5269


def parse_own(text: str, limits: StanzaLimits) -> list[Element]:
    """Stanzas that were made here, as elements; those over the limits are left out."""
    parser = BoundedParser(limits, lambda _: None)
    parser.feed(f"<stream:stream xmlns='{NS_SERVER}' xmlns:stream='{NS_STREAMS}'>{text}".encode())
    return [element for kind, element in parser.read_events() if kind == "end"]


def domain_of_text(text: str) -> str:
    """A domain as it is compared; empty for anything else."""
    try:
        found = JID(text)
    except InvalidJID:
        return ""
    return "" if found.local or found.resource else str(found.domain)


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """The addresses and the id of a stream, each empty if it is not given or not valid."""

    sender: str
    to: str
    id: str


def parse_header(root: Element) -> StreamHeader:
    """Raises RemoteProtocolError, its ``code`` the condition of the stream error to answer with."""
    if root.tag != STREAM:
        raise RemoteProtocolError("the root is not a stream", code="invalid-namespace")
    if root.get("version", "").partition(".")[0] != "1":
        raise RemoteProtocolError("streams have the version 1.0", code="unsupported-version")
    sender, to = domain_of_text(root.get("from", "")), domain_of_text(root.get("to", ""))
    return StreamHeader(sender, to, root.get("id", "")[:_MAX_ID])


def header_xml(local: str, remote: str, stream_id: str = "") -> str:
    """The beginning of a stream."""
    spaces = f"xmlns='{NS_SERVER}' xmlns:stream='{NS_STREAMS}' xmlns:db='{NS_DIALBACK}'"
    given = {"from": local, "to": remote, "id": stream_id}
    addresses = xml_element("x", "", "", **given).removeprefix("<x").removesuffix("/>")
    return f"<?xml version='1.0'?><stream:stream {spaces}{addresses} version='1.0'>"


def error_xml(condition: str, text: str = "") -> str:
    """A stream error, after which the stream ends."""
    inner = xml_element(condition, NS_STREAM_ERRORS)
    if text:
        inner += xml_element("text", NS_STREAM_ERRORS, xml_text(text))
    return f"<stream:error>{inner}</stream:error></stream:stream>"


@dataclass(frozen=True, slots=True)
class StreamFeatures:
    """The features of a stream that matter here."""

    starttls: bool = False
    external: bool = False
    dialback: bool = False

    def to_xml(self) -> str:
        """The element. TLS is required wherever it is offered."""
        inner = xml_element("starttls", NS_TLS, xml_element("required")) if self.starttls else ""
        if self.external:
            inner += xml_element("mechanisms", NS_SASL, "<mechanism>EXTERNAL</mechanism>")
        if self.dialback:
            inner += xml_element("dialback", NS_DIALBACK_FEATURE, xml_element("errors"))
        return f"<stream:features>{inner}</stream:features>"


def parse_features(element: Element) -> StreamFeatures:
    """What a peer offers."""
    mechanisms = element.iterfind(f"{{{NS_SASL}}}mechanisms/{{{NS_SASL}}}mechanism")
    return StreamFeatures(
        starttls=element.find(STARTTLS) is not None,
        external=any(one.text == "EXTERNAL" for one in mechanisms),
        dialback=element.find(f"{{{NS_DIALBACK_FEATURE}}}dialback") is not None,
    )


def stream_condition(element: Element) -> str:
    """The condition of a stream error, for the log."""
    names = (one.tag.rpartition("}")[2] for one in element if one.tag.startswith(f"{{{NS_STREAM_ERRORS}}}"))
    return next((name for name in names if name != "text"), "undefined-condition")[:100]


def external_xml(domain: str) -> str:
    """The request to be ``domain`` by the certificate."""
    return xml_element("auth", NS_SASL, base64.b64encode(domain.encode()).decode(), mechanism="EXTERNAL")


def external_domain(element: Element, claimed: str) -> str:
    """The domain that a peer wants to be: ``claimed`` by the stream where it names none. Empty if it asks for
    another mechanism, or names no domain.
    """
    if element.get("mechanism") != "EXTERNAL":
        return ""
    text = (element.text or "").strip()
    if text in {"", "="}:
        return claimed
    try:
        return domain_of_text(base64.b64decode(text, validate=True).decode())
    except (binascii.Error, UnicodeDecodeError):
        return ""


@dataclass(frozen=True, slots=True)
class DialbackElement:
    """A ``db:result`` or ``db:verify``. ``type`` is empty in a request."""

    sender: str
    to: str
    id: str
    key: str
    type: str


def parse_dialback(element: Element) -> DialbackElement:
    """Raises RemoteProtocolError, its ``code`` the condition of the stream error to answer with."""
    sender, to = domain_of_text(element.get("from", "")), domain_of_text(element.get("to", ""))
    key, name = (element.text or "").strip(), element.get("id", "")
    if not sender or not to:
        raise RemoteProtocolError("dialback without addresses", code="improper-addressing")
    if len(key) > _MAX_KEY or len(name) > _MAX_ID:
        raise RemoteProtocolError("the dialback key is too long", code="policy-violation")
    return DialbackElement(sender, to, name, key, element.get("type", ""))


def dialback_key(secret: bytes, receiving: str, originating: str, stream_id: str) -> str:
    """The key by which ``originating`` proves itself to ``receiving``: XEP-0185 section 3."""
    hashed = hashlib.sha256(secret).hexdigest().encode()
    return hmac.new(hashed, f"{receiving} {originating} {stream_id}".encode(), hashlib.sha256).hexdigest()


def same_key(ours: str, theirs: str) -> bool:
    """Compares dialback keys in constant time."""
    return hmac.compare_digest(ours.encode(), theirs.encode())


def domain_part(address: str) -> str:
    """The domain of an address, as ``domain_of_text`` writes it; empty where it is not an address."""
    try:
        return str(JID(address).domain)
    except InvalidJID:
        return ""


def result_xml(local: str, remote: str, *, key: str = "", type_: str = "", condition: str = "") -> str:
    """A ``db:result``: the request with its ``key``, or the answer with its ``type_``."""
    return _dialback_xml("db:result", local, remote, key=key, type_=type_, condition=condition)


def verify_xml(
    local: str, remote: str, stream_id: str, *, key: str = "", type_: str = "", condition: str = ""
) -> str:
    """A ``db:verify``: the request with its ``key``, or the answer with its ``type_``."""
    return _dialback_xml(
        "db:verify", local, remote, key=key, type_=type_, condition=condition, stream_id=stream_id
    )


def _dialback_xml(
    name: str,
    local: str,
    remote: str,
    *,
    key: str,
    type_: str,
    condition: str,
    stream_id: str = "",
) -> str:
    inner = xml_text(key)
    if condition:
        said = xml_element(condition, "urn:ietf:params:xml:ns:xmpp-stanzas")
        inner = xml_element("error", "", said, type="cancel")
    given = {"from": local, "to": remote, "id": stream_id, "type": type_}
    return xml_element(name, "", inner, **given)


def certificate_covers(certificate: Mapping[str, Any], domain: str) -> bool:
    """True if a certificate that was verified is one of a domain: a DNS name of it, or a wildcard in place of
    its first label. ``certificate`` is what ``SSLSocket.getpeercert`` returns. SPEC: RFC 6125 section 6.4.
    """
    try:
        wanted = domain.encode("idna").decode().lower()
    except UnicodeError:
        return False
    names = [value.lower() for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
    parent = wanted.partition(".")[2]
    return wanted in names or ("." in parent and f"*.{parent}" in names)


@dataclass(frozen=True, slots=True)
class _Listed:
    priority: int
    weight: int
    target: Target


def order_targets(
    domain: str, direct: Sequence[SrvRecord], plain: Sequence[SrvRecord], chance: Callable[[], float]
) -> list[Target]:
    """Returns where to connect, in order: all records by priority, and by weighted chance within one (RFC
    2782), as if they were of one service (XEP-0368 section 2); without any, the domain itself. Empty if the
    domain says that it has no server. ``chance`` is from 0 to 1.
    """
    listed = [(one, True) for one in direct] + [(one, False) for one in plain]
    if not listed:
        return [Target(domain, _PORT)]
    usable = [(one, tls) for one, tls in listed if one.target not in {"", "."}]
    targets = [_Listed(one.priority, one.weight, Target(one.target, one.port, tls)) for one, tls in usable]
    return [one.target for one in order_srv(targets, chance)]
