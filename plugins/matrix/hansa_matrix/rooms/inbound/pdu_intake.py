"""The PDUs of a transaction on their way in: each is dropped, answered with an error, or staged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from hansa import Busy, NetworkContext, RemoteProtocolError

from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import parse_pdu
from hansa_matrix.rooms.inbound.pdu_staging import PduStaging
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.membership.pending_invites import PendingInvites
from hansa_matrix.rooms.membership.room_linker import RoomLinker
from hansa_matrix.rooms.room import MatrixRoom


class PduIntake:
    """Drops PDUs of other rooms and malformed PDUs, and answers those that a server ACL bars."""

    def __init__(
        self, own: LocalServer, staging: PduStaging, linker: RoomLinker, invites: PendingInvites
    ) -> None:
        self._ctx: NetworkContext = own.ctx
        self._rooms = own.rooms
        self._staging = staging
        self._linker = linker
        self._invites = invites

    async def stage_transaction(self, origin: str, txn: str, pdus: Sequence[Any]) -> bytes:
        """Stage a transaction's PDUs and keep its answer; a repeated transaction is answered as before, and
        nothing of it is taken. Raises ``Busy`` before anything is taken.
        """
        answer: dict[str, dict[str, str]] = {}
        fresh: list[tuple[MatrixRoom, Pdu]] = []
        named = [obj.get("room_id") for obj in pdus if isinstance(obj, dict)]
        for name in dict.fromkeys(n for n in named if isinstance(n, str)):
            if not await self._linker.wait_until_joined(name):
                raise Busy("the room is being entered", after=5.0)
        await self._read(name for name in named if isinstance(name, str))
        for obj in pdus:
            room_id = obj.get("room_id") if isinstance(obj, dict) else None
            room = self._rooms.get(room_id) if isinstance(room_id, str) else None
            if room is None or not room.resident:
                mine = isinstance(obj, dict) and await self._invites.elsewhere(obj)
                self._ctx.count("matrix_pdus", status="rescinded" if mine else "unknown_room")
                continue
            if self._rooms.is_blocked(room.room_id):
                self._ctx.count("matrix_pdus", status="blocked")
                continue
            try:
                pdu = parse_pdu(obj, room.version)
            except RemoteProtocolError as error:
                self._ctx.count("matrix_pdus", status="dropped")
                self._ctx.log.info("dropped a PDU from %s: %s", origin, error.reason)
                continue
            if not await room.allows(origin):
                self._ctx.count("matrix_pdus", status="barred")
                answer[pdu.event_id] = {"error": f"{origin} is barred from that room by its server ACL"}
                continue
            if pdu.type == "m.room.create":
                self._ctx.count("matrix_pdus", status="dropped")
                self._ctx.log.info("dropped a PDU from %s: a room is created once", origin)
                continue
            answer[pdu.event_id] = {}
            fresh.append((room, pdu))
        return await self._staging.stage_transaction(origin, txn, fresh, answer)

    async def _read(self, named: Iterable[str]) -> None:
        """Raises ``Busy`` where a room that we are in is not in memory, because it was entered where we did
        not see it: what is acknowledged would be lost.
        """
        missing = [(name,) for name in dict.fromkeys(named) if self._rooms.get(name) is None]
        rows = await self._ctx.store.get_many("room", missing) if missing else {}
        if any(orjson.loads(row.body)["resident"] for row in rows.values()):
            self._ctx.count("matrix_rooms_unread")
            raise Busy("the room is not read yet", after=5.0)
