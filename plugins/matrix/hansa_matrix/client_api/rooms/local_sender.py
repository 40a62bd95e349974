"""Sends the events of local clients into rooms. SPEC: client-server API, "Sending events to a room"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import Member, NativeId

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.http import error_from_refusal
from hansa_matrix.client_api.remote_refusals import invite_error
from hansa_matrix.client_api.rooms.invitees import Invitees
from hansa_matrix.conversion.to_matrix import EventDraft
from hansa_matrix.errors import matrix_error
from hansa_matrix.local.transaction_ids import ClientTransaction
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.levels import PowerLevels
from hansa_matrix.proto.auth_rules.state_keys import CREATE_KEY, MEMBER, POWER_LEVELS_KEY
from hansa_matrix.proto.canonical_json import check_values
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.state_content import AUTHORISING_USER, membership_of
from hansa_matrix.rooms.content_in_room import content_of_draft
from hansa_matrix.rooms.local_events import LocalEvent, submit_local_event
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.native_events import ClientEvent
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.users.profiles import Profiles


class LocalSender:
    """Events by people who are in the room, or about to be."""

    def __init__(self, own: LocalServer, profiles: Profiles) -> None:
        self._own = own
        self._ctx = own.ctx
        self.profiles = profiles
        self.invitees = Invitees(own)

    def require_room(self, room_id: str) -> MatrixRoom:
        """A room that this server is in. Raises the error answer of one that it is not in."""
        room = self._own.rooms.get(room_id)
        if room is None or not room.resident:
            raise matrix_error(403, "M_FORBIDDEN", "this server is not in that room")
        return room

    def require_joined(self, user: str, room_id: str) -> MatrixRoom:
        """Returns a room that a user is in. Raises the error answer for one that they are not in."""
        room = self.require_room(room_id)
        stay = self._own.memberships.membership_of(user, room_id)
        if stay is None or stay.membership != "join":
            raise matrix_error(403, "M_FORBIDDEN", f"{user} is not in that room")
        return room

    async def send_with_txn(self, caller: Requester, room_id: str, draft: EventDraft, txn: str) -> str:
        """As ``send_event``; the same transaction id of the same device again is the same event."""
        origin = self.transaction_origin(caller, room_id, draft[0], txn)
        return await self.send_event(
            caller.user,
            room_id,
            draft,
            origin,
            ClientTransaction(user=caller.user, device=caller.device, txn=txn),
        )

    @staticmethod
    def transaction_origin(caller: Requester, room_id: str, type_: str, txn: str) -> str:
        """The name by which what a device says is known again."""
        return f"txn {caller.user} {caller.device} {room_id}/{type_} {txn}"

    async def send_event(
        self,
        user: str,
        room_id: str,
        draft: EventDraft,
        origin: str = "",
        handle: ClientTransaction | None = None,
        *,
        follows: bool = False,
    ) -> str:
        """Put an event into a room; its id. The same ``transaction_origin`` again is the same event. Raises
        the error answer of one that the room's rules, or a policy, refuse.
        """
        type_, state_key, content = draft
        if (
            not type_
            or not ids.fits_255_bytes(type_)
            or (state_key is not None and not ids.fits_255_bytes(state_key))
        ):
            raise matrix_error(
                400, "M_INVALID_PARAM", f"a type and a state key must have at most {ids.MAX_BYTES} bytes"
            )
        self.require_room(room_id)
        check_values(content)
        if type_ == MEMBER:
            if membership_of(content) == "invite" and ids.is_valid_user_id(state_key):
                await self.invitees.require_exists(str(state_key))
            content = self._member_content(user, room_id, str(state_key), content)
            draft = (type_, state_key, content)
        what = await content_of_draft(self._own, room_id, draft)
        if isinstance(what, Member) and not ids.is_valid_user_id(state_key):
            raise matrix_error(400, "M_INVALID_PARAM", f"{str(state_key)[:80]!r} is not a user ID")
        event = LocalEvent(what, ClientEvent(draft=draft, handle=handle, follows=follows))
        sender = NativeId(self._ctx.id, user)
        outcome = await submit_local_event(self._ctx, sender, room_id, event, origin=origin)
        if outcome.refusal is not None:
            invite = type_ == MEMBER and membership_of(content) == "invite"
            raise (invite_error if invite else error_from_refusal)(outcome.refusal)
        if outcome.event is None:
            raise matrix_error(403, "M_FORBIDDEN", "the event is hidden by a policy")
        return outcome.native_id or await self._ctx.native_id(outcome.event) or ""

    def _member_content(
        self, user: str, room_id: str, target: str, content: dict[str, Any]
    ) -> dict[str, Any]:
        """Returns the content of a member event. A user who is in the room already does not carry the
        authorising user of their join: that user's server would have to sign again.
        """
        accounts = self._own.memberships.accounts
        stay = self._own.memberships.membership_of(user, room_id) if user in accounts else None
        inside = user == target and stay is not None and stay.membership == "join"
        if membership_of(content) == "join" and inside and AUTHORISING_USER in content:
            return {key: value for key, value in content.items() if key != AUTHORISING_USER}
        return content

    async def send_membership(  # what a member event is
        self,
        user: str,
        room_id: str,
        target: str,
        membership: str,
        more: Mapping[str, Any],
        *,
        follows: bool = False,
    ) -> str:
        """A member event; ``follows`` as in ``ClientEvent``."""
        draft = ("m.room.member", target, {**more, "membership": membership})
        return await self.send_event(user, room_id, draft, follows=follows)

    async def can_send_state(self, user: str, room: MatrixRoom, type_: str) -> bool:
        """True if a user has the level for a state event of a type."""
        levels = await self._levels_of(room)
        return levels.user_level(user) >= levels.required_level(type_, True)  # a state event

    async def can_redact(self, user: str, room: MatrixRoom) -> bool:
        """True if a user has the level to redact the events of others."""
        levels = await self._levels_of(room)
        return levels.user_level(user) >= levels.redact

    @staticmethod
    async def _levels_of(room: MatrixRoom) -> PowerLevels:
        state = await room.events_of(await room.state(), [POWER_LEVELS_KEY])
        return room.levels(state[CREATE_KEY], state.get(POWER_LEVELS_KEY), room.version)

    async def state_event(self, room: MatrixRoom, type_: str, state_key: str) -> Pdu | None:
        """An event of a room's current state."""
        key = (type_, state_key)
        return (await room.events_of(await room.state(), [key])).get(key)
