"""The requirements of a local event before it enters its room: accounts, and signatures of other servers."""

from __future__ import annotations

from hansa import Link, LocalProtocolError, Member, NativeId, Refusal, RefusalCode, Submission
from hansa import Membership as Standing

from hansa_matrix.conversion.to_matrix import EventDraft
from hansa_matrix.federation.client import RemoteError, ServerUnreachable
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import CREATE_KEY, MEMBER
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.state_content import is_federated
from hansa_matrix.rooms.inbound.policy_server import PolicyServerClient
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.membership.send_invite import OutboundInvites
from hansa_matrix.rooms.native_events import JoinThenSend, ReceivedPdu


class Countersigning:
    """Asks before an event enters its room, and has it signed."""

    def __init__(
        self,
        own: LocalServer,
        policing: PolicyServerClient,
        invites: OutboundInvites,
    ) -> None:
        self._own = own
        self._ctx = own.ctx
        self._policing = policing
        self._invites = invites
        self._rooms = own.rooms

    async def ready(self, link: Link, inbound: Submission) -> Refusal | None:
        """See ``hansa.Authority.before_turn``: the accounts of everybody concerned exist."""
        room = self._rooms.get(link.native.id)
        if room is None or not room.resident:
            return Refusal(code=RefusalCode.NOT_FOUND, text="this server is not in that room")
        content, target = inbound.content, ""
        try:
            await self._ctx.get_ghost_id(inbound.sender)
            if isinstance(content, Member):
                target = await self._ctx.get_ghost_id(content.user)
        except LocalProtocolError as error:
            return Refusal(code=RefusalCode.INVALID, text=str(error))
        invite = isinstance(content, Member) and content.membership is Standing.INVITE
        if invite and await self._own.is_unused_id(target):
            return Refusal(code=RefusalCode.NOT_FOUND, text=f"there is no {target}")
        if isinstance(content, Member) and invite and ids.domain_of(target) != self._own.server:
            create = (await room.events_of(await room.state(), [CREATE_KEY])).get(CREATE_KEY)
            if create is not None and not is_federated(create.content):
                text = "the room accepts no members of other servers"
                return Refusal(code=RefusalCode.FORBIDDEN, text=text)
            return await self._invites.allowed(link.native.id, inbound.sender, content, target)
        return None

    async def countersign(self, link: Link, draft: Pdu | JoinThenSend) -> ReceivedPdu | EventDraft | Refusal:
        """See ``hansa.Authority.countersign``: the room's policy server, and the server of who is invited."""
        room = self._rooms.get(link.native.id)
        if room is None:
            return Refusal(code=RefusalCode.NOT_FOUND, text="this server is not in that room")
        if isinstance(draft, JoinThenSend):
            join = Submission(
                origin=NativeId(self._ctx.id, f"own-{self._ctx.random.bytes(12).hex()}"),
                room=link.native,
                sender=draft.sender,
                content=Member(user=draft.sender, membership=Standing.JOIN),
                ts=self._ctx.clock.now(),
            )
            (entered,) = await self._ctx.submit([join])
            return entered.refusal or draft.draft
        try:
            signed = await self._policing.sign_outgoing(room, draft)
        except RemoteError as error:
            return Refusal(code=RefusalCode.FORBIDDEN, text=error.reason)
        except ServerUnreachable as error:
            return Refusal(code=RefusalCode.UNREACHABLE, text=str(error))
        invite = draft.type == MEMBER and draft.membership == "invite"
        if invite and ids.domain_of(draft.state_key or "") != self._own.server:
            return await self._invites.get_countersigned(room, signed)
        return ReceivedPdu(pdu=signed, origin=self._own.server, via_handshake=True)
