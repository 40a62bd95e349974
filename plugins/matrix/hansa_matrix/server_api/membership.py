"""Joins, knocks and leaves, as the server that is in the room. SPEC: server-server API, "Joining Rooms",
"Knocking", "Leaving Rooms".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from hansa import NetworkContext, Request
from orjson import Fragment

from hansa_matrix.errors import forbidden_error, matrix_error
from hansa_matrix.federation.client import REQUEST_FAILURES
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.rules import auth_event_keys, check_event_auth
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import add_signature, parse_pdu, pdu_from_raw, reference_to
from hansa_matrix.proto.state_content import AUTHORISING_USER, authorising_user
from hansa_matrix.proto.stripped_state import STRIPPED_KEYS
from hansa_matrix.rooms.access.join_policy import require_join_allowed, require_knock_allowed
from hansa_matrix.rooms.access.restricted_joins import RestrictedJoins
from hansa_matrix.rooms.access.server_access import ServerAccess, pdu_json, pdus_json
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.room_services import InboundServices
from hansa_matrix.server_api.auth import FederationHandler


class MembershipEndpoints:
    """The resident's half of a membership handshake."""

    def __init__(self, entitled: ServerAccess, inbound: InboundServices) -> None:
        self._entitled = entitled
        self._own = entitled.own
        self._ctx: NetworkContext = entitled.own.ctx
        self._staging, self._submitter = inbound.staging, inbound.submitter
        self._policing = inbound.policy_server
        self._restricted = RestrictedJoins(entitled)

    def routes(self) -> Mapping[tuple[str, str], FederationHandler]:
        """See ``auth.FederationEndpoints.routes``."""
        return {
            ("GET", "/v1/make_join/{room}/{user}"): self.make_join,
            ("PUT", "/v1/send_join/{room}/{event}"): self.old_send_join,
            ("PUT", "/v2/send_join/{room}/{event}"): self.send_join,
            ("GET", "/v1/make_leave/{room}/{user}"): self.make_leave,
            ("PUT", "/v1/send_leave/{room}/{event}"): self.old_send_leave,
            ("PUT", "/v2/send_leave/{room}/{event}"): self.send_leave,
            ("GET", "/v1/make_knock/{room}/{user}"): self.make_knock,
            ("PUT", "/v1/send_knock/{room}/{event}"): self.send_knock,
        }

    async def make_join(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /make_join``."""
        user = self._entitled.own_user(request.path["user"], origin)
        room = await self._require_version(origin, request)
        await require_join_allowed(self._ctx, room.room_id, user)
        authoriser = await self._restricted.find_authoriser(room, user)
        return await self._make_template(room, user, "join", authoriser)

    async def _require_version(self, origin: str, request: Request) -> MatrixRoom:
        """The room, if the server that asks speaks its version."""
        room = await self._entitled.require_acl_allowed(request.path["room"], origin, member=False)
        offered = [v for k, v in request.query if k == "ver"] or ["1"]
        if room.version.id not in offered:
            raise matrix_error(
                400,
                "M_INCOMPATIBLE_ROOM_VERSION",
                f"the room is of version {room.version.id}",
                room_version=room.version.id,
            )
        return room

    async def send_join(self, origin: str, request: Request, body: Any) -> Any:
        """``PUT /v2/send_join``: the state before the join, and all its auth chain."""
        room, pdu = await self._receive_membership(
            origin, request, body, "join", authorised=self._cosign_restricted
        )
        await require_join_allowed(self._ctx, room.room_id, pdu.sender, pdu)
        await self._submit_membership(pdu, origin)
        stored = (await room.readable([pdu.event_id]))[pdu.event_id]
        before = await room.groups.load(stored.before)
        state = await room.readable(before.values())
        chain = await room.events.auth_chain([pdu.event_id, *before.values()], room.version)
        given = await room.events.recheck_policies(chain)
        view = self._ctx.get_view(room.room_id)
        servers = {s for n, s in view.joined_servers if n == self._ctx.id} if view else set()
        return {
            "origin": self._own.server,
            "state": pdus_json(room, state.values(), self._own.memberships.erased),
            "auth_chain": pdus_json(room, given.values(), self._own.memberships.erased),
            "event": pdu_json(room, stored),
            "members_omitted": False,
            "servers_in_room": sorted(servers | {self._own.server}),
        }

    async def old_send_join(self, origin: str, request: Request, body: Any) -> Any:
        """``PUT /v1/send_join``: the same answer behind a status, as it was in the beginning."""
        return [200, await self.send_join(origin, request, body)]

    async def _cosign_restricted(self, room: MatrixRoom, join: Pdu) -> Pdu:
        """Returns a join with this server's signature, if a local user really authorised it."""
        named = authorising_user(join.content)
        if not room.version.restricted or named is None:
            return join
        if ids.domain_of(named) != self._own.server:
            text = f"only the server of {named[:255]} can take that join"
            raise matrix_error(400, "M_INVALID_PARAM", text)
        await self._restricted.find_authoriser(room, join.sender)
        key = self._own.key
        return add_signature(join, room.version, self._own.server, (key.key_id, key.sign))

    async def make_knock(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /make_knock``."""
        user = self._entitled.own_user(request.path["user"], origin)
        room = await self._require_version(origin, request)
        await require_knock_allowed(self._ctx, room.room_id, user)
        return await self._make_template(room, user, "knock")

    async def send_knock(self, origin: str, request: Request, body: Any) -> Any:
        """``PUT /v1/send_knock``: what the person is shown of the room meanwhile."""
        room, pdu = await self._receive_membership(origin, request, body, "knock")
        await require_knock_allowed(self._ctx, room.room_id, pdu.sender, pdu)
        await self._submit_membership(pdu, origin)
        shown = await room.shown_of(await room.state(), STRIPPED_KEYS)
        return {"knock_room_state": [Fragment(one.wire) for one in shown.values()]}

    async def make_leave(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /make_leave``."""
        user = self._entitled.own_user(request.path["user"], origin)
        room = await self._entitled.require_acl_allowed(request.path["room"], origin, member=False)
        return await self._make_template(room, user, "leave")

    async def send_leave(self, origin: str, request: Request, body: Any) -> Any:
        """``PUT /v2/send_leave``."""
        _, pdu = await self._receive_membership(origin, request, body, "leave")
        await self._submit_membership(pdu, origin)
        return {}

    async def old_send_leave(self, origin: str, request: Request, body: Any) -> Any:
        """``PUT /v1/send_leave``: as ``old_send_join``."""
        return [200, await self.send_leave(origin, request, body)]

    async def _make_template(
        self, room: MatrixRoom, user: str, membership: str, authoriser: str | None = None
    ) -> dict[str, Any]:
        state = await room.state()
        content: dict[str, Any] = {"membership": membership}
        if authoriser is not None:
            content[AUTHORISING_USER] = authoriser
        keys = auth_event_keys("m.room.member", user, user, content, room.version)
        cited = await room.events_of(state, keys)
        before = await room.events.load(list(room.head.extremities)[:20], room.version)
        auth = sorted((cited[key] for key in keys if key in cited), key=lambda one: one.event_id)
        event = {
            "type": "m.room.member",
            "room_id": room.room_id,
            "sender": user,
            "state_key": user,
            "content": content,
            "prev_events": [reference_to(one.pdu, room.version) for one in before.values()],
            "auth_events": [reference_to(one, room.version) for one in auth],
            "depth": room.head.next_depth,
            "origin": self._own.server,
            "origin_server_ts": self._ctx.clock.now(),
        }
        draft = {**event, "hashes": {"sha256": ""}, "signatures": {}}
        del draft["origin"]
        if room.version.server_made_event_ids:
            draft["event_id"] = self._own.event_id()
        reject = check_event_auth(pdu_from_raw(draft, room.version), cited, room.version)
        if reject is not None:
            raise matrix_error(403, "M_FORBIDDEN", reject.reason)
        return {"room_version": room.version.id, "event": event}

    async def _receive_membership(
        self,
        origin: str,
        request: Request,
        body: Any,
        membership: str,
        authorised: Callable[[MatrixRoom, Pdu], Awaitable[Pdu]] | None = None,
    ) -> tuple[MatrixRoom, Pdu]:
        room = await self._entitled.require_acl_allowed(request.path["room"], origin, member=False)
        pdu = parse_pdu(body, room.version)
        if pdu.event_id != request.path["event"] or pdu.room_id != room.room_id:
            raise matrix_error(400, "M_INVALID_PARAM", "the event is not the one that the path names")
        if pdu.type != "m.room.member" or pdu.membership != membership or pdu.state_key != pdu.sender:
            raise matrix_error(400, "M_INVALID_PARAM", f"the event is not a {membership} of its sender")
        self._entitled.own_user(pdu.sender, origin)
        if authorised is not None:
            pdu = await authorised(room, pdu)
        good = await self._staging.verify_pdu(room, pdu)
        if good is None:
            raise matrix_error(403, "M_FORBIDDEN", "the event's signature is not valid")
        try:
            good = await self._policing.sign_outgoing(room, good)
        except REQUEST_FAILURES as problem:
            raise matrix_error(403, "M_FORBIDDEN", str(problem)) from problem
        found = await room.events.load((*good.prev_events, *good.auth_events), room.version)
        before = [found.get(e) for e in good.prev_events]
        if any(e is None or not e.after or e.pdu.room_id != room.room_id for e in before):
            raise matrix_error(
                400, "M_INVALID_PARAM", "the event follows events that are not known in this room"
            )
        if any(e not in found for e in good.auth_events):
            raise matrix_error(400, "M_INVALID_PARAM", "the event cites events that are not known here")
        return room, good

    async def _submit_membership(self, pdu: Pdu, origin: str) -> None:
        inbound = await self._submitter.build_submission(pdu, origin, handshake=True)
        outcome = (await self._ctx.submit([inbound]))[0]
        refusal = outcome.refusal
        if refusal is not None:
            raise forbidden_error(refusal.text, refusal.decision)
