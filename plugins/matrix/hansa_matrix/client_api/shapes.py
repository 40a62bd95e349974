"""Events as clients get them. SPEC: client-server API, "Room event format", "Relationship types"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hansa import NetworkContext, Row

from hansa_matrix.client_api.accounts import Caller
from hansa_matrix.client_api.visibility import Visibility
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import redacted
from hansa_matrix.proto.state_keys import MEMBER
from hansa_matrix.room.attendance import Attendance
from hansa_matrix.room.events import Stored
from hansa_matrix.room.relations import relation
from hansa_matrix.room.room import MatrixRoom
from hansa_matrix.room.shown import unspoken

_STRIPPED = ("type", "state_key", "content", "sender", "origin_server_ts")
#: The kinds of relations that an event is shown with.
_BUNDLED = frozenset({"m.replace", "m.reference", "m.thread"})
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

    def __init__(self, ctx: NetworkContext, attendance: Attendance, visibility: Visibility) -> None:
        self._ctx = ctx
        self._visibility = visibility
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
        by = [r.body.decode() for r in taken_back.values()]
        redactions = await room.readable(by) if by else {}
        readable = await self._visibility.beside(caller.user, room, by) if by else {}
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
                because = redaction.pdu
                if redaction.pdu.event_id not in readable:  # that it was taken back can be seen anyway
                    because = unspoken(redaction.pdu, room.version)
                unsigned["redacted_because"] = bare(because, room_id=room_id)
            if one.pdu.state_key is not None:
                unsigned |= await self._replaced(room, one)
            unsigned["membership"] = membership
            txn = self._sent.by(caller.user, caller.device, one.pdu.event_id)
            if txn:
                unsigned["transaction_id"] = txn
            if redaction is None and (one.pdu.event_id,) in related:
                relations = await self._relations(caller, room, one)
                if relations:
                    unsigned["m.relations"] = relations
            shown["unsigned"] = unsigned
            found.append(shown)
        return found

    # Whoever may read a state event knows the state before it too: it is what /context shows of that moment.
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

    async def _relations(self, caller: Caller, room: MatrixRoom, one: Stored) -> dict[str, Any]:
        """The latest edit, the thread, and what refers to it, as far as the reader may read them."""
        pdu = one.pdu
        by_kind: dict[str, list[str]] = {}
        mine: set[str] = set()
        for row in await self.related(pdu.event_id):
            kind, event_id = str(row.fields["kind"]), str(row.key[1])
            if kind in _BUNDLED and (kind != "m.replace" or (pdu.state_key is None and _edits(row, pdu))):
                by_kind.setdefault(kind, []).append(event_id)
                if row.fields["sender"] == caller.user:
                    mine.add(event_id)
        if relation(pdu) is not None:
            by_kind.pop("m.thread", None)
        named = [event_id for event_ids in by_kind.values() for event_id in event_ids]
        seen = await self._visibility.beside(caller.user, room, named) if named else {}
        found: dict[str, Any] = {}
        kept = {kind: [e for e in event_ids if e in seen] for kind, event_ids in by_kind.items()}
        if kept.get("m.replace"):
            found["m.replace"] = bare(await self._as_read(caller, room, seen[kept["m.replace"][-1]]))
        if kept.get("m.reference"):
            found["m.reference"] = {"chunk": [{"event_id": event_id} for event_id in kept["m.reference"]]}
        if thread := kept.get("m.thread"):
            (shown,) = await self.of(caller, room, [seen[thread[-1]]])
            found["m.thread"] = {
                "latest_event": shown,
                "count": len(thread),
                "current_user_participated": pdu.sender == caller.user or not mine.isdisjoint(thread),
            }
        return found

    async def _as_read(self, caller: Caller, room: MatrixRoom, one: Stored) -> Pdu:
        """An event without what the erased said, for who was not there."""
        if one.pdu.sender not in self._erased:
            return one.pdu
        there = await self._membership(caller.user, room, one, {}) == "join"
        return one.pdu if there else redacted(one.pdu, room.version)


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
