"""Queries of the archive of a room elsewhere, and its answers.

SPEC: XEP-0313 section 4.1 (queries) and 4.2 (results); XEP-0059 section 2.2 (paging forward); XEP-0297
section 3 (forwarded messages).
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element

from slixmpp.jid import JID, InvalidJID

from hansa_xmpp.proto.convert import parse_timestamp
from hansa_xmpp.proto.foreign_room import NS_STANZA_ID_TAG
from hansa_xmpp.proto.render import xml_element, xml_text
from hansa_xmpp.proto.stanza import (
    MAX_ID,
    NS_DATA_FORM,
    NS_DELAY,
    NS_FORWARD,
    NS_MAM,
    NS_MUC_USER,
    NS_RSM,
    Stanza,
    local_name,
)

#: Messages of one page.
PAGE_SIZE = 50


def archive_query_xml(query_id: str, *, after: str, start: str) -> str:
    """A page of the messages after the one with the id ``after``, or else from the time ``start`` on."""
    fields = xml_element("field", "", xml_element("value", "", NS_MAM), var="FORM_TYPE", type="hidden")
    if start:
        fields += xml_element("field", "", xml_element("value", "", xml_text(start)), var="start")
    page = xml_element("max", "", str(PAGE_SIZE))
    if after:
        page += xml_element("after", "", xml_text(after))
    form = xml_element("x", NS_DATA_FORM, fields, type="submit")
    return xml_element("query", NS_MAM, form + xml_element("set", NS_RSM, page), queryid=query_id)


def result_of(stanza: Stanza) -> Element | None:
    """The result of an archive in a message, None if there is none."""
    return stanza.child("result", NS_MAM)


@dataclass(frozen=True, slots=True)
class ArchivedStanza:
    """A message of an archive, with the id of the archive as its ``stanza-id``. ``person`` is the bare JID
    that the archive names as its sender's, ``at`` when it came (ms).
    """

    stanza: Stanza
    person: str
    at: int


def parse_archived(result: Element, room: str, to: str) -> ArchivedStanza | None:
    """A result of the archive of ``room``; None for one that has no message of the room."""
    archive_id = result.get("id", "")
    forwarded = result.find(f"{{{NS_FORWARD}}}forwarded")
    if forwarded is None or not archive_id or len(archive_id.encode(errors="surrogatepass")) > MAX_ID:
        return None
    message = next((e for e in forwarded if local_name(e.tag) == "message"), None)
    delay = forwarded.find(f"{{{NS_DELAY}}}delay")
    at = parse_timestamp(delay.get("stamp", "")) if delay is not None else None
    if message is None or at is None:
        return None
    try:
        sender, receiver = JID(message.get("from", "")), JID(to)
    except InvalidJID:
        return None
    if sender.bare != room or message.get("type") != "groupchat":
        return None
    copy = Element(message.tag, message.attrib)
    copy.text = message.text
    copy.extend(child for child in message if child.tag != NS_STANZA_ID_TAG)
    copy.append(Element(NS_STANZA_ID_TAG, {"by": room, "id": archive_id}))
    item = message.find(f"{{{NS_MUC_USER}}}x/{{{NS_MUC_USER}}}item")
    try:
        person = JID(item.get("jid", "")).bare if item is not None else ""
    except InvalidJID:
        person = ""
    stanza = Stanza(
        kind="message",
        type="groupchat",
        id=message.get("id", ""),
        sender=sender,
        to=receiver,
        element=copy,
    )
    return ArchivedStanza(stanza, person, at)


@dataclass(frozen=True, slots=True)
class PageEnd:
    """The end of a page: the id of its last message, and whether nothing comes after it."""

    last: str
    complete: bool


def parse_end(answer: Stanza) -> PageEnd:
    """The end of a page of an archive."""
    fin = answer.child("fin", NS_MAM)
    if fin is None:
        return PageEnd("", complete=True)
    last = fin.findtext(f"{{{NS_RSM}}}set/{{{NS_RSM}}}last") or ""
    return PageEnd(last[:MAX_ID], complete=fin.get("complete") in {"true", "1"})
