"""Events that users send. SPEC: client-server API, "Sending events to a room", "Redactions"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import NetworkContext, RemoteProtocolError, Request

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.http import Handler, RateLimited, get_reason
from hansa_matrix.client_api.rooms.local_sender import LocalSender
from hansa_matrix.client_api.rooms.room_entry import RoomEntry
from hansa_matrix.client_api.rooms.state_rules import check_state
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import ACL_KEY, CREATE, MEMBER
from hansa_matrix.rooms.annotations import annotates_again
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.redactions import REDACTION
from hansa_matrix.rooms.room import MatrixRoom

#: Events that the rules of a room depend on: without their content the rules change, or let no user in.
_NEVER_REDACTED = frozenset({CREATE, ACL_KEY[0]})


class SendEndpoints:
    """Events, and what is said beside them."""

    def __init__(self, own: LocalServer, sender: LocalSender, entry: RoomEntry) -> None:
        self._ctx: NetworkContext = own.ctx
        self._voice = sender
        self._entry = entry

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {
            ("PUT", "/v3/rooms/{room}/send/{type}/{txn}"): RateLimited(self.send_event),
            ("PUT", "/v3/rooms/{room}/redact/{event}/{txn}"): RateLimited(self.redact_event),
            ("PUT", "/v3/rooms/{room}/state/{type}"): RateLimited(self.send_state),
            ("PUT", "/v3/rooms/{room}/state/{type}/{key}"): RateLimited(self.send_state),
        }

    async def send_event(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /send/{eventType}/{txnId}``; a redaction, which room versions write differently, too."""
        room_id, type_ = request.path["room"], request.path["type"]
        room = self._voice.require_joined(caller.user, room_id)
        if type_ == REDACTION:
            await self._may_redact(caller.user, room, body.get("redacts"))
        draft = (type_, None, body)
        if await annotates_again(self._ctx.store, room, caller.user, draft):
            repeat = self._voice.transaction_origin(caller, room_id, type_, request.path["txn"])
            if await self._ctx.event_by(repeat) is None:
                raise matrix_error(400, "M_DUPLICATE_ANNOTATION", "you have sent the same annotation already")
        return {"event_id": await self._voice.send_with_txn(caller, room_id, draft, request.path["txn"])}

    async def redact_event(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /redact/{eventId}/{txnId}``."""
        room_id, target = request.path["room"], request.path["event"]
        content = {"redacts": target, **get_reason(body)}
        room = self._voice.require_joined(caller.user, room_id)
        await self._may_redact(caller.user, room, target)
        draft = (REDACTION, None, content)
        return {"event_id": await self._voice.send_with_txn(caller, room_id, draft, request.path["txn"])}

    async def _may_redact(self, user: str, room: MatrixRoom, target: object) -> None:
        """One takes back what one said oneself; what others of this server said takes the level for it, which
        other servers would not ask for.
        """
        if not ids.is_valid_event_id(target):
            raise matrix_error(400, "M_INVALID_PARAM", f"{str(target)[:80]!r} is not an event ID")
        found = (await room.events.load([str(target)], room.version)).get(str(target))
        if found is None or found.pdu.room_id != room.room_id:
            raise matrix_error(404, "M_NOT_FOUND", "there is no such event")
        if found.pdu.type in _NEVER_REDACTED:
            raise matrix_error(
                403, "M_FORBIDDEN", f"a room whose {found.pdu.type} has no content would be useless"
            )
        if found.pdu.sender != user and not await self._voice.can_redact(user, room):
            raise matrix_error(403, "M_FORBIDDEN", "you need permission to redact the events of others")

    async def send_state(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /state/{eventType}/{stateKey}``."""
        room_id, type_, key = request.path["room"], request.path["type"], request.path.get("key", "")

        async def leads_here(alias: str) -> bool:
            try:
                found, _ = await self._entry.find_room(alias, [])
            except RemoteProtocolError:  # it names nothing, or nobody says what
                return False
            return found == room_id

        room = self._voice.require_room(room_id)
        stay = await self._voice.state_event(room, MEMBER, caller.user)
        inside = stay is not None and stay.membership == "join"
        if type_ == MEMBER and key == caller.user and body.get("membership") == "join" and not inside:
            more = {k: v for k, v in body.items() if k != "membership"}
            await self._entry.join_room(caller.user, room_id, [], more)
            joined = await self._voice.state_event(room, MEMBER, caller.user)
            return {"event_id": joined.event_id if joined is not None else ""}
        present = await self._voice.state_event(room, type_, key)
        named = present.content if present is not None else None
        await check_state((type_, key, body), ids.domain_of(caller.user), leads_here, named)
        if present is not None and present.sender == caller.user and present.content == body and inside:
            return {"event_id": present.event_id}
        return {"event_id": await self._voice.send_event(caller.user, room_id, (type_, key, body))}
