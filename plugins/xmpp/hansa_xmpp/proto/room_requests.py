"""Messages to a room that are not for everybody in it: invites and declines, requests for voice and their
approval, and private messages to one occupant. Parses them and returns commands.

SPEC: XEP-0045 section 7.5 (private messages), 7.8.2 (mediated invites, declines), 7.13 (requests for voice)
and 8.6 (approving them); XEP-0249 section 2 (direct invitations).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from hansa import Member, Membership, NativeId, Role, Standing, truncate_utf8
from slixmpp.jid import JID, InvalidJID

from hansa_xmpp.proto import errors, jid
from hansa_xmpp.proto.commands import (
    Command,
    GroupchatMessage,
    Ignored,
    InviteDecline,
    PrivateMessage,
    RoomChanges,
    SendStanzas,
    VoiceRequest,
)
from hansa_xmpp.proto.convert import parse_invite
from hansa_xmpp.proto.errors import Condition
from hansa_xmpp.proto.occupants import Occupant, OccupantList
from hansa_xmpp.proto.render import xml_element, xml_text
from hansa_xmpp.proto.stanza import NS_CONFERENCE, NS_DATA_FORM, NS_MUC_REQUEST, NS_MUC_USER, Stanza

#: The longest reason of an invite or a decline (bytes), and the fields of a form that are read.
_MAX_REASON, _MAX_FIELDS = 1024, 20
_YES = frozenset({"1", "true"})


@dataclass(frozen=True, slots=True)
class DirectInvite:
    """The room of a direct invitation, as a bare JID, and the reason given."""

    room: str
    reason: str


def parse_direct_invite(stanza: Stanza) -> DirectInvite | None:
    """The direct invitation in a message to a person (XEP-0249 section 2); None where there is none, or where
    it names no room.
    """
    x = stanza.child("x", NS_CONFERENCE)
    if x is None or stanza.type in {"error", "groupchat"}:
        return None
    try:
        room = JID(x.get("jid", ""))
    except InvalidJID:
        return None
    return DirectInvite(room.bare, truncate_utf8(x.get("reason", ""), _MAX_REASON)) if room.local else None


def handle_room_request(stanza: Stanza, room: str, network: str, roster: OccupantList) -> list[Command]:
    """Handles a message to a room or an occupant whose type is not ``groupchat``."""
    user = NativeId(network, stanza.sender.bare)
    decline = _muc_user_child(stanza, "decline")
    if decline is not None and not stanza.to.resource:  # who declines is not in the room
        reason = truncate_utf8(decline.findtext(f"{{{NS_MUC_USER}}}reason") or "", _MAX_REASON)
        return [InviteDecline(stanza, user, reason)]
    occupant = roster.by_session(stanza.sender.full)
    if occupant is None:
        return _refuse(stanza, errors.NOT_ACCEPTABLE, "you are not in this room")
    if stanza.to.resource:
        return _private_message(stanza, occupant, roster)
    if stanza.type in {"", "normal"}:
        if (invite := parse_invite(stanza)) is not None:
            invited = jid.person(invite.user, jid.domain_of(room)) or NativeId(network, invite.user)
            member = Member(user=invited, membership=Membership.INVITE, reason=invite.reason)
            return [GroupchatMessage(stanza, user, member)]
        fields = _request_fields(stanza)
        if fields is not None:
            return _handle_voice(stanza, occupant, fields, roster)
    text = "this message is for nobody: messages to the room have the type groupchat"
    return _refuse(stanza, errors.NOT_IMPLEMENTED, text)


def _private_message(stanza: Stanza, sender: Occupant, roster: OccupantList) -> list[Command]:
    if stanza.type not in {"", "normal", "chat"}:
        return _refuse(stanza, errors.BAD_REQUEST, "a private message has the type chat")
    target = roster.by_nick(stanza.to.resource)
    if target is None:
        return _refuse(stanza, errors.NOT_FOUND, "no occupant has this nick")
    if sender.role <= Role.VISITOR and target.role < Role.MODERATOR:
        return _refuse(stanza, errors.FORBIDDEN, "without voice you can write to moderators only")
    return [PrivateMessage(stanza, sender.user, target.user)]


def _handle_voice(
    stanza: Stanza, occupant: Occupant, fields: Mapping[str, str], roster: OccupantList
) -> list[Command]:
    """A request for voice, or a moderator's approval of one; the room's authority decides who may."""
    if fields.get("muc#role") != "participant":
        return _refuse(stanza, errors.BAD_REQUEST, "only the role participant can be asked for")
    if "muc#request_allow" not in fields:
        if occupant.role > Role.VISITOR:
            return _refuse(stanza, errors.NOT_ACCEPTABLE, "you have voice")
        return [VoiceRequest(stanza, occupant.user)]
    if fields["muc#request_allow"] not in _YES:
        return [Ignored("voice not granted")]
    target = roster.by_nick(fields.get("muc#roomnick", ""))
    if target is None or not _is_address_of(fields.get("muc#jid", ""), target):
        return _refuse(stanza, errors.NOT_FOUND, "this person is not in the room under this nick any more")
    if target.role > Role.VISITOR:
        return [Ignored("has voice")]
    granted = Standing(user=target.user, role=Role.MEMBER, voice=True)
    return [RoomChanges(stanza, occupant.user, (granted,))]


def _is_address_of(address: str, occupant: Occupant) -> bool:
    try:
        return JID(address).bare == occupant.user.id
    except InvalidJID:
        return False


def approval_form(asking: Occupant, full: str) -> str:
    """The form by which moderators give ``asking`` voice; ``full`` is the full JID that asked."""
    inner = xml_element("title", "", "Request for voice")
    text = "Submit the form with the last field set to let this person speak. Cancel it to do nothing."
    inner += xml_element("instructions", "", text)
    inner += _field("FORM_TYPE", "hidden", "", NS_MUC_REQUEST)
    inner += _field("muc#role", "list-single", "Requested role", "participant")
    inner += _field("muc#jid", "jid-single", "Address", full)
    inner += _field("muc#roomnick", "text-single", "Nick", asking.nick)
    inner += _field("muc#request_allow", "boolean", "Let this person speak", "false")
    return xml_element("x", NS_DATA_FORM, inner, type="form")


def _field(var: str, type_: str, label: str, value: str) -> str:
    inner = xml_element("value", "", xml_text(value))
    if type_ == "list-single":
        inner += xml_element("option", "", inner)
    return xml_element("field", "", inner, var=var, type=type_, label=label)


def _request_fields(stanza: Stanza) -> Mapping[str, str] | None:
    """The fields of a submitted form of the type ``muc#request``; None where there is no such form."""
    form = stanza.child("x", NS_DATA_FORM)
    if form is None or form.get("type") != "submit":
        return None
    found = form.findall(f"{{{NS_DATA_FORM}}}field")[:_MAX_FIELDS]
    fields = {e.get("var", ""): (e.findtext(f"{{{NS_DATA_FORM}}}value") or "").strip() for e in found}
    return fields if fields.get("FORM_TYPE") == NS_MUC_REQUEST else None


def _muc_user_child(stanza: Stanza, name: str) -> Element | None:
    x = stanza.child("x", NS_MUC_USER)
    return None if x is None else x.find(f"{{{NS_MUC_USER}}}{name}")


def _refuse(stanza: Stanza, condition: Condition, text: str) -> list[Command]:
    return [SendStanzas(tuple(errors.error_reply(stanza, condition, text)))]
