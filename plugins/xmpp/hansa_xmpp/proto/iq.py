"""IQs to the service, to a room, to an occupant: disco and ping here, the administration of a room in modules
of its own.

SPEC: XEP-0030 sections 3 and 4; XEP-0199 section 4; XEP-0410 section 3; XEP-0045 section 6; XEP-0425
section 3 (version 0.3, and version 0.2.1 by XEP-0422).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from xml.etree.ElementTree import Element

from hansa import RemoteProtocolError, RoomView

from hansa_xmpp.proto import errors, render
from hansa_xmpp.proto.admin_query import handle_admin_query
from hansa_xmpp.proto.commands import GroupchatMessage, RoomChanges, SendStanzas
from hansa_xmpp.proto.config_form import handle_owner_query
from hansa_xmpp.proto.errors import Condition
from hansa_xmpp.proto.muc import Muc
from hansa_xmpp.proto.render import xml_element
from hansa_xmpp.proto.stanza import (
    MAX_ID,
    NS_CHAT_STATES,
    NS_CORRECT,
    NS_DATA_FORM,
    NS_DISCO_INFO,
    NS_DISCO_ITEMS,
    NS_FALLBACK,
    NS_FASTEN,
    NS_MAM,
    NS_MARKERS,
    NS_MODERATE,
    NS_MODERATE_0,
    NS_MUC,
    NS_MUC_ADMIN,
    NS_MUC_OWNER,
    NS_MUC_REQUEST,
    NS_OCCUPANT_ID,
    NS_PING,
    NS_REACTIONS,
    NS_REGISTER,
    NS_REPLY,
    NS_RETRACT,
    NS_SID,
    NS_VCARD,
    Stanza,
)
from hansa_xmpp.proto.targeted import MAX_REACTIONS, parse_moderation

_SELF_PING = "http://jabber.org/protocol/muc#self-ping-optimization"
_STABLE_ID = "http://jabber.org/protocol/muc#stable_id"
_SERVICE_FEATURES = (NS_DISCO_INFO, NS_DISCO_ITEMS, NS_MUC, NS_PING, NS_VCARD)
_ROOM_FEATURES = (
    NS_DISCO_INFO,
    NS_MUC,
    _SELF_PING,
    _STABLE_ID,
    "muc_nonanonymous",
    "muc_persistent",
    "muc_unmoderated",
    "muc_unsecured",
    NS_CHAT_STATES,
    NS_CORRECT,
    NS_FALLBACK,
    NS_MAM,
    f"{NS_MAM}#extended",
    NS_MARKERS,
    NS_MODERATE,
    NS_MODERATE_0,
    NS_MUC_REQUEST,
    NS_OCCUPANT_ID,
    NS_PING,
    NS_REACTIONS,
    NS_REPLY,
    NS_RETRACT,
    f"{NS_RETRACT}#tombstone",
    NS_SID,
    NS_VCARD,
)
_MODERATING = frozenset({f"{{{NS_MODERATE}}}moderate", f"{{{NS_FASTEN}}}apply-to"})


def _field(var: str, value: str, type_: str = "") -> str:
    return xml_element("field", "", xml_element("value", "", render.xml_text(value)), var=var, type=type_)


#: XEP-0444 section 2.2: how many reactions a person may have to one message.
_RESTRICTIONS = xml_element(
    "x",
    NS_DATA_FORM,
    _field("FORM_TYPE", f"{NS_REACTIONS}:restrictions", "hidden")
    + _field("max_reactions_per_user", str(MAX_REACTIONS)),
    type="result",
)


def result(to: Stanza, inner: str = "") -> SendStanzas:
    """The result of an IQ."""
    return SendStanzas((render.stanza("iq", to.to.full, [to.sender.full], inner, type_="result", id_=to.id),))


def to_service(stanza: Stanza, rooms: Iterable[tuple[str, str]]) -> list[SendStanzas]:
    """Answers an IQ to the service itself; ``rooms`` are the address and name of those that every user may
    see.
    """
    asked = _iq_payload(stanza)
    if isinstance(asked, list):
        return asked
    if asked.tag == f"{{{NS_DISCO_INFO}}}query" and not asked.get("node"):
        return [
            result(stanza, _disco_info("Hansa", (NS_DISCO_INFO, NS_DISCO_ITEMS, NS_MUC, NS_PING, NS_VCARD)))
        ]
    if asked.tag == f"{{{NS_DISCO_ITEMS}}}query" and not asked.get("node"):
        items = "".join(xml_element("item", jid=address, name=name) for address, name in rooms)
        return [result(stanza, xml_element("query", NS_DISCO_ITEMS, items))]
    return [result(stanza)] if asked.tag == f"{{{NS_PING}}}ping" else _refuse_iq(stanza, errors.UNAVAILABLE)


def to_room(
    stanza: Stanza, muc: Muc, view: RoomView
) -> Sequence[SendStanzas | GroupchatMessage | RoomChanges]:
    """Handles an IQ to a hosted room or one of its occupants."""
    asked = _iq_payload(stanza)
    if isinstance(asked, list):
        return asked
    if stanza.to.resource:
        return _to_occupant(stanza, asked, muc)
    if asked.tag == f"{{{NS_DISCO_INFO}}}query":
        return _room_info(stanza, asked, view)
    if asked.tag == f"{{{NS_DISCO_ITEMS}}}query":
        return [result(stanza, xml_element("query", NS_DISCO_ITEMS))]
    if asked.tag == f"{{{NS_PING}}}ping":
        return [result(stanza)]
    if asked.tag == f"{{{NS_MUC_OWNER}}}query":
        return handle_owner_query(stanza, asked, muc, view)
    if asked.tag == f"{{{NS_MUC_ADMIN}}}query":
        return handle_admin_query(stanza, asked, muc, view)
    if asked.tag in _MODERATING and stanza.type == "set":
        return _handle_moderation(stanza, asked, muc)
    if asked.tag == f"{{{NS_REGISTER}}}query":  # XEP-0045 section 7.10
        text = "nicks are not registered: everybody has the nick with which they enter"
        return _refuse_iq(stanza, errors.UNAVAILABLE, text)
    return _refuse_iq(stanza, errors.UNAVAILABLE)


def unknown_room(stanza: Stanza) -> list[SendStanzas]:
    """Answers a stanza to an address of this service where there is no room."""
    return _refuse_iq(stanza, errors.NOT_FOUND, "there is no such room")


def _iq_payload(stanza: Stanza) -> Element | list[SendStanzas]:
    """The one child of a get or set (RFC 6120 section 8.2.3), or the answer to what is none."""
    if stanza.type in {"result", "error"}:
        return []
    children = list(stanza.element)
    if stanza.type not in {"get", "set"} or len(children) != 1 or not stanza.id:
        return _refuse_iq(stanza, errors.BAD_REQUEST, "an iq has an id, a type and one child")
    if len(stanza.id.encode()) > MAX_ID:
        return _refuse_iq(replace(stanza, id=""), errors.BAD_REQUEST, f"the id has over {MAX_ID} bytes")
    return children[0]


def _to_occupant(stanza: Stanza, asked: Element, muc: Muc) -> Sequence[SendStanzas | GroupchatMessage]:
    """XEP-0410: the answer to a ping of oneself says whether one is still in the room."""
    here = muc.roster.by_session(stanza.sender.full)
    if here is None:
        return _refuse_iq(stanza, errors.NOT_ACCEPTABLE, "you are not in this room")
    if muc.roster.by_nick(stanza.to.resource) is None:
        return _refuse_iq(stanza, errors.NOT_FOUND, "no occupant has this nick")
    if asked.tag == f"{{{NS_PING}}}ping" and here.nick == stanza.to.resource:
        return [result(stanza)]
    return _refuse_iq(stanza, errors.UNAVAILABLE)


def _room_info(stanza: Stanza, asked: Element, view: RoomView) -> Sequence[SendStanzas | GroupchatMessage]:
    node = asked.get("node", "")
    if node == "x-roomuser-item":  # XEP-0045 section 7.12: no nick is registered here
        return [result(stanza, xml_element("query", NS_DISCO_INFO, node=node))]
    if node:
        return _refuse_iq(stanza, errors.NOT_FOUND)
    public = view.facts.join_rule == "public"
    shown = ("muc_open", "muc_public") if public else ("muc_membersonly", "muc_hidden")
    name = view.facts.name or stanza.to.local
    return [result(stanza, _disco_info(name, (*_ROOM_FEATURES, *shown), _RESTRICTIONS))]


def _disco_info(name: str, features: Iterable[str], form: str = "") -> str:
    inner = xml_element("identity", category="conference", type="text", name=name)
    inner += "".join(xml_element("feature", var=feature) for feature in sorted(features)) + form
    return xml_element("query", NS_DISCO_INFO, inner)


def _handle_moderation(stanza: Stanza, asked: Element, muc: Muc) -> Sequence[SendStanzas | GroupchatMessage]:
    """Handles a moderator's request (XEP-0425). The core or the room's authority decides who may."""
    if muc.roster.by_session(stanza.sender.full) is None:
        return _refuse_iq(stanza, errors.FORBIDDEN, "you are not in this room")
    try:
        request = parse_moderation(asked)
    except RemoteProtocolError as error:
        return _refuse_iq(stanza, errors.BAD_REQUEST, error.reason)
    if request is None:
        return _refuse_iq(stanza, errors.NOT_IMPLEMENTED, "moderators can only retract")
    return [GroupchatMessage(stanza, muc.user(stanza), None, about=request)]


def _refuse_iq(stanza: Stanza, condition: Condition, text: str = "") -> list[SendStanzas]:
    return [SendStanzas(tuple(errors.error_reply(stanza, condition, text)))]
