"""The stanzas that a hosted MUC sends: presences, messages, subjects.

SPEC: XEP-0045 section 7.2 (presences, history, subject), 7.4 (messages), 7.6 (nicks), 7.14 (exits); ids as in
XEP-0359 section 2.1 and XEP-0421 section 3; delays as in XEP-0203 section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hansa import Attachment, Content, Event, Kind, Member, NativeId, Retraction, Role

from hansa_xmpp.proto import convert, jid, render
from hansa_xmpp.proto.archive_xml import tombstone_xml
from hansa_xmpp.proto.convert import StanzaIds
from hansa_xmpp.proto.message_xml import NickOf, message_xml, shown_id
from hansa_xmpp.proto.occupants import Occupant
from hansa_xmpp.proto.presence_xml import status_xml
from hansa_xmpp.proto.render import OutboundStanza, xml_element
from hansa_xmpp.proto.stanza import NS_DELAY, NS_MUC_USER, NS_NICK, NS_OCCUPANT_ID, NS_SID, Stanza
from hansa_xmpp.proto.targeted import ReactionSet, reactions_xml, retraction_xml

#: Status codes of XEP-0045 section 15.6.2.
NON_ANONYMOUS, CONFIGURED, SELF, LOGGED, RENAMED_BY_ROOM = 100, 104, 110, 170, 210
BANNED, NICK_CHANGED, KICKED, SERVICE_ERROR = 301, 303, 307, 333

REMOVED_BY_AFFILIATION = 321

_STANDING = {
    Role.OWNER: ("owner", "moderator"),
    Role.MODERATOR: ("admin", "moderator"),
    Role.MEMBER: ("none", "participant"),
    Role.VISITOR: ("none", "visitor"),
    Role.NONE: ("none", "participant"),
}


def standing_of(role: Role, *, members_only: bool) -> tuple[str, str]:
    """The affiliation and role of an occupant. In a members-only room every occupant is a member."""
    affiliation, shown = _STANDING[role]
    return ("member" if members_only and affiliation == "none" else affiliation), shown


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveReason:
    """The reason why an occupant left: status codes, the actor (a nick) and the text, and the status of
    an occupant who left by themselves.
    """

    codes: tuple[int, ...] = ()
    actor: str = ""
    reason: str = ""
    status: str = ""
    new_nick: str = ""
    banned: bool = False


#: Returns a URL at which a file of the event with an id can be read, empty if there is none.
EventLinkOf = Callable[[Attachment, str], str]


def no_link(file: Attachment, event_id: str) -> str:  # noqa: ARG001
    """No file can be read anywhere."""
    return ""


class Broadcast:
    """Makes a room's stanzas. ``occupant_id`` is XEP-0421's: the same person, the same id, for ever."""

    def __init__(
        self, room: str, network: str, occupant_id: Callable[[NativeId], str], link_of: EventLinkOf
    ) -> None:
        self.room = room
        self.link_of = link_of
        #: True while only people who are invited may enter.
        self.members_only = False
        self._network = network
        self._occupant_id = occupant_id

    def available_presence(
        self, who: Occupant, to: Iterable[str], codes: Iterable[int] = ()
    ) -> OutboundStanza:
        """``who`` is here."""
        affiliation, role = standing_of(who.role, members_only=self.members_only)
        item = xml_element("item", affiliation=affiliation, role=role, jid=self._item_jid(who))
        inner = self._muc_user_element(item, codes) + self._occupant_id_element(who.user)
        if who.name and who.name != who.nick:
            inner += xml_element("nick", NS_NICK, render.xml_text(who.name))
        inner = who.presence.xml + inner
        return render.stanza("presence", f"{self.room}/{who.nick}", to, inner)

    def unavailable_presence(
        self, who: Occupant, to: Iterable[str], parting: LeaveReason, codes: Iterable[int] = ()
    ) -> OutboundStanza:
        """``who`` is not here (under this nick) any more."""
        affiliation, role = standing_of(who.role, members_only=self.members_only)
        inner = xml_element("actor", nick=parting.actor) if parting.actor else ""
        if parting.reason:
            inner += xml_element("reason", "", render.xml_text(parting.reason))
        item = xml_element(
            "item",
            "",
            inner,
            affiliation="outcast" if parting.banned else affiliation,
            role=role if parting.new_nick else "none",
            nick=parting.new_nick,
        )
        x = self._muc_user_element(item, (*parting.codes, *codes)) + self._occupant_id_element(who.user)
        x = status_xml(parting.status) + x
        return render.stanza("presence", f"{self.room}/{who.nick}", to, x, type_="unavailable")

    def event_message(
        self,
        event: Event,
        content: Content | ReactionSet,
        target: Event | None,
        nick_of: NickOf,
        to: Iterable[str],
    ) -> OutboundStanza | None:
        """Shows ``content``, the event's own or what stands for it; None where there is nothing to show.
        ``target`` is the message that it is about.
        """
        if isinstance(content, ReactionSet):
            owner = content.owner or event.sender
            return self.groupchat_message(event, reactions_xml(content), nick_of(owner), to, sender=owner)
        if isinstance(content, Retraction):
            return self._retraction(event, content, target, nick_of, to)
        inner = self.message_inner(event, content, target, nick_of)
        # Another person may have retracted the last correction of a message: its sender says what it is now.
        edited = target if content.kind is Kind.EDIT else None
        sender = event.sender if edited is None else edited.sender
        if inner is None:
            return None
        return self.groupchat_message(event, inner, nick_of(sender), to, sender=sender)

    def message_inner(
        self, event: Event, content: Content, target: Event | None, nick_of: NickOf
    ) -> str | None:
        """The children of the message that shows ``content``: see ``message_xml``."""
        return message_xml(
            event,
            content,
            target,
            room=self.room,
            network=self._network,
            nick_of=nick_of,
            link_of=lambda file: self.link_of(file, event.id.partition(".")[0]),
        )

    def echo_reactions(self, said: Stanza, reactions: ReactionSet, nick: str) -> OutboundStanza:
        """A set of reactions for the occupant who sent it."""
        inner, to = reactions_xml(reactions), [said.sender.full]
        return render.stanza("message", f"{self.room}/{nick}", to, inner, type_="groupchat", id_=said.id)

    def echo_body(self, said: Stanza, nick: str) -> OutboundStanza:
        """The words of a message for the occupant who sent it."""
        inner = render.xml_element("body", "", render.xml_text(said.text_of("body") or ""))
        sender, to = f"{self.room}/{nick}", [said.sender.full]
        return render.stanza("message", sender, to, inner, type_="groupchat", id_=said.id)

    def signal(self, who: Occupant, inner: str, to: Iterable[str], id_: str) -> OutboundStanza:
        """What an occupant does, which is not kept."""
        inner += self._occupant_id_element(who.user)
        return render.stanza("message", f"{self.room}/{who.nick}", to, inner, type_="groupchat", id_=id_)

    def _retraction(
        self, event: Event, content: Retraction, target: Event | None, nick_of: NickOf, to: Iterable[str]
    ) -> OutboundStanza | None:
        if target is None:
            return None
        if target.sender == event.sender:
            inner = retraction_xml(target.id, content.reason)
            return self.groupchat_message(event, inner, nick_of(event.sender), to)
        moderator = f"{self.room}/{nick_of(event.sender)}"
        occupant = self._occupant_id(event.sender)
        inner = retraction_xml(target.id, content.reason, moderator=moderator, occupant=occupant)
        return render.stanza("message", self.room, to, inner, type_="groupchat", id_=event.id)

    def tombstone(
        self, event: Event, retraction: Event, content: Retraction, nick_of: NickOf
    ) -> OutboundStanza:
        """A message that was retracted, without an address: see ``tombstone_xml``."""
        moderator, told = "", shown_id(retraction, self._network)
        if retraction.sender != event.sender:
            moderator, told = f"{self.room}/{nick_of(retraction.sender)}", retraction.id
        occupant = self._occupant_id(retraction.sender)
        inner = tombstone_xml(retraction, content, told, moderator, occupant)
        return self.groupchat_message(event, inner, nick_of(event.sender), ())

    def groupchat_message(
        self,
        event: Event,
        inner: str,
        nick: str,
        to: Iterable[str],
        *,
        sender: NativeId | None = None,
    ) -> OutboundStanza:
        """A message of the log; ``inner`` is its elements, as XML. It carries the id its sender gave it, or
        the event's, and the event's id as the room's stable id (XEP-0359). ``sender`` is the event's where
        it is not given.
        """
        ids = StanzaIds()
        if event.origin.network == self._network:
            ids = convert.stanza_ids_of(event.origin.id)
        inner += xml_element("stanza-id", NS_SID, id=event.id, by=self.room)
        inner += self._occupant_id_element(sender or event.sender)
        if ids.origin:
            inner += xml_element("origin-id", NS_SID, id=ids.origin)
        said_by = f"{self.room}/{nick}"
        return render.stanza("message", said_by, to, inner, type_="groupchat", id_=ids.id or event.id)

    def delay_element(self, event: Event) -> str:
        """When the room got an event."""
        stamp = convert.format_timestamp(event.received)
        return xml_element("delay", NS_DELAY, stamp=stamp, **{"from": self.room})

    @staticmethod
    def subject_element(text: str) -> str:
        """The subject, also when it is empty."""
        return f"<subject>{render.xml_text(text)}</subject>"

    def subject_message(
        self, text: str, to: Iterable[str], *, nick: str = "", id_: str = ""
    ) -> OutboundStanza:
        """The subject, also when it is empty."""
        sender = f"{self.room}/{nick}" if nick else self.room
        return render.stanza("message", sender, to, self.subject_element(text), type_="groupchat", id_=id_)

    def invite(self, content: Member, nick: str) -> OutboundStanza:
        """A mediated invite (XEP-0045 section 7.8.2) to one of our own network's people, by an occupant."""
        reason = xml_element("reason", "", render.xml_text(content.reason)) if content.reason else ""
        sender = f"{self.room}/{nick}" if nick else self.room
        inner = xml_element("x", NS_MUC_USER, xml_element("invite", "", reason, **{"from": sender}))
        return render.stanza("message", self.room, [content.user.id], inner)

    def decline(self, content: Member, inviter: NativeId) -> OutboundStanza:
        """The decline of an invite (XEP-0045 section 7.8.2), for the one of our own network who sent it."""
        reason = xml_element("reason", "", render.xml_text(content.reason)) if content.reason else ""
        sender = jid.address_of(content.user, self._network, jid.domain_of(self.room))
        inner = xml_element("x", NS_MUC_USER, xml_element("decline", "", reason, **{"from": sender}))
        return render.stanza("message", self.room, [inviter.id], inner)

    def room_message(self, inner: str, to: Iterable[str]) -> OutboundStanza:
        """A message of the room itself to some connections."""
        return render.stanza("message", self.room, to, inner)

    def private_message(self, who: Occupant, inner: str, to: Iterable[str], id_: str) -> OutboundStanza:
        """A message of an occupant to another one (XEP-0045 section 7.5)."""
        inner += xml_element("x", NS_MUC_USER) + self._occupant_id_element(who.user)
        return render.stanza("message", f"{self.room}/{who.nick}", to, inner, type_="chat", id_=id_)

    def config_changed(self, to: Iterable[str]) -> OutboundStanza:
        """The room's name changed: clients ask for it again (XEP-0045 section 10.2)."""
        return render.stanza(
            "message", self.room, to, self._muc_user_element("", [CONFIGURED]), type_="groupchat"
        )

    def _item_jid(self, who: Occupant) -> str:
        if who.sessions:
            return next(iter(who.sessions))
        return jid.puppet(who.user, jid.domain_of(self.room))

    def _muc_user_element(self, item: str, codes: Iterable[int]) -> str:
        return xml_element(
            "x", NS_MUC_USER, item + "".join(xml_element("status", code=str(c)) for c in codes)
        )

    def _occupant_id_element(self, user: NativeId) -> str:
        return xml_element("occupant-id", NS_OCCUPANT_ID, id=self._occupant_id(user))
