"""Invites, as the server of the invited person. SPEC: server-server API, "Inviting to a room"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hansa import (
    CannotOpenRoom,
    Invite,
    Member,
    Membership,
    NativeId,
    NetworkContext,
    RefusalCode,
    RemoteProtocolError,
    Request,
)

from hansa_matrix.crossings import require_allowed
from hansa_matrix.crypto import verify_signature
from hansa_matrix.errors import forbidden_error, matrix_error
from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import CREATE, JOIN_RULES, MEMBER
from hansa_matrix.proto.canonical_json import is_usable_json
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.hashing import hash_matches
from hansa_matrix.proto.pdu import (
    add_signature,
    key_valid_at,
    parse_pdu,
    required_servers,
    signature_problem,
    signing_key_ids,
)
from hansa_matrix.proto.room_versions import VERSIONS, RoomVersion, version_of
from hansa_matrix.proto.send_join import check_stripped_state, servers_of
from hansa_matrix.proto.state_content import join_rule, membership_of, room_type
from hansa_matrix.proto.stripped_state import TYPES, stripped_state
from hansa_matrix.rooms.access.server_access import ServerAccess
from hansa_matrix.rooms.local_events import LocalEvents
from hansa_matrix.rooms.membership.direct_chats import DirectChatRooms
from hansa_matrix.server_api.auth import FederationHandler
from hansa_matrix.texts import texts_of_event

#: Join rules of rooms that people enter without an invite.
_OPEN_RULES = ("public", "restricted", "knock_restricted")


class InviteEndpoints:
    """The endpoints for invites of local users, and for third-party invites that were claimed."""

    def __init__(
        self,
        entitled: ServerAccess,
        keyring: Keyring,
        direct_chats: DirectChatRooms,
        administration: LocalEvents,
    ) -> None:
        self._entitled = entitled
        self._own = entitled.own
        self._ctx: NetworkContext = entitled.own.ctx
        self._keyring = keyring
        self._direct_chats = direct_chats
        self._entrance = direct_chats.joiner
        self._pending = direct_chats.joiner.pending
        self._administration = administration

    def routes(self) -> Mapping[tuple[str, str], FederationHandler]:
        """See ``auth.FederationEndpoints.routes``."""
        return {
            ("PUT", "/v1/invite/{room}/{event}"): self.old_invite,
            ("PUT", "/v2/invite/{room}/{event}"): self.invite,
            ("PUT", "/v1/exchange_third_party_invite/{room}"): self.exchange,
        }

    async def invite(self, origin: str, request: Request, body: Any) -> Any:
        """``PUT /v2/invite``: countersign, remember."""
        version = version_of(body.get("room_version"))
        if version is None:
            raise matrix_error(400, "M_INCOMPATIBLE_ROOM_VERSION", "that room version is not spoken here")
        return await self._accept_invite(
            origin, request, version, body.get("event"), body.get("invite_room_state", [])
        )

    async def old_invite(self, origin: str, request: Request, body: Any) -> Any:
        """``PUT /v1/invite``: the event alone, of a room of version 1 or 2, which are invited to alike."""
        unsigned = body.get("unsigned")
        state = unsigned.get("invite_room_state", []) if isinstance(unsigned, dict) else []
        return [200, await self._accept_invite(origin, request, VERSIONS["1"], body, state)]

    async def _accept_invite(  # who asks, and what
        self, origin: str, request: Request, version: RoomVersion, event: Any, state: Any
    ) -> dict[str, Any]:
        if not isinstance(state, list) or len(state) > 100 or not isinstance(event, dict):
            raise matrix_error(400, "M_INVALID_PARAM", "event or invite_room_state is missing or malformed")
        pdu = parse_pdu(event, version)
        state = [one for one in state if is_usable_json(one)]
        check_stripped_state(state, pdu, version)
        if pdu.event_id != request.path["event"] or pdu.room_id != request.path["room"]:
            raise matrix_error(400, "M_INVALID_PARAM", "the event is not the one that the path names")
        target = pdu.state_key or ""
        if pdu.type != "m.room.member" or pdu.membership != "invite" or ids.domain_of(pdu.sender) != origin:
            raise matrix_error(
                400, "M_INVALID_PARAM", "the event must be an invite by the server that sends it"
            )
        if not ids.is_valid_user_id(target) or ids.domain_of(target) != self._own.server:
            raise matrix_error(403, "M_FORBIDDEN", "the invited user is not of this server")
        self._pending.admit(origin, target)
        wanted = signing_key_ids(pdu, required_servers(pdu, version))
        await self._keyring.ensure_keys(wanted, key_valid_at(pdu, version), share=origin)
        if signature_problem(pdu, version, self._keyring.get, verify_signature) is not None:
            raise matrix_error(403, "M_FORBIDDEN", "the invite's signature is not valid")
        signed_at, forged = await self._verified_state(pdu, state, version)
        state = [one if at not in forged else None for at, one in enumerate(state)]
        shown = stripped_state(state, pdu.sender, server=self._own.server, signed=signed_at)
        generation = self._ctx.policy_generation
        await require_allowed(
            self._ctx,
            Invite(
                network=self._ctx.id,
                room=pdu.room_id,
                sender=NativeId(self._ctx.id, pdu.sender),
                sender_server=origin,
                user=await self._ctx.home_of(target),
                outbound=False,
                servers=frozenset({origin, *servers_of(state)}),
                texts=_texts_of_invite(pdu, shown),
            ),
        )
        ghost = self._own.ghosts.is_ghost_id(target)
        if ghost:
            await self._require_reachable(pdu, state)
        if self._entitled.rooms.is_blocked(pdu.room_id):
            raise matrix_error(403, "M_FORBIDDEN", "this server is not in that room")
        room = self._entitled.rooms.get(pdu.room_id)
        if room is not None and room.resident and not await room.allows(origin):
            raise matrix_error(403, "M_FORBIDDEN", f"{origin} is barred from that room by its server ACL")
        signed = add_signature(pdu, version, self._own.server, (self._own.key.key_id, self._own.key.sign))
        if room is None or not room.resident:
            await self._pending.keep(
                signed, origin, state, version.id, generation=generation, signed=signed_at
            )
            if ghost:
                self._direct_chats.accept_invite(signed, origin)
            else:
                self._entrance.invited(signed, origin)
        return {"event": signed.raw}

    async def _require_reachable(self, invite: Pdu, state: Sequence[Any]) -> None:
        """Raises the error answer where the person behind an invited ghost cannot be reached. Into a room
        that this server is not in, a ghost follows only the invite to a direct chat.
        """
        target = invite.state_key or ""
        person = await self._own.ghosts.find_person(target)
        if person is None:
            raise matrix_error(404, "M_NOT_FOUND", f"there is no {target}")
        room = self._entitled.rooms.get(invite.room_id)
        if room is not None and room.resident:
            return  # the core knows the room's links, and answers in the room
        if invite.content.get("is_direct") is not True:
            text = f"{person.id} is on {person.network}: only a direct chat opens by an invite"
            raise matrix_error(403, "M_FORBIDDEN", text)
        if _is_open_room(state):
            text = f"{person.id} is on {person.network}: only a chat of two opens by an invite"
            raise matrix_error(403, "M_FORBIDDEN", text)
        if any(isinstance(one, dict) and one.get("type") == "m.room.encryption" for one in state):
            text = f"{person.id} is on {person.network}, which cannot read encrypted rooms"
            raise matrix_error(403, "M_FORBIDDEN", text)
        try:
            await self._ctx.require_direct_chat(invite.room_id, person, invite.sender)
        except CannotOpenRoom as problem:
            code = "M_NOT_FOUND" if problem.refusal.code is RefusalCode.NOT_FOUND else "M_FORBIDDEN"
            status = 404 if code == "M_NOT_FOUND" else 403
            raise matrix_error(status, code, problem.refusal.text) from problem

    async def _verified_state(
        self, invite: Pdu, state: Sequence[Any], version: RoomVersion
    ) -> tuple[set[int], set[int]]:
        """Of the state that goes along with an invite, whole events since v1.16: the places of the
        events whose signatures hold, and of those that are forged. Keys are asked for of the server that
        invites, and of the one whose person made the room; of others those that are known count.
        """
        signed, forged = set[int](), set[int]()
        for at, one in enumerate(state):
            if one.get("type") not in {*TYPES, MEMBER} or not {"hashes", "signatures"} <= one.keys():
                continue
            try:
                pdu = parse_pdu(one, version)
            except RemoteProtocolError:
                forged.add(at)
                continue
            servers = required_servers(pdu, version)
            named = signing_key_ids(pdu, servers)
            if pdu.type == CREATE or servers <= {ids.domain_of(invite.sender), self._own.server}:
                inviting = ids.domain_of(invite.sender)
                await self._keyring.ensure_keys(named, key_valid_at(pdu, version), share=inviting)
            problem = signature_problem(pdu, version, self._keyring.get, verify_signature, servers)
            known = any(self._keyring.get(*name) is not None for name in named)
            if pdu.room_id != invite.room_id or not hash_matches(pdu.raw, version) or (problem and known):
                forged.add(at)
            elif problem is None:
                signed.add(at)
        return signed, forged

    async def exchange(self, origin: str, request: Request, body: Any) -> Any:
        """``PUT /exchange_third_party_invite``: the person that a local user invited by an address has an
        account on ``origin``, which asks for the invite itself.
        """
        room = await self._entitled.require_acl_allowed(request.path["room"], origin, member=False)
        sender, target, content = body.get("sender"), body.get("state_key"), body.get("content")
        named = isinstance(sender, str) and isinstance(target, str) and isinstance(content, dict)
        if not named or body.get("type") != "m.room.member" or membership_of(content) != "invite":
            raise matrix_error(400, "M_INVALID_PARAM", "the body must be an invite")
        if not ids.is_valid_user_id(sender) or ids.domain_of(sender) != self._own.server:
            raise matrix_error(403, "M_FORBIDDEN", f"{sender[:255]} is not of this server")
        if not ids.is_valid_user_id(target) or ids.domain_of(target) != origin:
            raise matrix_error(403, "M_FORBIDDEN", f"{target[:255]} is not of {origin}")
        signed = content.get("third_party_invite")
        if body.get("room_id") != room.room_id or not isinstance(signed, dict):
            raise matrix_error(
                400, "M_INVALID_PARAM", "the invite is of another room, or no third-party invite"
            )
        whole = {"membership": "invite", "third_party_invite": signed}
        person = Member(user=await self._ctx.home_of(target), membership=Membership.INVITE)
        refusal = await self._administration.send_membership(sender, room.room_id, person, target, whole)
        if refusal is not None:
            raise forbidden_error(refusal.text, refusal.decision)
        return {}


def _is_open_room(state: Sequence[Any]) -> bool:
    """True where the state with an invite, which its sender claims, shows a space or a room that people
    enter without an invite. To join such a room before it is known to be no chat of two may take long.
    """
    for event in state:
        content = event.get("content") if isinstance(event, dict) else None
        if not isinstance(content, dict):
            continue
        if event.get("type") == CREATE and room_type(content) == "m.space":
            return True
        if event.get("type") == JOIN_RULES and join_rule(content) in _OPEN_RULES:
            return True
    return False


def _texts_of_invite(invite: Pdu, shown: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Returns the texts for people in an invite and in the stripped state with it."""
    return texts_of_event(invite.type, invite.state_key, invite.content, *shown)
