"""The relations between events. SPEC: client-server API, "Forming relationships between events".

An event relates only to an event of its own room: one that names an event of another room has no relation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from hansa import Delete, Put, Row, ScopedStore, Value, Write

from hansa_matrix.proto import ids
from hansa_matrix.proto.event import Pdu

#: The kinds that an event is shown with.
REPLACE, THREAD, REFERENCE = "m.replace", "m.thread", "m.reference"
#: Rows that are brought into their room at a time.
_MAX_BATCH = 500
_PLACE = ("room_id", "target", "place")
_OF_KIND = ("room_id", "target", "kind", "place")
_OF_SENDER = ("room_id", "target", "kind", "sender", "place")
#: The greatest time (ms) and depth that are told from greater ones.
_MAX_TS = 10**16 - 1


def relation_target(pdu: Pdu) -> tuple[str, str] | None:
    """``(target, kind)`` of an event that relates to another, such as an edit or a reaction."""
    return relation_of(pdu.content)


def relation_of(content: Mapping[str, Any]) -> tuple[str, str] | None:
    """As ``relation_target``, of the content of an event."""
    said = content.get("m.relates_to")
    if not isinstance(said, dict):
        return None
    target, kind = said.get("event_id"), said.get("rel_type")
    if not ids.is_valid_event_id(target) or not isinstance(kind, str) or not ids.fits_255_bytes(kind):
        return None
    return str(target), kind


def relation_writes(pdu: Pdu, now: int, *, live: bool = True) -> list[Write]:
    """The writes by which an event that comes ``now`` (ms) is found from the one that it relates to. It came
    as it happened if it is ``live``.
    """
    found = relation_target(pdu)
    if found is None:
        return []
    target, kind = found
    fields: dict[str, Value] = {
        "room_id": pdu.room_id,
        "kind": kind,
        "type": pdu.type,
        "sender": pdu.sender,
        "ts": pdu.origin_server_ts,
        "place": _place_of(pdu, kind, now, live=live),
    }
    return [Put("related", (target,)), Put("relation", (target, pdu.event_id), b"", fields)]


def remove_relation_writes(pdu: Pdu, by: str) -> list[Write]:
    """Returns the writes for an event's relation when another event redacts it."""
    found = relation_target(pdu)
    mark: list[Write] = [Put("redacted_by", (pdu.event_id,), by.encode())]
    return mark if found is None else [*mark, Delete("relation", (found[0], pdu.event_id))]


def _place_of(pdu: Pdu, kind: str, now: int, *, live: bool) -> str:
    """Where an event stands among those that relate to the same: by its time here, for the clocks of others
    may be wrong; events older than their arrival by their own. Of edits the newest by its own clock holds.
    """
    ts = pdu.origin_server_ts
    at = ts if kind == REPLACE else now if live else min(ts, now)
    return _encode_place(at, pdu.depth, pdu.event_id)


def _encode_place(at: int, depth: int, event_id: str) -> str:
    """Returns the place of a relation as text. The depth only orders events of one millisecond. A place is a
    token for every user who may read the event before it: it does not name the event.
    """
    mark = hashlib.sha256(event_id.encode()).hexdigest()[:16]
    return f"{min(max(at, 0), _MAX_TS):016d}_{min(depth, _MAX_TS):016d}_{mark}"


class Relations:
    """Events that relate to one of a room, in the order of their places."""

    def __init__(self, store: ScopedStore) -> None:
        self._store = store

    async def page(
        self,
        room_id: str,
        target: str,
        most: int,
        *,
        kind: str | None = None,
        sender: str | None = None,
        after: str | None = None,
        newest_first: bool = False,
    ) -> list[Row]:
        """Up to ``most`` rows behind the place ``after``. ``sender`` is for those of one ``kind``."""
        equal = [room_id, target, *([kind] if kind is not None else []), *([sender] if sender else [])]
        index = {2: _PLACE, 3: _OF_KIND, 4: _OF_SENDER}[len(equal)]
        return await self._store.scan(
            "relation", index=index, equal=equal, after=after, limit=most, reverse=newest_first
        )

    async def targets(self, event_ids: Sequence[str]) -> list[str]:
        """Those of some events that others relate to, in order."""
        keys = [(event_id,) for event_id in event_ids]
        rows: set[object] = set()
        for at in range(0, len(keys), _MAX_BATCH):
            rows |= {key[0] for key in await self._store.get_many("related", keys[at : at + _MAX_BATCH])}
        return [event_id for event_id in event_ids if event_id in rows]

    async def count(self, room_id: str, target: str, kind: str) -> int:
        """How many events relate to one in a way."""
        return await self._store.count("relation", equal={"room_id": room_id, "target": target, "kind": kind})

    async def move(self) -> None:
        """Give the rows of earlier versions their room: they were kept without, and nobody finds them."""
        while rows := await self._store.scan("relation", index=_PLACE, equal=[None], limit=_MAX_BATCH):
            events = await self._store.get_many("pdu", [(row.key[1],) for row in rows])
            await self._store.commit([_with_room_write(row, events.get((row.key[1],))) for row in rows])


def _with_room_write(row: Row, event: Row | None) -> Write:
    if event is None:
        return Delete("relation", row.key)
    fields = {name: row.fields[name] for name in ("kind", "type", "sender", "ts")}
    fields["room_id"] = event.fields["room_id"]
    fields["place"] = _encode_place(
        int(row.fields["ts"] or 0), int(event.fields["depth"] or 0), str(row.key[1])
    )
    return Put("relation", row.key, b"", fields)


def event_ids_of(rows: Sequence[Row]) -> list[str]:
    """The events of some rows."""
    return [str(row.key[1]) for row in rows]
