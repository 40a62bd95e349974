"""What a message says about an earlier one: corrections, reactions, replies and retractions, in both
directions.

SPEC: XEP-0308 section 3 (corrections); XEP-0444 section 3 and section 4 (reactions); XEP-0461 section 3
(replies); XEP-0428 section 2 (fallbacks, whose ranges count code points: XEP-0426); XEP-0424 section 3
(retractions); XEP-0425 section 3 (moderation).
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element

from hansa import Event, NativeId, RemoteProtocolError, excerpt_of, truncate_utf8

from hansa_xmpp.proto.fallbacks import body_without_fallback, fallback_xml
from hansa_xmpp.proto.render import xml_element, xml_text
from hansa_xmpp.proto.stanza import (
    MAX_ID,
    NS_CORRECT,
    NS_FALLBACK,
    NS_FASTEN,
    NS_HINTS,
    NS_MODERATE,
    NS_MODERATE_0,
    NS_OCCUPANT_ID,
    NS_REACTIONS,
    NS_REPLY,
    NS_RETRACT,
    NS_RETRACT_0,
    Stanza,
)

#: The reactions of one person to one message, and the bytes of one.
MAX_REACTIONS, MAX_REACTION = 16, 64
#: The longest reason of a retraction (bytes).
_MAX_REASON = 1024
_RETRACTED = "/me retracted a previous message, but it's unsupported by your client."


@dataclass(frozen=True, slots=True)
class Correction:
    """The message replaces the one to which its sender gave ``id``."""

    id: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The message answers the one with the room's ``id``. ``body`` is its body without the quote of that."""

    id: str
    body: str


@dataclass(frozen=True, slots=True)
class ReactionSet:
    """All reactions of one person to the message with the room's ``id``. ``owner`` is set in what is
    shown.
    """

    id: str
    keys: tuple[str, ...]
    owner: NativeId | None = None


@dataclass(frozen=True, slots=True)
class RetractionRequest:
    """The message with the room's ``id`` is retracted. ``moderated``: as a moderator, and by an IQ."""

    id: str
    reason: str = ""
    moderated: bool = False


Targeted = Correction | Reply | ReactionSet | RetractionRequest


def parse_targeted(stanza: Stanza) -> Targeted | None:
    """What a groupchat message says about an earlier one. Raises RemoteProtocolError with the reason why it
    is not acceptable. A correction of a reply is a correction.
    """
    body = stanza.text_of("body")
    retract = stanza.child("retract", NS_RETRACT)
    if retract is not None and (not body or _is_all_fallback(stanza, NS_RETRACT)):
        return RetractionRequest(_id_of(retract), _reason_of(retract))
    reactions = stanza.child("reactions", NS_REACTIONS)
    if reactions is not None and (not body or _is_all_fallback(stanza, NS_REACTIONS)):
        return ReactionSet(_id_of(reactions), _parse_keys(reactions))
    replace = stanza.child("replace", NS_CORRECT)
    if replace is not None:
        return Correction(_id_of(replace))
    reply = stanza.child("reply", NS_REPLY)
    if reply is None or not body:
        return None
    return Reply(_id_of(reply), body_without_fallback(stanza, body, NS_REPLY))


def parse_moderation(moderate: Element) -> RetractionRequest | None:
    """The request of a moderator (XEP-0425 section 3); None if it does not ask for a retraction. In version
    0.2.1 ``moderate`` is the ``apply-to`` (XEP-0422) that has the request.
    """
    if moderate.tag == f"{{{NS_FASTEN}}}apply-to":
        old = moderate.find(f"{{{NS_MODERATE_0}}}moderate")
        if old is None or old.find(f"{{{NS_RETRACT_0}}}retract") is None:
            return None
        return RetractionRequest(_id_of(moderate), _reason_of(old), moderated=True)
    if moderate.find(f"{{{NS_RETRACT}}}retract") is None:
        return None
    return RetractionRequest(_id_of(moderate), _reason_of(moderate), moderated=True)


def _is_all_fallback(stanza: Stanza, of: str) -> bool:
    for fallback in stanza.element.iterfind(f"{{{NS_FALLBACK}}}fallback"):
        if fallback.get("for") == of:
            parts = fallback.findall(f"{{{NS_FALLBACK}}}body")
            return not len(fallback) or any(not part.attrib for part in parts)
    return False


def _id_of(element: Element) -> str:
    found = element.get("id", "")
    if not found or len(found.encode()) > MAX_ID:
        raise RemoteProtocolError("the id of the earlier message is missing or too long")
    return found


def _reason_of(element: Element) -> str:
    return truncate_utf8(next((e.text or "" for e in element if e.tag.endswith("}reason")), ""), _MAX_REASON)


def _parse_keys(reactions: Element) -> tuple[str, ...]:
    keys = dict.fromkeys((e.text or "").strip() for e in reactions.iterfind(f"{{{NS_REACTIONS}}}reaction"))
    keys.pop("", None)
    if len(keys) > MAX_REACTIONS:
        raise RemoteProtocolError(f"a person has at most {MAX_REACTIONS} reactions to a message")
    if any(len(key.encode()) > MAX_REACTION for key in keys):
        raise RemoteProtocolError(f"a reaction has at most {MAX_REACTION} bytes")
    return tuple(keys)


def correction_xml(replaced: str) -> str:
    """Says that the message replaces the one that was sent with the id ``replaced``."""
    return xml_element("replace", NS_CORRECT, id=replaced)


def reactions_xml(shown: ReactionSet) -> str:
    """All reactions of a person to a message."""
    keys = "".join(xml_element("reaction", "", xml_text(key)) for key in shown.keys)
    return xml_element("reactions", NS_REACTIONS, keys, id=shown.id) + xml_element("store", NS_HINTS)


def retraction_xml(target: str, reason: str, *, moderator: str = "", occupant: str = "") -> str:
    """A message is retracted, by its sender or by ``moderator``, the address of an occupant with the id
    ``occupant``.
    """
    inner = ""
    if moderator:
        by = xml_element("occupant-id", NS_OCCUPANT_ID, id=occupant)
        inner = xml_element("moderated", NS_MODERATE, by, by=moderator)
    if reason:
        inner += xml_element("reason", "", xml_text(reason))
    said = xml_element("retract", NS_RETRACT, inner, id=target) + xml_element("store", NS_HINTS)
    if moderator:
        return said + _moderated_0(target, reason, moderator)
    return said + fallback_xml(NS_RETRACT) + xml_element("body", "", xml_text(_RETRACTED))


def _moderated_0(target: str, reason: str, moderator: str) -> str:
    """The same for clients that know version 0.2.1 of XEP-0425."""
    inner = xml_element("retract", NS_RETRACT_0)
    if reason:
        inner += xml_element("reason", "", xml_text(reason))
    moderated = xml_element("moderated", NS_MODERATE_0, inner, by=moderator)
    return xml_element("apply-to", NS_FASTEN, moderated, id=target)


def quote_for(target: Event, nick: str) -> str:
    """The line that begins a reply for clients that do not know replies; empty if there are no words."""
    words = excerpt_of(target.content)
    return f"> {nick}: {words}\n" if words else ""


def reply_xml(message_id: str, author: str, quoted: int) -> str:
    """Says which message is answered. ``author`` is the occupant's address, and the first ``quoted``
    characters of the body are the quote of it.
    """
    said = xml_element("reply", NS_REPLY, id=message_id, to=author)
    return said + fallback_xml(NS_REPLY, (0, quoted)) if quoted else said
