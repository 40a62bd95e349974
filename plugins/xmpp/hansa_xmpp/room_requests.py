"""What occupants ask of a room beside speaking: voice, a private message to one occupant; and what people
outside of it do: decline an invite, invite a person of another network directly.

SPEC: XEP-0045 sections 7.5, 7.8.2, 7.13 and 8.6; XEP-0249 section 2.
"""

from __future__ import annotations

from dataclasses import replace

from hansa import (
    Content,
    Member,
    Membership,
    NativeId,
    NetworkContext,
    StoreFault,
    ToDevice,
    TokenBuckets,
)
from slixmpp.jid import JID

from hansa_xmpp.direct_chats import DirectChats
from hansa_xmpp.proto import convert, errors, jid
from hansa_xmpp.proto.commands import InviteDecline, PrivateMessage, VoiceRequest
from hansa_xmpp.proto.errors import Condition, StanzaRefusal
from hansa_xmpp.proto.payload import MAX_PAYLOAD, children_xml, kept_children
from hansa_xmpp.proto.room_requests import DirectInvite
from hansa_xmpp.proto.stanza import MAX_ID, Stanza
from hansa_xmpp.service import HostedRoom, MucService
from hansa_xmpp.submissions import ItemSubmitter, find_person, make_submission, with_policy_texts

#: Requests for voice of one person in one room, and of all in one room: per second, and at once.
_VOICE_RATE, _MAX_VOICE, _ROOM_VOICE_RATE, _MAX_ROOM_VOICE = 1 / 60, 2.0, 0.5, 10.0
#: Private messages of one person to people of XMPP: per second, and at once.
_PRIVATE_RATE, _MAX_PRIVATE = 2.0, 30.0
_NO_MODERATOR = Condition("wait", "recipient-unavailable")


class RoomRequests:
    """Handles the requests of one component's people."""

    def __init__(
        self,
        ctx: NetworkContext,
        service: MucService,
        chats: DirectChats,
        submitter: ItemSubmitter,
    ) -> None:
        self._ctx = ctx
        self._service = service
        self._chats = chats
        self._submitter = submitter
        self._voice = TokenBuckets(ctx.clock, _VOICE_RATE, _MAX_VOICE)
        self._voice_of_room = TokenBuckets(ctx.clock, _ROOM_VOICE_RATE, _MAX_ROOM_VOICE)
        self._private = TokenBuckets(ctx.clock, _PRIVATE_RATE, _MAX_PRIVATE)

    async def handle(
        self, native: str, room: HostedRoom, request: InviteDecline | VoiceRequest | PrivateMessage
    ) -> None:
        """Handles a request in a hosted room. What is refused is answered with an error."""
        try:
            match request:
                case InviteDecline():
                    refused = await self._decline_invite(native, request)
                case VoiceRequest():
                    refused = self._request_voice(room, request)
                case PrivateMessage():
                    refused = await self._send_private(room, request)
        except StoreFault:
            refused = errors.STORE_FAULT
        self._answer(request.stanza, refused)

    async def invite_directly(self, stanza: Stanza, invite: DirectInvite) -> None:
        """Invites the person of a puppet to a hosted room, as a mediated invite of the same sender does."""
        try:
            refused = await self._invite_person(stanza, invite)
        except StoreFault:
            refused = errors.STORE_FAULT
        self._answer(stanza, refused)

    async def _invite_person(self, stanza: Stanza, invite: DirectInvite) -> StanzaRefusal | None:
        if len(stanza.id.encode()) > MAX_ID:
            return errors.BAD_REQUEST, f"the id has over {MAX_ID} bytes"
        if self._service.room(invite.room) is None:
            return errors.NOT_ACCEPTABLE, "people of other networks are invited to rooms of this service only"
        puppet = stanza.to.bare
        other = await find_person(self._ctx, puppet)
        if other.network == self._ctx.id:
            return errors.NOT_FOUND, "nobody has this address"
        sender = NativeId(self._ctx.id, stanza.sender.bare)
        content = Member(user=other, membership=Membership.INVITE, reason=invite.reason)
        return await self._submit(invite.room, sender, content, stanza)

    async def _decline_invite(self, native: str, decline: InviteDecline) -> StanzaRefusal | None:
        if self._service.view(native).membership(decline.user) is not Membership.INVITE:
            return errors.NOT_ACCEPTABLE, "you are not invited to this room"
        content = Member(user=decline.user, membership=Membership.LEAVE, reason=decline.reason)
        return await self._submit(native, decline.user, content, decline.stanza)

    async def _submit(
        self, native: str, user: NativeId, content: Content, stanza: Stanza
    ) -> StanzaRefusal | None:
        asked = with_policy_texts(self._ctx, make_submission(self._ctx, native, user, content), stanza)
        return await self._submitter.submit_one(asked, policy=errors.FORBIDDEN)  # of persons, not of words

    def _request_voice(self, room: HostedRoom, request: VoiceRequest) -> StanzaRefusal | None:
        if self._voice.take(f"{room.muc.room} {request.user}") or self._voice_of_room.take(room.muc.room):
            return errors.RESOURCE_CONSTRAINT, "the moderators were asked already; wait for their answer"
        asked = room.muc.voice_request(request.user, request.stanza.sender.full)
        if not asked:
            return _NO_MODERATOR, "no moderator is here who could be asked; try again later"
        self._service.send_stanzas(asked)
        return None

    async def _send_private(self, room: HostedRoom, message: PrivateMessage) -> StanzaRefusal | None:
        if not self._ctx.config.private_messages:
            return errors.NOT_ALLOWED, "private messages are turned off on this service"
        if message.target.network != self._ctx.id:
            puppet = JID(await self._ctx.get_ghost_id(message.target))
            return await self._chats.submit_message(replace(message.stanza, to=puppet))
        if self._private.take(message.user.id):
            return errors.RESOURCE_CONSTRAINT, "too many private messages; try again later"
        stanza = message.stanza
        inner = children_xml(kept_children(stanza, whole=True), stanza.namespace)
        if len(inner.encode()) > MAX_PAYLOAD:
            return errors.POLICY_VIOLATION, f"the message has over {MAX_PAYLOAD} bytes"
        if self._ctx.has_policies:
            verdict = await self._ctx.check(
                ToDevice(
                    network=self._ctx.id,
                    sender=message.user,
                    sender_server=jid.domain_of(message.user.id),
                    users=(message.target,),
                    servers=frozenset({jid.domain_of(message.target.id)}),
                    type="private message",
                    texts=tuple(convert.texts_of(stanza)),
                )
            )
            if not verdict.allowed:
                return errors.POLICY_VIOLATION, verdict.text
        self._service.send_stanzas(room.muc.private_message(message, inner))
        return None

    def _answer(self, stanza: Stanza, refused: StanzaRefusal | None) -> None:
        if refused is not None:
            self._service.refuse_stanza(stanza, *refused)
