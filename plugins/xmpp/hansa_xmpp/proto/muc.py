"""A hosted MUC (XEP-0045) without I/O.

1. A stanza is parsed (``proto/parse.py``) and waits in its sender's queue (``stanza_handler.py``,
   ``user_queues.py``).
2. ``handle_stanza`` checks it and returns commands (``proto/commands.py``). An invalid stanza is answered
   with an error (``proto/errors.py``).
3. A change of the room is a request: ``JoinRequest``, ``NickChange`` or ``GroupchatMessage``. The caller
   submits it to the core (``stanza_handler.py``). The requested nick is reserved meanwhile
   (``proto/occupants.py``).
4. A refused request is answered with an error, and the reserved nick is released (``proto/errors.py``). No
   presence is sent for a request that may still be refused.
5. A granted join is stored (``occupant_store.py``). Then ``complete_join`` sends the presences, the history
   and the subject, in this order (``proto/broadcast.py``).
6. A message is shown when the log delivers it (``service.py``), by ``broadcast_event``, and not before.
7. A connection that leaves, or is found dead, is removed at once. A user whose last connection left, and is
   alive, leaves the room (``stanza_handler.py``). Who lost it stays a member (``absences.py``).
8. Where events did not tell of a change, ``sync_occupants`` makes the occupants those of the view
   (``service.py``).

SPEC: XEP-0045 section 7.2 (entering), 7.4 (speaking), 7.6 (renaming), 7.14 (leaving), 8.1 (subject).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

from hansa import (
    Content,
    EphemeralEvent,
    Event,
    JoinRule,
    LruCache,
    Member,
    Membership,
    Message,
    Name,
    NativeId,
    RemoteProtocolError,
    Retraction,
    Role,
    RoomMember,
    RoomView,
    Standing,
    Topic,
)

from hansa_xmpp.proto import broadcast, convert, errors, signal_xml
from hansa_xmpp.proto.broadcast import Broadcast, EventLinkOf, LeaveReason, no_link
from hansa_xmpp.proto.commands import (
    ChatState,
    Command,
    DisplayedMarker,
    GroupchatMessage,
    Ignored,
    JoinGrant,
    JoinRequest,
    NickChange,
    NickForced,
    PresenceUpdate,
    PrivateMessage,
    SendStanzas,
    SessionClosed,
    parse_history_request,
)
from hansa_xmpp.proto.errors import Condition
from hansa_xmpp.proto.mentions import with_mentions
from hansa_xmpp.proto.nick import nick_for
from hansa_xmpp.proto.occupants import Occupant, OccupantList
from hansa_xmpp.proto.presence_xml import OccupantPresence, parse_occupant_presence, parse_status
from hansa_xmpp.proto.render import OutboundStanza
from hansa_xmpp.proto.room_requests import approval_form, handle_room_request
from hansa_xmpp.proto.stanza import MAX_ID, NS_MUC, Stanza
from hansa_xmpp.proto.targeted import ReactionSet, Reply, RetractionRequest, parse_targeted

#: People who are looked at in one go, and invites whose senders are remembered.
_STEP, _MAX_INVITES = 200, 1000


class Muc:
    """One room. ``network`` is our own network's id: its people come by stanzas, all others by events."""

    def __init__(
        self,
        room: str,
        network: str,
        occupant_id: Callable[[NativeId], str],
        *,
        max_sessions: int,
        private_messages: bool = True,
        link_of: EventLinkOf = no_link,
    ) -> None:
        self.room = room
        self.private_messages = private_messages
        self.roster = OccupantList()
        self.network = network
        self._max_sessions = max_sessions
        self._say = Broadcast(room, network, occupant_id, link_of)
        #: The topic and the name that all who are here were shown; None where that is not known.
        self._topic: str | None = None
        self._name: str | None = None
        #: By invited person, who invited them.
        self._inviters: LruCache[NativeId, NativeId] = LruCache(_MAX_INVITES)

    def present(self, people: Iterable[NativeId], to: str) -> list[OutboundStanza]:
        """Shows some occupants as they are to one connection that is here."""
        here = self.roster.by_session(to)
        found = [self.roster.by_user(user) for user in people] if here is not None else []
        own = [broadcast.SELF]
        return [
            self._say.available_presence(who, [to], own if who is here else ())
            for who in found
            if who is not None
        ]

    def user(self, stanza: Stanza) -> NativeId:
        """The person who sent a stanza."""
        return NativeId(self.network, stanza.sender.bare)

    def handle_stanza(self, stanza: Stanza) -> list[Command]:
        """A message or presence to the room or one of its occupants."""
        if stanza.type == "error":
            if stanza.condition in errors.KICKABLE:
                codes = broadcast.KICKED, broadcast.SERVICE_ERROR
                return self.close_session(stanza.sender.full, *codes, lost=True)
            return [Ignored("error")]
        if len(stanza.id.encode()) > MAX_ID:
            return _refuse_stanza(
                replace(stanza, id=""), errors.BAD_REQUEST, f"the id has over {MAX_ID} bytes"
            )
        if stanza.kind == "message":
            return self._handle_message(stanza)
        if stanza.type == "unavailable":
            return self.close_session(stanza.sender.full, status=parse_status(stanza))
        if stanza.type:
            return [Ignored("presence type")]
        return self._handle_presence(stanza)

    def _handle_presence(self, stanza: Stanza) -> list[Command]:
        nick = stanza.to.resource
        user = self.user(stanza)
        here = self.roster.by_session(stanza.sender.full)
        x = stanza.child("x", NS_MUC)
        if not nick.strip():  # XEP-0045 section 17.1: nor one that nobody can see
            return _refuse_stanza(stanza, errors.JID_MALFORMED, "a nick is needed: room@service/nick")
        if not stanza.sender.resource:
            return _refuse_stanza(stanza, errors.BAD_REQUEST, "a room is entered from a full JID")
        if here is None and x is None:
            return _refuse_stanza(stanza, errors.NOT_ACCEPTABLE, "you are not in this room")
        if x is None and here is not None and here.nick == nick:
            return [PresenceUpdate(stanza, user, parse_occupant_presence(stanza))]
        if x is not None and here is None and len(self.roster) >= self._max_sessions:
            return _refuse_stanza(stanza, errors.ROOM_FULL, "the room is full")
        occupant = self.roster.by_user(user)
        if x is not None and occupant is not None and set(occupant.sessions) - {stanza.sender.full}:
            self.roster.reserve(user, occupant.nick)
            return [self._join_request(stanza, occupant.nick)]
        if not self.roster.is_nick_free(nick, user):
            return _refuse_stanza(stanza, errors.CONFLICT, "this nick is taken")
        self.roster.reserve(user, nick)
        return [NickChange(stanza, user, nick) if x is None else self._join_request(stanza, nick)]

    def _join_request(self, stanza: Stanza, nick: str) -> JoinRequest:
        history, presence = parse_history_request(stanza), parse_occupant_presence(stanza)
        return JoinRequest(stanza, self.user(stanza), nick, history, presence)

    def update_presence(
        self, user: NativeId, presence: OccupantPresence, full: str = ""
    ) -> list[OutboundStanza]:
        """Shows everybody what an occupant says of themselves, by the connection ``full``; nothing if that
        changes nothing. ``full`` is empty for a person of another network.
        """
        occupant = self.roster.by_user(user)
        if occupant is None or (full and full not in occupant.sessions):
            return []
        return self._announce_presence(occupant) if occupant.set_presence(full, presence) else []

    def _announce_presence(self, occupant: Occupant) -> list[OutboundStanza]:
        own, others = tuple(occupant.sessions), self._other_sessions(occupant.user)
        said = [self._say.available_presence(occupant, others)] if others else []
        return [*said, self._say.available_presence(occupant, own, [broadcast.SELF])] if own else said

    def forget_presence_texts(self) -> None:
        """Drops what people wrote into their presences, which policies of before let in."""
        for occupant in self.roster:
            occupant.presences = {full: one.without_texts for full, one in occupant.presences.items()}

    def _handle_message(self, stanza: Stanza) -> list[Command]:
        if stanza.type != "groupchat":
            return handle_room_request(stanza, self.room, self.network, self.roster)
        if self.roster.by_session(stanza.sender.full) is None:
            return _refuse_stanza(stanza, errors.NOT_ACCEPTABLE, "you are not in this room")
        if stanza.to.resource:
            return _refuse_stanza(stanza, errors.BAD_REQUEST, "a groupchat message goes to the room")
        for name in ("body", "subject"):
            if len((stanza.text_of(name) or "").encode()) > convert.MAX_TEXT:
                why = f"the {name} has over {convert.MAX_TEXT} bytes"
                return _refuse_stanza(stanza, errors.POLICY_VIOLATION, why)
        ids = convert.parse_ids(stanza)
        if len(ids.origin.encode()) > MAX_ID:
            return _refuse_stanza(stanza, errors.BAD_REQUEST, f"the origin-id has over {MAX_ID} bytes")
        try:
            about = parse_targeted(stanza)
        except RemoteProtocolError as error:
            return _refuse_stanza(stanza, errors.NOT_ACCEPTABLE, error.reason)
        if isinstance(about, ReactionSet | RetractionRequest):
            return [GroupchatMessage(stanza, self.user(stanza), None, ids, about)]
        content = convert.content_of(stanza, self.network)
        if content is None:
            return [self._signal_of(stanza) or Ignored("no words")]
        if isinstance(content, Message):
            content = with_mentions(content, stanza, self.network, self.room, self.roster)
        answer = None
        if isinstance(about, Reply):
            answer = convert.message_of(stanza, about.body, self.network)
            answer = with_mentions(answer, stanza, self.network, self.room, self.roster)
        return [GroupchatMessage(stanza, self.user(stanza), content, ids, about, answer)]

    def _signal_of(self, stanza: Stanza) -> ChatState | DisplayedMarker | None:
        if marked := signal_xml.parse_displayed(stanza):
            return DisplayedMarker(stanza, self.user(stanza), marked)
        state = signal_xml.parse_chat_state(stanza)
        return ChatState(stanza, self.user(stanza), state) if state else None

    def reflect_signal(self, signal: ChatState | DisplayedMarker) -> list[OutboundStanza]:
        """What an occupant signalled, for everybody."""
        if isinstance(signal, ChatState):
            inner = signal_xml.chat_state(signal.state)
        else:
            inner = signal_xml.displayed(signal.id)
        return self._signal_stanzas(signal.user, inner, signal.stanza.id)

    def show_signal(self, signal: EphemeralEvent, marked: str) -> list[OutboundStanza]:
        """What a person of another network signalled; ``marked`` is the id of the message that was read."""
        return self._signal_stanzas(signal.user, signal_xml.signal(signal, marked), "")

    def _signal_stanzas(self, user: NativeId, inner: str, id_: str) -> list[OutboundStanza]:
        occupant = self.roster.by_user(user)
        return [self._say.signal(occupant, inner, self.roster.session_jids(), id_)] if occupant else []

    def close_session(self, full: str, *codes: int, lost: bool = False, status: str = "") -> list[Command]:
        """A connection left, with a ``status`` perhaps, or was found dead (``lost``)."""
        occupant = self.roster.by_session(full)
        if occupant is None:
            return [Ignored("not here")]
        parting, before = LeaveReason(codes=codes, status=status), occupant.presence
        itself = self._say.unavailable_presence(occupant, [full], parting, [broadcast.SELF])
        self.roster.remove_session(full)
        last = not occupant.sessions
        stanzas = [itself]
        if last:
            stanzas.append(self._say.unavailable_presence(occupant, self.roster.session_jids(), parting))
        elif occupant.presence != before:
            stanzas += self._announce_presence(occupant)
        return [SendStanzas(tuple(stanzas)), SessionClosed(occupant.user, full, last, lost)]

    def close_sessions(self, fulls: Iterable[str]) -> list[Command]:
        """Connections that are gone and get nothing any more; the others are told of the people who left."""
        commands, left = list[Command](), list[Occupant]()
        for full in fulls:
            occupant = self.roster.remove_session(full)
            if occupant is not None:
                last = not occupant.sessions
                commands.append(SessionClosed(occupant.user, full, last, lost=True))
                if last:
                    left.append(occupant)
        parting = LeaveReason(codes=(broadcast.KICKED, broadcast.SERVICE_ERROR))
        to = self.roster.session_jids()
        return [SendStanzas(tuple(self._say.unavailable_presence(o, to, parting) for o in left)), *commands]

    def complete_join(
        self, enter: JoinRequest, admission: JoinGrant, view: RoomView
    ) -> Iterator[OutboundStanza]:
        """``enter`` is granted: everybody else, then themselves, then history, then the subject. It can be
        many stanzas: with the first they are in, the others are made as they are taken.
        """
        full, said = enter.stanza.sender.full, list[OutboundStanza]()
        self._say.members_only = view.facts.join_rule != "public"
        person = view.person(enter.user)
        occupant = self.roster.by_user(enter.user)
        if not len(self.roster):
            self._topic, self._name = admission.subject, view.facts.name
        if occupant is None:
            occupant = Occupant(enter.user, enter.nick, role=person.role if person else Role.MEMBER)
            self.roster.add(occupant)
            self.roster.add_session(occupant, full, admission.upto)
            occupant.set_presence(full, enter.presence)
            said.append(self._say.available_presence(occupant, self._other_sessions(enter.user)))
        else:
            said += self._announce_rename(occupant, enter.nick, "", ())
            if occupant.set_presence(full, enter.presence):
                said += self._announce_presence(occupant)
            self.roster.add_session(occupant, full, admission.upto)
        self.roster.release(enter.user)
        yield from said
        for other in self.roster:
            if self.roster.by_session(full) is None:
                return
            if other is not occupant and self.roster.by_user(other.user) is other:
                yield self._say.available_presence(other, [full])
        codes = [broadcast.SELF, broadcast.NON_ANONYMOUS, broadcast.LOGGED]
        if enter.stanza.to.resource != occupant.nick:
            codes.append(broadcast.RENAMED_BY_ROOM)
        yield self._say.available_presence(occupant, [full], codes)
        yield from self._history_stanzas(enter, admission)
        yield self._say.subject_message(admission.subject, [full])

    def _history_stanzas(self, enter: JoinRequest, admission: JoinGrant) -> list[OutboundStanza]:
        to, said = [enter.stanza.sender.full], list[OutboundStanza]()
        for past in admission.history:
            said.append(past.stanza.readdressed(to, self._say.delay_element(past.event)))
        if enter.history.chars is not None:
            left, first = enter.history.chars, len(said)
            while first and (left := left - sum(map(len, said[first - 1].texts()))) >= 0:
                first -= 1
            del said[:first]
        return said

    def echo_reactions(self, said: GroupchatMessage, reactions: ReactionSet) -> list[OutboundStanza]:
        """Reactions that change nothing, for who sent them."""
        here = self.roster.by_session(said.stanza.sender.full)
        return [self._say.echo_reactions(said.stanza, reactions, here.nick)] if here is not None else []

    def echo_command(self, said: GroupchatMessage) -> list[OutboundStanza]:
        """A command to the bridge, for who sent it."""
        here = self.roster.by_session(said.stanza.sender.full)
        return [self._say.echo_body(said.stanza, here.nick)] if here is not None else []

    def voice_request(self, asking: NativeId, full: str) -> list[OutboundStanza]:
        """Asks the moderators of our own network to give an occupant voice; nothing if none is here."""
        occupant = self.roster.by_user(asking)
        to = [full for one in self.roster if one.role >= Role.MODERATOR for full in one.sessions]
        return [self._say.room_message(approval_form(occupant, full), to)] if occupant and to else []

    def private_message(self, message: PrivateMessage, inner: str) -> list[OutboundStanza]:
        """A message of one occupant for another of our own network."""
        sender, target = self.roster.by_user(message.user), self.roster.by_user(message.target)
        if sender is None or target is None:
            return []
        return [self._say.private_message(sender, inner, tuple(target.sessions), message.stanza.id)]

    def reply_error(
        self, request: JoinRequest | NickChange | GroupchatMessage, condition: Condition, text: str
    ) -> list[OutboundStanza]:
        """``request`` did not happen: its error."""
        if not isinstance(request, GroupchatMessage):
            self.roster.release(request.user)
        return errors.error_reply(request.stanza, condition, text)

    def announce_nick(self, user: NativeId, nick: str, name: str = "") -> list[OutboundStanza]:
        """Announces an occupant's new nick (XEP-0045 section 7.6); nothing if it is the same."""
        occupant = self.roster.by_user(user)
        if occupant is None:
            return []
        return self._announce_rename(occupant, nick, name, tuple(occupant.sessions))

    def _announce_rename(
        self, occupant: Occupant, nick: str, name: str, own: tuple[str, ...], *codes: int
    ) -> list[OutboundStanza]:
        if (occupant.nick, occupant.name) == (nick, name):
            return []
        others, said = self._other_sessions(occupant.user), list[OutboundStanza]()
        if occupant.nick != nick:
            parting = LeaveReason(codes=(broadcast.NICK_CHANGED,), new_nick=nick)
            said += [
                self._say.unavailable_presence(occupant, others, parting),
                self._say.unavailable_presence(occupant, own, parting, [broadcast.SELF]),
            ]
        self.roster.remove(occupant.user)
        occupant.nick, occupant.name = nick, name
        self.roster.add(occupant)
        said.append(self._say.available_presence(occupant, others))
        said.append(self._say.available_presence(occupant, own, [broadcast.SELF, *codes]))
        return said

    def restore_session(self, user: NativeId, nick: str, full: str, upto: int) -> None:
        """A connection that is known from before; nothing is said of it."""
        occupant = self.roster.by_user(user)
        if occupant is None:
            occupant = Occupant(user, nick)
            self.roster.add(occupant)
        self.roster.add_session(occupant, full, upto)

    def sync_occupants(self, view: RoomView) -> Iterator[list[Command]]:
        """Make the people here those of the view, where events did not tell (a state that was found to
        differ, an event that is withheld, a name that was taken back, a start), some of them at a time.
        """
        self._say.members_only = view.facts.join_rule != "public"
        here = list(self.roster)
        for at in range(0, len(here), _STEP):
            yield [
                command
                for occupant in here[at : at + _STEP]
                for command in self._check_occupant(occupant, view)
            ]
        missing = [person for person in view.joined() if self._is_missing(person)]
        yield []
        missing.sort(key=lambda person: (person.user.network, person.user.id))
        yield []
        for at in range(0, len(missing), _STEP):
            said = list[OutboundStanza]()
            for person in missing[at : at + _STEP]:
                if view.membership(person.user) is Membership.JOIN:
                    said += self._upsert_puppet(person)
            yield [SendStanzas(tuple(said))]

    def _is_missing(self, person: RoomMember) -> bool:
        """True if a user of another network is not shown as they are."""
        if person.user.network == self.network:
            return False
        occupant = self.roster.by_user(person.user)
        return occupant is None or (occupant.name, occupant.role) != (person.name or "", person.role)

    def _check_occupant(self, occupant: Occupant, view: RoomView) -> list[Command]:
        person, user = view.person(occupant.user), occupant.user
        if self.roster.by_user(user) is not occupant:
            return []
        if user.network != self.network:
            if person is None or person.membership is not Membership.JOIN:
                return [SendStanzas(tuple(self._remove_occupant(occupant, LeaveReason())))]
            return []
        if person is None:
            return []
        if person.membership is Membership.JOIN:
            ranked = self._announce_rank(occupant, person.role)
            if person.name is None:
                nick = nick_for(user, None, lambda n: not self.roster.is_nick_free(n, user))
                occupant.taken = True
            elif occupant.taken and self.roster.is_nick_free(person.name, user):
                nick, occupant.taken = person.name, False
            else:
                return [SendStanzas(tuple(ranked))] if ranked else []
            said = self._announce_rename(
                occupant, nick, "", tuple(occupant.sessions), broadcast.RENAMED_BY_ROOM
            )
            return [SendStanzas((*ranked, *said)), *([NickForced(user, nick)] if said else [])]
        banned = person.membership is Membership.BAN
        sessions = tuple(occupant.sessions)
        code = broadcast.BANNED if banned else broadcast.KICKED
        out = self._remove_occupant(occupant, LeaveReason(codes=(code,), banned=banned))
        return [SendStanzas(tuple(out)), *(SessionClosed(user, full, False) for full in sessions)]

    def renewed(self, view: RoomView) -> list[OutboundStanza]:
        """The topic and the name, where everybody here was shown others."""
        to, said, facts = self.roster.session_jids(), list[OutboundStanza](), view.facts
        if self._topic != facts.topic:
            said.append(self._say.subject_message(facts.topic, to))
        if self._name != facts.name:
            said.append(self._say.config_changed(to))
        self._topic, self._name = facts.topic, facts.name
        return said if to else []

    def broadcast_event(
        self, event: Event, content: Content | ReactionSet, view: RoomView, target: Event | None = None
    ) -> list[Command]:
        """One event of the log, for everybody who was not given it as history; ``target`` is the message that
        it is about.
        """
        to = self.roster.session_jids(event.seq)
        match content:
            case Member():
                return self._broadcast_member(event, content, view)
            case Topic(text=text):
                sender = self.roster.by_user(event.sender)
                ids = convert.stanza_ids_of(event.origin.id)
                nick = sender.nick if sender else ""
                said = [self._say.subject_message(text, to, nick=nick, id_=ids.id or event.id)]
                self._topic = text
            case Name(text=text):
                said = [self._say.config_changed(to)]
                self._name = text
            case Standing(user=user):
                occupant, person = self.roster.by_user(user), view.person(user)
                said = self._announce_rank(occupant, person.role) if occupant and person else []
            case JoinRule(rule=rule):
                said = [self._say.config_changed(to)]
                self._say.members_only = rule != "public"
            case _:
                said = self._present_speaker(event.sender, view)
                nicks = partial(self.nick_of, view=view)
                if (message := self._say.event_message(event, content, target, nicks, to)) is not None:
                    said.append(message)
        return [SendStanzas(tuple(said))]

    def message_inner(
        self, event: Event, content: Content, target: Event | None, view: RoomView
    ) -> str | None:
        """The children of the message that shows ``content``, None where there is nothing to show."""
        return self._say.message_inner(event, content, target, partial(self.nick_of, view=view))

    def message_with(self, event: Event, inner: str, view: RoomView) -> OutboundStanza:
        """The message of an event, with these children and without an address."""
        return self._say.groupchat_message(event, inner, self.nick_of(event.sender, view), ())

    def past_message(
        self, event: Event, content: Content | ReactionSet, target: Event | None, view: RoomView
    ) -> OutboundStanza | None:
        """What showed an event, without an address; None where nothing did. ``target`` is the message that it
        is about.
        """
        if isinstance(content, Topic):
            return self.message_with(event, self._say.subject_element(content.text), view)
        return self._say.event_message(event, content, target, partial(self.nick_of, view=view), ())

    def tombstone(
        self, event: Event, retraction: Event, content: Retraction, view: RoomView
    ) -> OutboundStanza:
        """What is left of a message that was retracted, without an address."""
        nick = partial(self.nick_of, view=view)
        return self._say.tombstone(event, retraction, content, nick)

    def nick_of(self, user: NativeId, view: RoomView) -> str:
        """The nick under which a person is known."""
        occupant, person = self.roster.by_user(user), view.person(user)
        if occupant is not None:
            return occupant.nick
        name = person.name if person else None
        return nick_for(user, name, lambda n: not self.roster.is_nick_free(n, user))

    def _present_speaker(self, user: NativeId, view: RoomView) -> list[OutboundStanza]:
        person = view.person(user)
        known = user.network == self.network or self.roster.by_user(user) is not None
        if known or person is None or person.membership is not Membership.JOIN:
            return []
        return self._upsert_puppet(person)

    def _broadcast_member(self, event: Event, content: Member, view: RoomView) -> list[Command]:
        person, occupant = view.person(content.user), self.roster.by_user(content.user)
        joined = content.membership is Membership.JOIN
        if content.membership is Membership.INVITE:
            self._inviters.put(content.user, event.sender)
        elif content.former_membership is Membership.INVITE and event.sender == content.user and not joined:
            return [SendStanzas(tuple(self._decline_stanzas(content)))]
        if content.user.network != self.network:
            if joined:
                role = person.role if person else Role.MEMBER
                shown = RoomMember(
                    user=content.user, membership=Membership.JOIN, name=content.name, role=role
                )
                return [SendStanzas(tuple(self._upsert_puppet(shown)))]
            return (
                [SendStanzas(tuple(self._remove_occupant(occupant, self._leave_reason(event, content))))]
                if occupant
                else []
            )
        if content.membership is Membership.INVITE and occupant is None:
            sender = self.roster.by_user(event.sender)
            return [SendStanzas((self._say.invite(content, sender.nick if sender else ""),))]
        # A leave of a local user that a later join has undone, or that they sent themselves, is done.
        still = person is not None and person.membership is Membership.JOIN
        if occupant is None or joined or still or event.sender == content.user:
            return []
        sessions = tuple(occupant.sessions)
        said = self._remove_occupant(occupant, self._leave_reason(event, content))
        return [SendStanzas(tuple(said)), *(SessionClosed(content.user, full, False) for full in sessions)]

    def _decline_stanzas(self, content: Member) -> list[OutboundStanza]:
        inviter = self._inviters.get(content.user)
        if inviter is None or inviter.network != self.network:
            return []
        return [self._say.decline(content, inviter)]

    def _leave_reason(self, event: Event, content: Member) -> LeaveReason:
        actor = self.roster.by_user(event.sender)
        banned = content.membership is Membership.BAN
        if not banned and event.sender == content.user:
            return LeaveReason(reason=content.reason)
        codes: tuple[int, ...] = (broadcast.BANNED if banned else broadcast.KICKED,)
        if not banned and self._say.members_only:  # a removal ends the membership
            codes += (broadcast.REMOVED_BY_AFFILIATION,)
        nick = actor.nick if actor else ""
        return LeaveReason(codes=codes, actor=nick, reason=content.reason, banned=banned)

    def _upsert_puppet(self, person: RoomMember) -> list[OutboundStanza]:
        """Shows a user of another network, perhaps under a new name."""
        name, occupant = person.name or "", self.roster.by_user(person.user)
        if occupant is not None and occupant.name == name:
            return self._announce_rank(occupant, person.role)
        nick = nick_for(person.user, person.name, lambda n: not self.roster.is_nick_free(n, person.user))
        if occupant is not None:
            return self.announce_nick(person.user, nick, name)
        occupant = Occupant(person.user, nick, name, person.role)
        self.roster.add(occupant)
        return [self._say.available_presence(occupant, self.roster.session_jids())]

    def _announce_rank(self, occupant: Occupant, role: Role) -> list[OutboundStanza]:
        """Shows everybody another rank of an occupant (XEP-0045 sections 8.3 to 9.8)."""
        if occupant.role is role:
            return []
        occupant.role = role
        return self._announce_presence(occupant)

    def _remove_occupant(self, occupant: Occupant, parting: LeaveReason) -> list[OutboundStanza]:
        own, others = tuple(occupant.sessions), self._other_sessions(occupant.user)
        said = [self._say.unavailable_presence(occupant, others, parting)]
        if own:
            said.append(self._say.unavailable_presence(occupant, own, parting, [broadcast.SELF]))
        self.roster.remove(occupant.user)
        return said

    def _other_sessions(self, user: NativeId) -> tuple[str, ...]:
        own = self.roster.by_user(user)
        return tuple(f for f in self.roster.session_jids() if own is None or f not in own.sessions)


def _refuse_stanza(stanza: Stanza, condition: Condition, text: str) -> list[Command]:
    return [SendStanzas(tuple(errors.error_reply(stanza, condition, text)))]
