"""The answers of a room's archive.

SPEC: XEP-0313 section 4.2 (results), 4.1.5 (the form), section 5 (metadata); XEP-0297 section 3 (forwarded);
XEP-0059 section 2 (the set of a page); XEP-0424 section 5 and XEP-0425 section 5 (tombstones).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hansa import Event, Retraction

from hansa_xmpp.proto import render
from hansa_xmpp.proto.convert import format_timestamp
from hansa_xmpp.proto.render import OutboundStanza, xml_element, xml_text
from hansa_xmpp.proto.stanza import (
    NS_DATA_FORM,
    NS_DELAY,
    NS_FORWARD,
    NS_MAM,
    NS_MODERATE,
    NS_MUC_USER,
    NS_OCCUPANT_ID,
    NS_RETRACT,
    NS_RSM,
)

_VALIDATE = "http://jabber.org/protocol/xdata-validate"
_FIELDS = {
    "with": "jid-single",
    "start": "text-single",
    "end": "text-single",
    "before-id": "text-single",
    "after-id": "text-single",
}


@dataclass(frozen=True, slots=True)
class ArchivedMessage:
    """A message as it stands in the archive. ``received`` is in ms, ``jid`` the bare JID of its sender."""

    id: str
    received: int
    stanza: OutboundStanza
    jid: str

    def result(self, room: str, to: str, query_id: str) -> OutboundStanza:
        """The message to who asked for it."""
        item = xml_element("x", NS_MUC_USER, xml_element("item", jid=self.jid))
        inner = xml_element("delay", NS_DELAY, stamp=format_timestamp(self.received))
        forwarded = xml_element("forwarded", NS_FORWARD, inner + self.stanza.embedded("jabber:client", item))
        result = xml_element("result", NS_MAM, forwarded, queryid=query_id, id=self.id)
        return render.stanza("message", room, [to], result)


def fin_xml(first: str, last: str, *, complete: bool) -> str:
    """The end of a page, with the ids of its first and last message, empty where it has none."""
    ends = xml_element("first", "", xml_text(first)) + xml_element("last", "", xml_text(last)) if last else ""
    page = xml_element("set", NS_RSM, ends)
    return xml_element("fin", NS_MAM, page, complete="true" if complete else "", stable="true")


def form_xml() -> str:
    """The fields that a query may have."""
    kind = xml_element("value", "", NS_MAM)
    fields = xml_element("field", "", kind, type="hidden", var="FORM_TYPE")
    fields += "".join(xml_element("field", type=kind, var=name) for name, kind in _FIELDS.items())
    anything = xml_element("validate", _VALIDATE, xml_element("open"), datatype="xs:string")
    fields += xml_element("field", "", anything, type="list-multi", var="ids")
    return xml_element("query", NS_MAM, xml_element("x", NS_DATA_FORM, fields, type="form"))


def metadata_xml(ends: Sequence[ArchivedMessage]) -> str:
    """The first and the last message of an archive, or none of both."""
    inner = "".join(
        xml_element(name, id=message.id, timestamp=format_timestamp(message.received))
        for name, message in zip(("start", "end"), ends, strict=len(ends) > 0)
    )
    return xml_element("metadata", NS_MAM, inner)


def tombstone_xml(retraction: Event, content: Retraction, id_: str, moderator: str, occupant: str) -> str:
    """What is left of a message: the time of its retraction, and the id of the message that told of it.
    ``moderator`` is the address of the occupant with the id ``occupant`` where another person retracted it.
    """
    inner = ""
    if moderator:
        by = xml_element("occupant-id", NS_OCCUPANT_ID, id=occupant)
        inner = xml_element("moderated", NS_MODERATE, by, by=moderator)
    if content.reason:
        inner += xml_element("reason", "", xml_text(content.reason))
    stamp = format_timestamp(retraction.received)
    return xml_element("retracted", NS_RETRACT, inner, id=id_, stamp=stamp)
