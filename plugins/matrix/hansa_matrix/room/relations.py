"""Which events relate to which. SPEC: client-server API, "Forming relationships between events"."""

from __future__ import annotations

from hansa import Delete, Put, Value, Write

from hansa_matrix.proto import ids
from hansa_matrix.proto.event import Pdu


def relation(pdu: Pdu) -> tuple[str, str] | None:
    """``(target, kind)`` of an event that relates to another, such as an edit or a reaction."""
    related = pdu.content.get("m.relates_to")
    if not isinstance(related, dict):
        return None
    target, kind = related.get("event_id"), related.get("rel_type")
    if not ids.valid_event_id(target) or not isinstance(kind, str) or not ids.fits(kind):
        return None
    return str(target), kind


def related(pdu: Pdu) -> list[Write]:
    """The write by which an event is found from the one that it relates to."""
    found = relation(pdu)
    if found is None:
        return []
    fields: dict[str, Value] = {
        "kind": found[1],
        "type": pdu.type,
        "sender": pdu.sender,
        "ts": pdu.origin_server_ts,
        "depth": pdu.depth,
    }
    return [
        Put("related", (found[0],)),
        Put("relation", (found[0], pdu.event_id), b"", fields),
    ]


def unrelated(pdu: Pdu, by: str) -> list[Write]:
    """What becomes of an event's relation when another takes it back."""
    found = relation(pdu)
    mark: list[Write] = [Put("redacted_by", (pdu.event_id,), by.encode())]
    return mark if found is None else [*mark, Delete("relation", (found[0], pdu.event_id))]
