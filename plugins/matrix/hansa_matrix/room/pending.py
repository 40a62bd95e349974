"""Invites of our people to rooms that we are not in, and knocks on their doors.

They live outside any room's graph: kept until they are accepted, declined, rescinded by whoever invited, or
answered. SPEC: server-server API, "Inviting to a room", "Knocking"; R-11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from hansa import Delete, NetworkContext, Put, RemoteProtocolError, Row

from hansa_matrix.crypto import verify
from hansa_matrix.keyring import Keyring
from hansa_matrix.proto import ids
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import key_ids, needed_at, parse, required_servers, unsigned_by
from hansa_matrix.proto.versions import VERSIONS
from hansa_matrix.room.attendance import Attendance, stay_of

_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One of them. ``origin`` is the server to answer by, ``shown`` what it showed of the room."""

    room_id: str
    user: str
    sender: str
    membership: str
    origin: str
    event_id: str
    version: str
    shown: Sequence[Mapping[str, Any]]


class Pending:
    """What waits for an answer, of ours or of others."""

    def __init__(self, ctx: NetworkContext, keyring: Keyring, attendance: Attendance) -> None:
        self._ctx = ctx
        self._keyring = keyring
        self._attendance = attendance

    async def keep(self, pdu: Pdu, origin: str, state: Sequence[Any], version: str) -> None:
        """Remember an invite or a knock; the same person's earlier one gives way."""
        body = {
            "event": pdu.raw,
            "event_id": pdu.event_id,
            "state": [one for one in state if isinstance(one, dict)],
            "origin": origin,
            "version": version,
        }
        user = pdu.state_key or ""
        await self._ctx.store.commit([Put("invite", (pdu.room_id, user), orjson.dumps(body))])
        await self._attendance.move(user, stay_of(pdu.room_id, user, pdu))

    async def get(self, room_id: str, user: str) -> Waiting | None:
        """What waits for one person in one room."""
        row = await self._ctx.store.get("invite", (room_id, user))
        return _waiting(row) if row is not None else None

    async def event(self, room_id: str, user: str) -> Mapping[str, Any]:
        """The invite or knock itself; empty if none waits."""
        row = await self._ctx.store.get("invite", (room_id, user))
        event: Mapping[str, Any] = orjson.loads(row.body)["event"] if row is not None else {}
        return event

    async def every(self) -> list[Waiting]:
        """All of them, 1,000 at most."""
        return [_waiting(row) for row in await self._ctx.store.scan("invite", limit=_PAGE)]

    async def drop(self, room_id: str, user: str) -> None:
        """It is answered."""
        await self._ctx.store.commit([Delete("invite", (room_id, user))])
        stay = self._attendance.stay(user, room_id)
        if stay is not None and stay.membership in {"invite", "knock"}:
            await self._attendance.move(user, stay_of(room_id, user, None))

    async def elsewhere(self, obj: Mapping[str, Any]) -> bool:
        """An event of a room that we are not in: a leave of an invited person by who invited them takes the
        invite back. True if it did; everything else of such rooms is none of our business.
        """
        room_id, user = obj.get("room_id"), obj.get("state_key")
        if obj.get("type") != "m.room.member" or not isinstance(room_id, str) or not isinstance(user, str):
            return False
        if not ids.valid_room_id(room_id) or not ids.valid_user_id(user):
            return False
        waiting = await self.get(room_id, user)
        version = VERSIONS.get(waiting.version) if waiting is not None else None
        if waiting is None or version is None:
            return False
        try:
            pdu = parse(obj, version)
        except RemoteProtocolError:
            return False
        if pdu.membership not in {"leave", "ban"} or waiting.event_id not in pdu.auth_events:
            return False
        if waiting.membership == "invite" and pdu.sender != waiting.sender:
            return False
        servers = required_servers(pdu, version)
        await self._keyring.need(key_ids(pdu, servers), needed_at(pdu, version))
        if unsigned_by(pdu, version, self._keyring.get, verify, servers) is not None:
            return False
        await self.drop(room_id, user)
        self._ctx.log.info("the %s of %s to %s was taken back", waiting.membership, user, room_id)
        return True


def _waiting(row: Row) -> Waiting:
    body = orjson.loads(row.body)
    event = body["event"]
    return Waiting(
        room_id=str(row.key[0]),
        user=str(row.key[1]),
        sender=event["sender"],
        membership=event["content"].get("membership", "invite"),
        origin=body.get("origin") or ids.domain_of(event["sender"]),
        event_id=body["event_id"],
        version=body.get("version", ""),
        shown=body["state"],
    )
