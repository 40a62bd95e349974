"""Redactions, applied to what is stored once both the redaction and its target are there and it may be. Until
then, and where it may not be, the redaction itself is withheld.

SPEC: room versions 3 to 12, "Handling redactions". The event keeps its id, its place and its effect on the
state; its content is not shown or served any more. The original is kept for a time that the operator sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from hansa import Delete, Put, ScopedStore, Write, scan_all

from hansa_matrix.proto.auth_rules.rules import redaction_allowed
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.pdu import redact_pdu
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.rooms.event_store import NO_REDACTION, Status, StoredEvent

REDACTION = "m.room.redaction"
#: Redactions of one room that wait for their targets, in all and of one server.
_MAX_PENDING, _MAX_OF_SERVER = 1000, 200


def target_of(pdu: Pdu, version: RoomVersion) -> str | None:
    """The event that a redaction names."""
    named = (pdu.content if version.redacts_in_content else pdu.raw).get("redacts")
    return named if isinstance(named, str) else None


@dataclass(frozen=True, slots=True)
class PendingRedaction:
    """A redaction whose target is not here. ``live``: it came as it happened, not as a part of the past."""

    event_id: str
    server: str
    live: bool = True


@dataclass(slots=True)
class PendingRedactions:
    """Redactions of one room whose target is not here yet, by target: 1,000 at most, 200 of one server."""

    room_id: str
    by_target: dict[str, tuple[PendingRedaction, ...]] = field(default_factory=dict)

    async def load(self, store: ScopedStore) -> None:
        """Take up what waited before a restart."""
        rows = scan_all(store, "redaction", equal=(self.room_id,))
        self.by_target = {
            str(row.key[1]): tuple(map(_pending_redaction, orjson.loads(row.body))) async for row in rows
        }

    def wait(self, target: str, one: PendingRedaction) -> list[Write]:
        """One more that waits; no writes if too many do."""
        every = [w for listed in self.by_target.values() for w in listed]
        if len(every) >= _MAX_PENDING or sum(w.server == one.server for w in every) >= _MAX_OF_SERVER:
            return []
        listed = self.by_target[target] = (*self.by_target.get(target, ()), one)
        body = orjson.dumps([[w.event_id, w.server, w.live] for w in listed])
        return [Put("redaction", (self.room_id, target), body)]

    def pop_for(self, target: str) -> tuple[tuple[PendingRedaction, ...], list[Write]]:
        """The redactions that waited for an event, and the write that ends their waiting."""
        return self.by_target.pop(target, ()), [Delete("redaction", (self.room_id, target))]


def _pending_redaction(entry: Any) -> PendingRedaction:
    """An entry of a row; rows of before have the event ids alone."""
    return PendingRedaction(entry, "") if isinstance(entry, str) else PendingRedaction(*entry)


def redaction_problem(
    redaction: Pdu, target: StoredEvent | None, state: Mapping[StateKey, Pdu], version: RoomVersion
) -> str:
    """Why a redaction does not apply to its target, empty if it does. ``state`` is that at the redaction.

    SPEC: room versions 3 to 12, "Handling redactions": it is not sent to clients before it applies.
    """
    if target_of(redaction, version) is None:
        return "it names no event"
    if target is None:
        return "its target is not here yet"
    if target.pdu.room_id != redaction.room_id:
        return "its target is in another room"
    if target.status is Status.REJECTED:
        return "its target was rejected"
    if not redaction_allowed(redaction, target.pdu, state, version):
        return f"{redaction.sender} may not redact what others sent"
    return ""


def withheld_redaction(stored: StoredEvent, why: str) -> StoredEvent:
    """A redaction as it is stored: in the DAG in any case, shown only if it applies (``why`` is empty)."""
    if stored.shown and why:
        return replace(stored, status=Status.WITHHELD, reason=f"{NO_REDACTION}{why}")
    if stored.status is Status.WITHHELD and stored.reason.startswith(NO_REDACTION):
        if why:
            return replace(stored, reason=f"{NO_REDACTION}{why}")
        return replace(stored, status=Status.ACCEPTED, reason="")
    return stored


def apply_redaction(target: StoredEvent, version: RoomVersion) -> StoredEvent | None:
    """A target as it is stored once a redaction applies to it; None if that changes nothing."""
    bare = redact_pdu(target.pdu, version)
    return None if bare.wire == target.pdu.wire else replace(target, pdu=bare, redacted=True)


def original_write(target: StoredEvent, until: int) -> Put:
    """The write that keeps an original until a time (ms)."""
    return Put("original", (target.pdu.event_id,), target.pdu.wire, {"until": until})
