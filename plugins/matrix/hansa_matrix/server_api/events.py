"""Events, states and auth chains that another server lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hansa import Request

from hansa_matrix.errors import matrix_error
from hansa_matrix.proto.pdu import redact_pdu
from hansa_matrix.rooms.access.server_access import ServerAccess, pdus_json
from hansa_matrix.rooms.access.server_visibility import ServerVisibility
from hansa_matrix.rooms.access.visible_events import is_of
from hansa_matrix.rooms.event_store import Status, StoredEvent
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.server_api.auth import FederationHandler

_BACKFILL = 100
_MISSING = 20


class EventEndpoints:
    """The endpoints that return events and states."""

    def __init__(self, entitled: ServerAccess) -> None:
        self._entitled = entitled
        self._visibility = ServerVisibility()

    def routes(self) -> Mapping[tuple[str, str], FederationHandler]:
        """See ``auth.FederationEndpoints.routes``."""
        return {
            ("GET", "/v1/event/{event}"): self.event,
            ("GET", "/v1/state/{room}"): self.state,
            ("GET", "/v1/state_ids/{room}"): self.state_ids,
            ("GET", "/v1/event_auth/{room}/{event}"): self.event_auth,
            ("GET", "/v1/backfill/{room}"): self.backfill,
            ("POST", "/v1/get_missing_events/{room}"): self.get_missing_events,
        }

    async def event(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /event``."""
        room, stored = await self._entitled.require_visible_event(origin, request.path["event"])
        return self._entitled.as_transaction(room, await self._visible_pdus(room, [stored], origin))

    async def _visible_pdus(
        self, room: MatrixRoom, found: Sequence[StoredEvent], origin: str
    ) -> list[StoredEvent]:
        """Events as ``origin`` may have them: whole, or without what its people could not read."""
        return [
            one
            if await self._can_see_content(room, one, origin)
            else replace(one, pdu=redact_pdu(one.pdu, room.version))
            for one in found
        ]

    async def _can_see_content(self, room: MatrixRoom, one: StoredEvent, origin: str) -> bool:
        """True if a server may have the content of an event. The content of erased users is for servers that
        were in the room.

        SPEC: client-server API, ``POST /account/deactivate``.
        """
        if not one.after:
            return True
        erased = is_of(one.pdu, self._entitled.own.memberships.erased)
        if erased and not await self._visibility.was_in_room(room, one, origin):
            return False
        return await self._visibility.can_see(room, one, origin)

    async def state(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /state``: the state before an event."""
        room, state = await self._state_at(origin, request)
        chain = await room.events.recheck_policies(await room.events.auth_chain(state, room.version))
        erased = self._entitled.own.memberships.erased
        return {
            "pdus": pdus_json(room, state.values(), erased),
            "auth_chain": pdus_json(room, chain.values(), erased),
        }

    async def state_ids(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /state_ids``."""
        room, state = await self._state_at(origin, request)
        chain = await room.events.auth_chain(state, room.version)
        return {"pdu_ids": list(state), "auth_chain_ids": list(chain)}

    async def event_auth(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /event_auth``."""
        await self._entitled.require_acl_allowed(request.path["room"], origin)
        room, stored = await self._entitled.require_visible_event(
            origin, request.path["event"], request.path["room"]
        )
        chain = await room.events.auth_chain([stored.pdu.event_id], room.version)
        given = await room.events.recheck_policies(chain)
        return {"auth_chain": pdus_json(room, given.values(), self._entitled.own.memberships.erased)}

    async def backfill(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /backfill``: newest first, the named events included."""
        room = await self._entitled.require_acl_allowed(request.path["room"], origin)
        limit = request.first("limit", "10")
        most = min(_BACKFILL, int(limit)) if limit.isascii() and limit.isdigit() and len(limit) < 9 else 10
        start = [v for k, v in request.query if k == "v"][:20]
        found = await self._walk_back(room, start, (), most)
        return self._entitled.as_transaction(room, await self._visible_pdus(room, found, origin))

    async def get_missing_events(self, origin: str, request: Request, body: Any) -> Any:
        """``POST /get_missing_events``: oldest first, the named events left out."""
        room = await self._entitled.require_acl_allowed(request.path["room"], origin)
        latest, earliest = body.get("latest_events"), body.get("earliest_events")
        if not isinstance(latest, list) or not isinstance(earliest, list):
            raise matrix_error(400, "M_BAD_JSON", "latest_events and earliest_events are lists")
        if (
            len(latest) > 100
            or len(earliest) > 100
            or not all(isinstance(e, str) for e in [*latest, *earliest])
        ):
            raise matrix_error(400, "M_BAD_JSON", "too many or malformed event ids")
        given = body.get("limit", 10)
        limit = min(_MISSING, given) if type(given) is int and given > 0 else 10
        known = await room.events.load(latest, room.version)
        start = [e for s in known.values() if s.pdu.room_id == room.room_id for e in s.pdu.prev_events]
        found = await self._walk_back(room, start, [*earliest, *latest], limit)
        return {"events": pdus_json(room, await self._visible_pdus(room, found[::-1], origin))}

    async def _state_at(self, origin: str, request: Request) -> tuple[MatrixRoom, dict[str, StoredEvent]]:
        await self._entitled.require_acl_allowed(request.path["room"], origin)
        room, stored = await self._entitled.require_visible_event(
            origin, request.first("event_id"), request.path["room"]
        )
        if not stored.after:
            raise matrix_error(404, "M_NOT_FOUND", "the state at that event is not known here")
        before = await room.groups.load(stored.before)
        return room, dict(await room.readable(before.values()))

    async def _walk_back(
        self, room: MatrixRoom, start: Sequence[str], stop: Sequence[str], limit: int
    ) -> list[StoredEvent]:
        """Backwards from ``start``, itself included, breadth first."""
        seen, found, edge = set(stop), list[StoredEvent](), list(start)
        while edge and len(found) < limit:
            loaded = await room.readable([e for e in edge if e not in seen])
            seen.update(edge)
            layer = sorted(loaded.values(), key=lambda s: -s.depth)
            layer = [s for s in layer if s.after and s.pdu.room_id == room.room_id]
            found += [s for s in layer if s.status is not Status.REJECTED]
            edge = [e for s in layer for e in s.pdu.prev_events if e not in seen]
        return found[:limit]
