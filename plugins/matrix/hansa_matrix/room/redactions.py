"""Redactions, applied to what is stored once both the redaction and its target are there and it may be.

SPEC: room versions 3 to 12, "Handling redactions". The event keeps its id, its place and its effect on the
state; what was said is read and served no more. The original is kept for a time that the operator sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import orjson
from hansa import Delete, Put, Row, Scoped, Write

from hansa_matrix.proto.auth import redaction_allowed
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.pdu import redacted
from hansa_matrix.proto.versions import RoomVersion
from hansa_matrix.room.events import Status, Stored

REDACTION = "m.room.redaction"
_MOST = 1000


def target_of(pdu: Pdu, version: RoomVersion) -> str | None:
    """The event that a redaction names."""
    named = (pdu.content if version.redacts_in_content else pdu.raw).get("redacts")
    return named if isinstance(named, str) else None


@dataclass(slots=True)
class Awaited:
    """Redactions of one room whose target is not here yet: ``target -> their ids``, 1,000 at most."""

    room_id: str
    by_target: dict[str, list[str]] = field(default_factory=dict)

    async def load(self, store: Scoped) -> None:
        """Take up what waited before a restart."""
        rows: list[Row] = await store.scan("redaction", equal=(self.room_id,), limit=_MOST)
        self.by_target = {str(row.key[1]): orjson.loads(row.body) for row in rows}

    def wait(self, target: str, redaction: str) -> list[Write]:
        """One more that waits; nothing if too many do."""
        listed = [*self.by_target.get(target, ()), redaction]
        if len(self.by_target) >= _MOST and target not in self.by_target:
            return []
        self.by_target[target] = listed[:10]
        return [Put("redaction", (self.room_id, target), orjson.dumps(self.by_target[target]))]

    def come(self, target: str) -> tuple[list[str], list[Write]]:
        """The redactions that waited for an event, and the write that ends their waiting."""
        return self.by_target.pop(target, []), [Delete("redaction", (self.room_id, target))]


def applied(
    redaction: Pdu, target: Stored, state: Mapping[StateKey, Pdu], version: RoomVersion
) -> Stored | None:
    """The target as it is stored from now on; None if nothing changes. ``state`` is that at the redaction."""
    if target.status is Status.REJECTED or not redaction_allowed(redaction, target.pdu, state, version):
        return None
    bare = redacted(target.pdu, version)
    return None if bare.wire == target.pdu.wire else replace(target, pdu=bare, redacted=True)


def kept(target: Stored, until: int) -> Put:
    """The write that keeps an original until a time (ms)."""
    return Put("original", (target.pdu.event_id,), target.pdu.wire, {"until": until})
