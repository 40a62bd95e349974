"""Events as clients get them. SPEC: client-server API, "Room event format", "Relationship types"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hansa import NetworkContext, Row

from hansa_matrix.client_api.accounts import Caller
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import redacted
from hansa_matrix.proto.state_keys import MEMBER
from hansa_matrix.room.attendance import Attendance
from hansa_matrix.room.events import Stored
from hansa_matrix.room.relations import relation
from hansa_matrix.room.room import MatrixRoom
from hansa_matrix.room.shown import unspoken

_STRIPPED = ("type", "state_key", "content", "sender", "origin_server_ts")
#: Relations of one event that are looked at for its summary.
_MOST_RELATED = 1000


def stripped(pdu: Pdu) -> dict[str, Any]:
    """An event of a room's state for who is not in the room."""
    raw = pdu.raw
    return {key: raw[key] for key in _STRIPPED if key in raw}


def bare(pdu: Pdu, *, room_id: bool = True) -> dict[str, Any]:
    """An event without what depends on who reads it."""
    shown: dict[str, Any] = {
        "type": pdu.type,
        "content": pdu.content,
        "event_id": pdu.event_id,
        "sender": pdu.sender,
        "origin_server_ts": pdu.origin_server_ts,
    }
    if room_id:
        shown["room_id"] = pdu.room_id
    if pdu.state_key is not None:
        shown["state_key"] = pdu.state_key
    redacts = pdu.raw.get("redacts", pdu.content.get("redacts"))
    if pdu.type == "m.room.redaction" and isinstance(redacts, str):
        shown["redacts"] = redacts
        if "redacts" not in pdu.content:
            shown["content"] = {**pdu.content, "redacts": redacts}
    return shown


class Shapes:
    """What a reader learns of an event besides: its age, what it replaced, what took it back, who replied."""

    def __init__(self, ctx: NetworkContext, attendance: Attendance) -> None:
        self._ctx = ctx
        self._sent = attendance.sent
        self._erased = attendance.erased

    async def of(
        self, caller: Caller, room: MatrixRoom, events: Sequence[Stored], *, room_id: bool = True
    ) -> list[dict[str, Any]]:
        """Events of one room for one reader."""
        if not events:
            return []
        now = self._ctx.clock.now()
        related = await self._ctx.store.get_many("related", [(one.pdu.event_id,) for one in events])
        gone = [(one.pdu.event_id,) for one in events if one.redacted]
        taken_back = await self._ctx.store.get_many("redacted_by", gone) if gone else {}
        redactions = await room.readable([r.body.decode() for r in taken_back.values()])
        memberships: dict[int, str] = {}
        found: list[dict[str, Any]] = []
        for one in events:
            membership = await self._membership(caller.user, room, one, memberships)
            pdu = one.pdu
            if pdu.sender in self._erased and membership != "join":
                pdu = redacted(pdu, room.version)
            shown = bare(pdu, room_id=room_id)
            unsigned: dict[str, Any] = {"age": max(0, now - one.pdu.origin_server_ts)}
            row = taken_back.get((one.pdu.event_id,))
            redaction = redactions.get(row.body.decode()) if row is not None else None
            if redaction is not None:
                because = unspoken(redaction.pdu, room.version) if redaction.by_policy else redaction.pdu
                unsigned["redacted_because"] = bare(because, room_id=room_id)
            if one.pdu.state_key is not None:
                unsigned |= await self._replaced(room, one)
            unsigned["membership"] = membership
            txn = self._sent.by(caller.user, caller.device, one.pdu.event_id)
            if txn:
                unsigned["transaction_id"] = txn
            if redaction is None and (one.pdu.event_id,) in related:
                relations = await self._relations(caller, room, one.pdu)
                if relations:
                    unsigned["m.relations"] = relations
            shown["unsigned"] = unsigned
            found.append(shown)
        return found

    @staticmethod
    async def _replaced(room: MatrixRoom, one: Stored) -> dict[str, Any]:
        state = await room.groups.load(one.before)
        if state.get(one.pdu.key) in {None, one.pdu.event_id}:
            return {}
        replaced = (await room.shown_of(state, [one.pdu.key])).get(one.pdu.key)
        if replaced is None:
            return {}
        return {
            "prev_content": replaced.content,
            "prev_sender": replaced.sender,
            "replaces_state": replaced.event_id,
        }

    @staticmethod
    async def _membership(user: str, room: MatrixRoom, one: Stored, known: dict[int, str]) -> str:
        """The reader's membership once the event had happened."""
        if one.pdu.type == MEMBER and one.pdu.state_key == user:
            return str(one.pdu.membership)
        if one.before not in known:
            state = await room.groups.load(one.before)
            member = (await room.events_of(state, [(MEMBER, user)])).get((MEMBER, user))
            known[one.before] = str(member.membership) if member is not None else "leave"
        return known[one.before]

    async def related(self, target: str, most: int = _MOST_RELATED) -> list[Row]:
        """What relates to an event, by their times."""
        rows = await self._ctx.store.scan("relation", equal=(target,), limit=most)
        return sorted(rows, key=_when)

    async def _relations(self, caller: Caller, room: MatrixRoom, pdu: Pdu) -> dict[str, Any]:
        """The latest edit, the thread, and what refers to it."""
        rows = await self.related(pdu.event_id)
        if not rows:
            return {}
        found: dict[str, Any] = {}
        by_kind: dict[str, list[Row]] = {}
        for row in rows:
            by_kind.setdefault(str(row.fields["kind"]), []).append(row)
        edits = [r for r in by_kind.get("m.replace", ()) if _edits(r, pdu)]
        if edits and pdu.state_key is None:
            latest = await self._event(room, str(edits[-1].key[1]))
            if latest is not None:
                found["m.replace"] = bare(latest.pdu)
        references = by_kind.get("m.reference", ())
        if references:
            found["m.reference"] = {"chunk": [{"event_id": str(r.key[1])} for r in references]}
        thread = by_kind.get("m.thread", [])
        if thread and relation(pdu) is None:
            latest = await self._event(room, str(thread[-1].key[1]))
            if latest is not None:
                (shown,) = await self.of(caller, room, [latest])
                mine = any(r.fields["sender"] == caller.user for r in thread) or pdu.sender == caller.user
                found["m.thread"] = {
                    "latest_event": shown,
                    "count": len(thread),
                    "current_user_participated": mine,
                }
        return found

    @staticmethod
    async def _event(room: MatrixRoom, event_id: str) -> Stored | None:
        stored = (await room.readable([event_id])).get(event_id)
        return stored if stored is not None and stored.shown else None


def _when(row: Row) -> tuple[int, int, str]:
    return int(row.fields["ts"] or 0), int(row.fields["depth"] or 0), str(row.key[1])


def _edits(row: Row, pdu: Pdu) -> bool:
    return row.fields["sender"] == pdu.sender and row.fields["type"] == pdu.type


def state_shapes(pdus: Iterable[Pdu], now: int, *, room_id: bool = True) -> list[Mapping[str, Any]]:
    """Events of a state, of which it is enough to know what they say."""
    return [
        {**bare(pdu, room_id=room_id), "unsigned": {"age": max(0, now - pdu.origin_server_ts)}}
        for pdu in pdus
    ]
