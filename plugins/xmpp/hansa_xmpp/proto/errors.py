"""Refusals as stanza errors. SPEC: RFC 6120 section 8.3."""

from __future__ import annotations

from typing import NamedTuple

from hansa import RefusalCode

from hansa_xmpp.proto import render
from hansa_xmpp.proto.render import OutboundStanza
from hansa_xmpp.proto.stanza import NS_MUC, NS_STANZAS, Stanza


class Condition(NamedTuple):
    """An error's type (``cancel``, ``modify``, ``auth``, ``wait``) and defined condition."""

    type: str
    name: str


BAD_REQUEST = Condition("modify", "bad-request")
CONFLICT = Condition("cancel", "conflict")
FORBIDDEN = Condition("auth", "forbidden")
INTERNAL = Condition("cancel", "internal-server-error")
JID_MALFORMED = Condition("modify", "jid-malformed")
NOT_ACCEPTABLE = Condition("modify", "not-acceptable")
NOT_ALLOWED = Condition("cancel", "not-allowed")
NOT_FOUND = Condition("cancel", "item-not-found")
NOT_IMPLEMENTED = Condition("cancel", "feature-not-implemented")
POLICY_VIOLATION = Condition("modify", "policy-violation")
RESOURCE_CONSTRAINT = Condition("wait", "resource-constraint")
ROOM_FULL = Condition("wait", "service-unavailable")
UNAVAILABLE = Condition("cancel", "service-unavailable")

#: A condition, and the reason in words.
StanzaRefusal = tuple[Condition, str]
#: While the database fails: the stanza may be sent again later.
STORE_FAULT: StanzaRefusal = (RESOURCE_CONSTRAINT, "the storage of this server fails")

BY_REFUSAL = {
    RefusalCode.FORBIDDEN: FORBIDDEN,
    RefusalCode.BANNED: FORBIDDEN,
    RefusalCode.INVITE_ONLY: Condition("auth", "registration-required"),
    RefusalCode.NOT_JOINED: NOT_ACCEPTABLE,
    RefusalCode.NOT_FOUND: NOT_FOUND,
    RefusalCode.CONFLICT: CONFLICT,
    RefusalCode.INVALID: BAD_REQUEST,
    RefusalCode.TOO_LARGE: POLICY_VIOLATION,
    RefusalCode.UNSUPPORTED: NOT_IMPLEMENTED,
    RefusalCode.UNREACHABLE: Condition("wait", "remote-server-timeout"),
    RefusalCode.POLICY: POLICY_VIOLATION,
    RefusalCode.RATE: RESOURCE_CONSTRAINT,
    RefusalCode.BUSY: RESOURCE_CONSTRAINT,
}

#: Errors from an occupant that mean it is not there any more (XEP-0045 section 14.4 names the practice).
KICKABLE = frozenset(
    {
        "gone",
        "item-not-found",
        "jid-malformed",
        "recipient-unavailable",
        "redirect",
        "remote-server-not-found",
        "remote-server-timeout",
        "service-unavailable",
    }
)


def error_reply(to: Stanza, condition: Condition, text: str = "") -> list[OutboundStanza]:
    """The answer to ``to``; nothing where an error or a result would be answered (RFC 6120 section 8.3.1).

    ``by`` names the room, and a refused join carries ``<x/>``, without which clients do not know their own.
    """
    if to.type in {"error", "result"}:
        return []
    inner = render.xml_element(condition.name, NS_STANZAS)
    if text:
        inner += render.xml_element("text", NS_STANZAS, render.xml_text(text))
    answer = render.xml_element("error", "", inner, type=condition.type, by=to.to.bare)
    if to.kind == "presence":
        answer = render.xml_element("x", NS_MUC) + answer
    return [render.stanza(to.kind, to.to.full, [to.sender.full], answer, type_="error", id_=to.id)]
