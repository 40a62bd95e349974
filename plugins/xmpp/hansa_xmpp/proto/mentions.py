"""Mentions: references in a message, and the nick that a body begins with.

SPEC: XEP-0372 section 3.1 (positions), section 3.2 (mentions); XEP-0426 section 2 (code points).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from urllib.parse import quote, unquote

from hansa import Message, NativeId, Span, SpanKind, arrange_spans
from slixmpp.jid import JID, InvalidJID

from hansa_xmpp.proto import jid
from hansa_xmpp.proto.fallbacks import parse_offset
from hansa_xmpp.proto.markup import moved_spans
from hansa_xmpp.proto.occupants import Occupant, OccupantList
from hansa_xmpp.proto.render import xml_element
from hansa_xmpp.proto.stanza import Stanza

NS_REFERENCE = "urn:xmpp:reference:0"
#: The references of one message that are read.
MAX_REFERENCES = 50
#: The longest nick that a body may begin with (characters).
_MAX_NICK = 100
#: Characters of an address that stand in a URI as they are: RFC 5122 section 2.2.
_IN_URI = "@!$&'()*+,;=-._~"
_AFTER_NICK = re.compile(r"[:,](?=\s|$)")


def with_mentions(message: Message, stanza: Stanza, network: str, room: str, roster: OccupantList) -> Message:
    """Returns a message with its mentions: of the occupants that its stanza names, and of the one whose nick
    begins its text. The addresses of people who are not in the room are left out.
    """
    body, spans, people = stanza.text_of("body") or "", list[Span](), dict[NativeId, None]()
    for user, span in _referenced(stanza, network, room, roster):
        people[user] = None
        if span is not None and span.end <= len(body):
            spans.append(span)
    spans = list(moved_spans(spans, body, message.text))
    addressed = _addressed(message.text, roster)
    if addressed is not None and addressed.user not in people:
        people[addressed.user] = None
        spans.append(Span(start=0, end=len(addressed.nick), kind=SpanKind.MENTION, user=addressed.user))
    if not people:
        return message
    arranged = arrange_spans(message.text, [*message.spans, *spans])
    return replace(message, spans=arranged.spans, mentions=tuple(people))


def _referenced(
    stanza: Stanza, network: str, room: str, roster: OccupantList
) -> Iterator[tuple[NativeId, Span | None]]:
    found = stanza.element.iterfind(f"{{{NS_REFERENCE}}}reference")
    for reference in islice(found, MAX_REFERENCES):
        if reference.get("type") != "mention" or reference.get("anchor"):
            continue
        occupant = _occupant_at(reference.get("uri", ""), network, room, roster)
        if occupant is None:
            continue
        start, end = parse_offset(reference.get("begin", "")), parse_offset(reference.get("end", ""))
        span = None
        if start is not None and end is not None and start < end:
            span = Span(start=start, end=end, kind=SpanKind.MENTION, user=occupant.user)
        yield occupant.user, span


def _occupant_at(uri: str, network: str, room: str, roster: OccupantList) -> Occupant | None:
    """The occupant with an address: of the room, their own, or of their puppet."""
    scheme, _, rest = uri.partition(":")
    if scheme.lower() != "xmpp":
        return None
    try:
        address = JID(unquote(rest.partition("?")[0].lstrip("/")))
    except InvalidJID:
        return None
    if address.bare == room:
        return roster.by_nick(address.resource)
    gateway = jid.domain_of(room)
    if address.domain != gateway:
        return roster.by_user(NativeId(network, address.bare))
    user = jid.person(address.bare, gateway)
    return roster.by_user(user) if user is not None else None


def _addressed(text: str, roster: OccupantList) -> Occupant | None:
    """The occupant to whose nick a text is addressed: ``Juliet: hello``."""
    line = text[: _MAX_NICK + 1].partition("\n")[0]
    for match in _AFTER_NICK.finditer(line):
        occupant = roster.by_nick(line[: match.start()])
        if occupant is not None:
            return occupant
    return None


def references_xml(message: Message, body: str, before: int, address_of: Callable[[NativeId], str]) -> str:
    """The references for the mentions of a message. ``body`` shows it, after ``before`` other characters."""
    made, placed = list[str](), set[NativeId]()
    for span in message.spans:
        if span.kind is not SpanKind.MENTION or span.user is None:
            continue
        placed.add(span.user)
        at = _position(message.text, span, body)
        where = ("", "") if at is None else (str(before + at), str(before + at + span.end - span.start))
        made.append(_reference(span.user, address_of, *where))
    made += [_reference(user, address_of, "", "") for user in message.mentions if user not in placed]
    return "".join(made[:MAX_REFERENCES])


def _reference(user: NativeId, address_of: Callable[[NativeId], str], begin: str, end: str) -> str:
    uri = "xmpp:" + quote(address_of(user), safe=_IN_URI)
    return xml_element("reference", NS_REFERENCE, begin=begin, end=end, type="mention", uri=uri)


def _position(text: str, span: Span, body: str) -> int | None:
    """Where the words of a span are in a body that has marks besides: they come as often before there."""
    words = text[span.start : span.end]
    at = -1
    for _ in range(text.count(words, 0, span.start) + 1):
        at = body.find(words, at + 1)
        if at < 0:
            return None
    return at
