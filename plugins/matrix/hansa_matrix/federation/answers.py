"""The answers to other servers, each checked as its section of the specification says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson
from hansa import Invite, Join, NetworkContext, Person, Ref, Request
from hansa import Membership as Standing

from hansa_matrix.crypto import verify
from hansa_matrix.federation.server import Answerer, error
from hansa_matrix.keyring import Keyring
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth import check_state, selected_keys
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.joins import check_shown
from hansa_matrix.proto.pdu import countersigned, from_raw, key_ids, parse, required_servers, unsigned_by
from hansa_matrix.proto.transactions import parse_transaction
from hansa_matrix.proto.versions import version_of
from hansa_matrix.room.events import Status, Stored
from hansa_matrix.room.ingest import Ingest
from hansa_matrix.room.membership import Membership
from hansa_matrix.room.native import Own
from hansa_matrix.room.room import MatrixRoom

_BACKFILL = 100
_MISSING = 20
_LONGEST_TXN = 255


class Rooms(Protocol):
    """The rooms of this server."""

    def get(self, room_id: str) -> MatrixRoom | None:
        """A room we are or were in."""
        ...

    async def alias(self, alias: str) -> str | None:
        """The room id behind one of our aliases."""
        ...

    async def invited(self, pdu: Pdu, origin: str) -> None:
        """One of ours was invited to a room that we are not in."""
        ...


class FederationAnswers:
    """See ``server.Answers``."""

    def __init__(
        self, own: Own, keyring: Keyring, ingest: Ingest, rooms: Rooms, membership: Membership
    ) -> None:  # five parts, each used
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._keyring = keyring
        self._ingest = ingest
        self._rooms = rooms
        self._membership = membership

    def table(self) -> Mapping[tuple[str, str], Answerer]:
        """See ``server.Answers.table``."""
        return {
            ("PUT", "/v1/send/{txn}"): self.send,
            ("GET", "/v1/make_join/{room}/{user}"): self.make_join,
            ("PUT", "/v2/send_join/{room}/{event}"): self.send_join,
            ("GET", "/v1/make_leave/{room}/{user}"): self.make_leave,
            ("PUT", "/v2/send_leave/{room}/{event}"): self.send_leave,
            ("PUT", "/v2/invite/{room}/{event}"): self.invite,
            ("GET", "/v1/event/{event}"): self.event,
            ("GET", "/v1/state/{room}"): self.state,
            ("GET", "/v1/state_ids/{room}"): self.state_ids,
            ("GET", "/v1/event_auth/{room}/{event}"): self.event_auth,
            ("GET", "/v1/backfill/{room}"): self.backfill,
            ("POST", "/v1/get_missing_events/{room}"): self.get_missing_events,
            ("GET", "/v1/query/directory"): self.directory,
            ("GET", "/v1/query/profile"): self.profile,
            ("GET", "/v1/user/devices/{user}"): self.devices,
            ("POST", "/v1/user/keys/query"): self.keys_query,
        }

    async def send(self, origin: str, request: Request, _body: Any) -> Any:
        """``PUT /send/{txnId}``: durable, with its answer, before the 200."""
        txn = request.path["txn"]
        if len(txn) > _LONGEST_TXN:  # cut short it could be another's
            raise error(400, "M_INVALID_PARAM", f"the transaction id has over {_LONGEST_TXN} characters")
        pdus, edus = parse_transaction(request.body, origin)
        for _ in edus:
            self._ctx.count("matrix_edus_ignored")
        return await self._ingest.take(origin, txn, pdus)

    def _room(self, room_id: str, origin: str, *, member: bool = True) -> MatrixRoom:
        room = self._rooms.get(room_id)
        if room is None or not room.resident:
            raise error(404, "M_NOT_FOUND", "this server is not in that room")
        if member and not self._inside(room, origin):
            raise error(403, "M_FORBIDDEN", f"{origin} is not in that room")
        return room

    def _inside(self, room: MatrixRoom, server: str) -> bool:
        view = self._ctx.view(room.room_id)
        return view is not None and (self._ctx.id, server) in view.joined_servers

    async def _template(self, room: MatrixRoom, user: str, membership: str) -> dict[str, Any]:
        state = await room.state()
        content: dict[str, Any] = {"membership": membership}
        keys = selected_keys("m.room.member", user, user, content, room.version)
        cited = await room.events_of(state, keys)
        event = {
            "type": "m.room.member",
            "room_id": room.room_id,
            "sender": user,
            "state_key": user,
            "content": content,
            "prev_events": list(room.head.extremities)[:20],
            "auth_events": sorted(cited[key].event_id for key in keys if key in cited),
            "depth": room.head.depth + 1,
            "origin": self._own.server,
            "origin_server_ts": self._ctx.clock.now(),
        }
        draft = {**event, "hashes": {"sha256": ""}, "signatures": {}}
        del draft["origin"]
        reject = check_state(from_raw(draft, room.version), cited, room.version)
        if reject is not None:
            raise error(403, "M_FORBIDDEN", reject.reason)
        return {"room_version": room.version.id, "event": event}

    async def make_join(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /make_join``."""
        user = self._own_user(request.path["user"], origin)
        room = self._room(request.path["room"], origin, member=False)
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

    @staticmethod
    def _own_user(user: str, origin: str) -> str:
        if not ids.valid_user_id(user) or ids.domain_of(user) != origin:
            raise error(403, "M_FORBIDDEN", f"{user[:255]} is not of {origin}")
        return user

    async def _handshake(
        self, origin: str, request: Request, body: Any, membership: str
    ) -> tuple[MatrixRoom, Pdu]:
        room = self._room(request.path["room"], origin, member=False)
        pdu = parse(body, room.version)
        if pdu.event_id != request.path["event"] or pdu.room_id != room.room_id:
            raise error(400, "M_INVALID_PARAM", "the event is not the one that the path names")
        if pdu.type != "m.room.member" or pdu.membership != membership or pdu.state_key != pdu.sender:
            raise error(400, "M_INVALID_PARAM", f"the event is not a {membership} of its sender")
        self._own_user(pdu.sender, origin)
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
            "state": _wire(state.values()),
            "auth_chain": _wire(chain.values()),
            "event": _raw(stored),
            "members_omitted": False,
            "servers_in_room": sorted(servers | {self._own.server}),
        }

    async def make_leave(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /make_leave``."""
        user = self._own_user(request.path["user"], origin)
        room = self._room(request.path["room"], origin, member=False)
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
        await self._keyring.need(key_ids(pdu, required_servers(pdu)), pdu.origin_server_ts)
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
        signed = countersigned(pdu, version, self._own.server, (self._own.key.key_id, self._own.key.sign))
        room = self._rooms.get(pdu.room_id)
        if room is None or not room.resident:
            await self._membership.keep_invite(signed, state)
            await self._rooms.invited(signed, origin)
        return {"event": signed.raw}

    async def _served(self, origin: str, event_id: str, room_id: str = "") -> tuple[MatrixRoom, Stored]:
        rows = await self._ctx.store.get_many("pdu", [(event_id,)])
        row = rows.get((event_id,))
        if row is None or (room_id and row.fields["room_id"] != room_id):
            raise error(404, "M_NOT_FOUND", "no such event here")
        room = self._room(str(row.fields["room_id"]), origin)
        return room, (await room.events.load([event_id], room.version))[event_id]

    async def event(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /event``."""
        _, stored = await self._served(origin, request.path["event"])
        return self._transaction([stored])

    def _transaction(self, stored: Sequence[Stored]) -> dict[str, Any]:
        now = self._ctx.clock.now()
        return {"origin": self._own.server, "origin_server_ts": now, "pdus": _wire(stored)}

    async def _state_at(self, origin: str, request: Request) -> tuple[MatrixRoom, dict[str, Stored]]:
        self._room(request.path["room"], origin)
        room, stored = await self._served(origin, request.first("event_id"), request.path["room"])
        if not stored.after:
            raise error(404, "M_NOT_FOUND", "the state at that event is not known here")
        before = await room.groups.load(stored.before)
        return room, await room.events.load(before.values(), room.version)

    async def state(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /state``: the state before an event."""
        room, state = await self._state_at(origin, request)
        chain = await room.events.auth_chain(state, room.version)
        return {"pdus": _wire(state.values()), "auth_chain": _wire(chain.values())}

    async def state_ids(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /state_ids``."""
        room, state = await self._state_at(origin, request)
        chain = await room.events.auth_chain(state, room.version)
        return {"pdu_ids": list(state), "auth_chain_ids": list(chain)}

    async def event_auth(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /event_auth``."""
        self._room(request.path["room"], origin)
        room, stored = await self._served(origin, request.path["event"], request.path["room"])
        chain = await room.events.auth_chain([stored.pdu.event_id], room.version)
        return {"auth_chain": _wire(chain.values())}

    async def _walk(
        self, room: MatrixRoom, start: Sequence[str], stop: Sequence[str], limit: int
    ) -> list[Stored]:
        """Backwards from ``start``, itself included, breadth first."""
        seen, found, edge = set(stop), list[Stored](), list(start)
        while edge and len(found) < limit:
            loaded = await room.events.load([e for e in edge if e not in seen], room.version)
            seen.update(edge)
            layer = sorted(loaded.values(), key=lambda s: -s.pdu.depth)
            layer = [s for s in layer if s.after and s.pdu.room_id == room.room_id]
            found += [s for s in layer if s.status is not Status.REJECTED]
            edge = [e for s in layer for e in s.pdu.prev_events if e not in seen]
        return found[:limit]

    async def backfill(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /backfill``: newest first, the named events included."""
        room = self._room(request.path["room"], origin)
        limit = request.first("limit", "10")
        most = min(_BACKFILL, int(limit)) if limit.isascii() and limit.isdigit() and len(limit) < 9 else 10
        start = [v for k, v in request.query if k == "v"][:20]
        return self._transaction(await self._walk(room, start, (), most))

    async def get_missing_events(self, origin: str, request: Request, body: Any) -> Any:
        """``POST /get_missing_events``: oldest first, the named events left out."""
        room = self._room(request.path["room"], origin)
        latest, earliest = body.get("latest_events"), body.get("earliest_events")
        if not isinstance(latest, list) or not isinstance(earliest, list):
            raise error(400, "M_BAD_JSON", "latest_events and earliest_events are lists")
        if (
            len(latest) > 100
            or len(earliest) > 100
            or not all(isinstance(e, str) for e in [*latest, *earliest])
        ):
            raise error(400, "M_BAD_JSON", "too many or malformed event ids")
        given = body.get("limit", 10)
        limit = min(_MISSING, given) if type(given) is int and given > 0 else 10
        known = await room.events.load(latest, room.version)
        start = [e for s in known.values() if s.pdu.room_id == room.room_id for e in s.pdu.prev_events]
        found = await self._walk(room, start, [*earliest, *latest], limit)
        return {"events": _wire(found[::-1])}

    async def directory(self, _origin: str, request: Request, _body: Any) -> Any:
        """``GET /query/directory``."""
        alias = request.first("room_alias")
        room_id = await self._rooms.alias(alias) if ids.valid_alias(alias) else None
        if room_id is None:
            raise error(404, "M_NOT_FOUND", "no room of this server has that alias")
        view = self._ctx.view(room_id)
        servers = {s for n, s in view.joined_servers if n == self._ctx.id} if view else set()
        return {"room_id": room_id, "servers": [self._own.server, *sorted(servers - {self._own.server})]}

    async def profile(self, _origin: str, request: Request, _body: Any) -> Any:
        """``GET /query/profile``: the name by which a person is known in a room."""
        user = request.first("user_id")
        if not ids.valid_user_id(user) or ids.domain_of(user) != self._own.server:
            raise error(404, "M_NOT_FOUND", "no such user here")
        person = await self._person(await self._ctx.home_of(user))
        if person is None:
            raise error(404, "M_NOT_FOUND", "no such user here")
        wanted = request.first("field")
        profile = {"displayname": person.name} if person.name else {}
        return profile if not wanted else {k: v for k, v in profile.items() if k == wanted}

    async def _person(self, home: Ref) -> Person | None:
        for link in self._ctx.links():
            view = self._ctx.view(link.native.id)
            person = view.person(home) if view else None
            if person is not None and person.membership is Standing.JOIN:
                return person
        return None

    async def devices(self, _origin: str, request: Request, _body: Any) -> Any:
        """``GET /user/devices``: nobody here has any."""
        user = request.path["user"]
        if not ids.valid_user_id(user) or ids.domain_of(user) != self._own.server:
            raise error(404, "M_NOT_FOUND", "no such user here")
        return {"user_id": user, "stream_id": 0, "devices": []}

    async def keys_query(self, _origin: str, _request: Request, body: Any) -> Any:
        """``POST /user/keys/query``: nobody here has any."""
        if not isinstance(body.get("device_keys"), dict):
            raise error(400, "M_BAD_JSON", "device_keys is no object")
        return {"device_keys": {}, "master_keys": {}, "self_signing_keys": {}}


def _raw(stored: Stored) -> Any:
    return orjson.Fragment(stored.pdu.wire)


def _wire(stored: Any) -> list[Any]:
    """Events as the bytes they hash to, never encoded again."""
    return [_raw(one) for one in stored]
