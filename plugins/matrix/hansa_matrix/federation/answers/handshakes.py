"""Joins, leaves and invites, as the server that is in the room or whose user is invited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import Invite, Join, NetworkContext, Ref, Request

from hansa_matrix.crypto import verify
from hansa_matrix.federation.answers.entitled import Entitled, raw, wire
from hansa_matrix.federation.server import Answerer, error
from hansa_matrix.keyring import Keyring
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth import check_state, selected_keys
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.joins import check_shown
from hansa_matrix.proto.pdu import (
    countersigned,
    from_raw,
    key_ids,
    needed_at,
    parse,
    reference,
    required_servers,
    unsigned_by,
)
from hansa_matrix.proto.versions import version_of
from hansa_matrix.room.ingest import Ingest
from hansa_matrix.room.membership import Membership
from hansa_matrix.room.room import MatrixRoom


class Handshakes:
    """The resident's half of a membership handshake."""

    def __init__(self, entitled: Entitled, keyring: Keyring, ingest: Ingest, membership: Membership) -> None:
        self._entitled = entitled
        self._own = entitled.own
        self._ctx: NetworkContext = entitled.own.ctx
        self._keyring = keyring
        self._ingest = ingest
        self._membership = membership

    def table(self) -> Mapping[tuple[str, str], Answerer]:
        """See ``server.Answers.table``."""
        return {
            ("GET", "/v1/make_join/{room}/{user}"): self.make_join,
            ("PUT", "/v2/send_join/{room}/{event}"): self.send_join,
            ("GET", "/v1/make_leave/{room}/{user}"): self.make_leave,
            ("PUT", "/v2/send_leave/{room}/{event}"): self.send_leave,
            ("PUT", "/v2/invite/{room}/{event}"): self.invite,
        }

    async def make_join(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /make_join``."""
        user = self._entitled.own_user(request.path["user"], origin)
        room = await self._entitled.admitted(request.path["room"], origin, member=False)
        offered = [v for k, v in request.query if k == "ver"] or ["1"]
        if room.version.id not in offered:
            raise error(
                400,
                "M_INCOMPATIBLE_ROOM_VERSION",
                f"the room is of version {room.version.id}",
                room_version=room.version.id,
            )
        await self._may_join(room, user, origin)
        return await self._template(room, user, "join")

    async def send_join(self, origin: str, request: Request, body: Any) -> Any:
        """``PUT /v2/send_join``: the state before the join, and all its auth chain."""
        room, pdu = await self._handshake(origin, request, body, "join")
        await self._may_join(room, pdu.sender, origin)
        await self._accepted(pdu, origin)
        stored = (await room.events.load([pdu.event_id], room.version))[pdu.event_id]
        before = await room.groups.load(stored.before)
        state = await room.events.load(before.values(), room.version)
        chain = await room.events.auth_chain([pdu.event_id, *before.values()], room.version)
        view = self._ctx.view(room.room_id)
        servers = {s for n, s in view.joined_servers if n == self._ctx.id} if view else set()
        return {
            "origin": self._own.server,
            "state": wire(state.values()),
            "auth_chain": wire(chain.values()),
            "event": raw(stored),
            "members_omitted": False,
            "servers_in_room": sorted(servers | {self._own.server}),
        }

    async def make_leave(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /make_leave``."""
        user = self._entitled.own_user(request.path["user"], origin)
        room = await self._entitled.admitted(request.path["room"], origin, member=False)
        return await self._template(room, user, "leave")

    async def send_leave(self, origin: str, request: Request, body: Any) -> Any:
        """``PUT /v2/send_leave``."""
        _, pdu = await self._handshake(origin, request, body, "leave")
        await self._accepted(pdu, origin)
        return {}

    async def invite(self, origin: str, request: Request, body: Any) -> Any:
        """``PUT /v2/invite``: countersign, remember."""
        version = version_of(body.get("room_version"))
        if version is None:
            raise error(400, "M_INCOMPATIBLE_ROOM_VERSION", "that room version is not spoken here")
        state = body.get("invite_room_state", [])
        if not isinstance(state, list) or len(state) > 100 or not isinstance(body.get("event"), dict):
            raise error(400, "M_INVALID_PARAM", "event or invite_room_state is missing or malformed")
        pdu = parse(body["event"], version)
        check_shown(state, pdu, version)
        if pdu.event_id != request.path["event"] or pdu.room_id != request.path["room"]:
            raise error(400, "M_INVALID_PARAM", "the event is not the one that the path names")
        target = pdu.state_key or ""
        if pdu.type != "m.room.member" or pdu.membership != "invite" or ids.domain_of(pdu.sender) != origin:
            raise error(400, "M_INVALID_PARAM", "the event is no invite by the server that sends it")
        if not ids.valid_user_id(target) or ids.domain_of(target) != self._own.server:
            raise error(403, "M_FORBIDDEN", "the invited user is not of this server")
        wanted = key_ids(pdu, required_servers(pdu, version))
        await self._keyring.need(wanted, needed_at(pdu, version))
        if unsigned_by(pdu, version, self._keyring.get, verify) is not None:
            raise error(403, "M_FORBIDDEN", "the invite's signature does not do")
        verdict = await self._ctx.check(
            Invite(
                network=self._ctx.id,
                room=pdu.room_id,
                sender=Ref(self._ctx.id, pdu.sender),
                sender_server=origin,
                user=await self._ctx.home_of(target),
                outbound=False,
                servers=frozenset({origin}),
            )
        )
        if not verdict.allowed:
            raise error(403, "M_FORBIDDEN", verdict.text, **{"dev.hansa.decision": verdict.decision})
        room = self._entitled.rooms.get(pdu.room_id)
        if room is not None and room.resident and not await room.allows(origin):
            raise error(403, "M_FORBIDDEN", f"{origin} is barred from that room by its server ACL")
        signed = countersigned(pdu, version, self._own.server, (self._own.key.key_id, self._own.key.sign))
        if room is None or not room.resident:
            await self._membership.keep_invite(signed, state)
            await self._entitled.rooms.invited(signed, origin)
        return {"event": signed.raw}

    async def _template(self, room: MatrixRoom, user: str, membership: str) -> dict[str, Any]:
        state = await room.state()
        content: dict[str, Any] = {"membership": membership}
        keys = selected_keys("m.room.member", user, user, content, room.version)
        cited = await room.events_of(state, keys)
        before = await room.events.load(list(room.head.extremities)[:20], room.version)
        auth = sorted((cited[key] for key in keys if key in cited), key=lambda one: one.event_id)
        event = {
            "type": "m.room.member",
            "room_id": room.room_id,
            "sender": user,
            "state_key": user,
            "content": content,
            "prev_events": [reference(one.pdu, room.version) for one in before.values()],
            "auth_events": [reference(one, room.version) for one in auth],
            "depth": room.head.depth + 1,
            "origin": self._own.server,
            "origin_server_ts": self._ctx.clock.now(),
        }
        draft = {**event, "hashes": {"sha256": ""}, "signatures": {}}
        del draft["origin"]
        if room.version.named_event_ids:
            draft["event_id"] = self._own.event_id()
        reject = check_state(from_raw(draft, room.version), cited, room.version)
        if reject is not None:
            raise error(403, "M_FORBIDDEN", reject.reason)
        return {"room_version": room.version.id, "event": event}

    async def _may_join(self, room: MatrixRoom, user: str, origin: str) -> None:
        view = self._ctx.view(room.room_id)
        verdict = await self._ctx.check(
            Join(
                network=self._ctx.id,
                room=room.room_id,
                user=Ref(self._ctx.id, user),
                user_server=origin,
                outbound=False,
                servers=view.servers() if view else frozenset(),
            )
        )
        if not verdict.allowed:
            raise error(403, "M_FORBIDDEN", verdict.text, **{"dev.hansa.decision": verdict.decision})

    async def _handshake(
        self, origin: str, request: Request, body: Any, membership: str
    ) -> tuple[MatrixRoom, Pdu]:
        room = await self._entitled.admitted(request.path["room"], origin, member=False)
        pdu = parse(body, room.version)
        if pdu.event_id != request.path["event"] or pdu.room_id != room.room_id:
            raise error(400, "M_INVALID_PARAM", "the event is not the one that the path names")
        if pdu.type != "m.room.member" or pdu.membership != membership or pdu.state_key != pdu.sender:
            raise error(400, "M_INVALID_PARAM", f"the event is not a {membership} of its sender")
        self._entitled.own_user(pdu.sender, origin)
        good = await self._ingest.verified(room, pdu)
        if good is None:
            raise error(403, "M_FORBIDDEN", "the event's signature does not do")
        found = await room.events.load((*good.prev_events, *good.auth_events), room.version)
        before = [found.get(e) for e in good.prev_events]
        if any(e is None or not e.after or e.pdu.room_id != room.room_id for e in before):
            raise error(400, "M_INVALID_PARAM", "the event follows events that are not known in this room")
        if any(e not in found for e in good.auth_events):
            raise error(400, "M_INVALID_PARAM", "the event cites events that are not known here")
        return room, good

    async def _accepted(self, pdu: Pdu, origin: str) -> None:
        inbound = await self._ingest.inbound(pdu, origin, handshake=True)
        outcome = (await self._ctx.submit([inbound]))[0]
        if outcome.refusal is not None:
            raise error(403, "M_FORBIDDEN", outcome.refusal.text)
