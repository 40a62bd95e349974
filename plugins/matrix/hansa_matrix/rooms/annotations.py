"""Checks for duplicate annotations. SPEC: client-server API, "Event annotations"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import ScopedStore

from hansa_matrix.rooms.relations import Relations, event_ids_of, relation_of
from hansa_matrix.rooms.room import MatrixRoom

_ANNOTATION = "m.annotation"
#: Annotations of one event by one person in which one is looked for that says the same.
_MAX_COMPARED = 500


async def annotates_again(
    store: ScopedStore, room: MatrixRoom, user: str, draft: tuple[str, str | None, Mapping[str, Any]]
) -> bool:
    """True if a user's annotation of an event repeats an earlier one. SPEC: "Avoiding duplicate
    annotations".
    """
    type_, _, content = draft
    target, kind = relation_of(content) or ("", "")
    if kind != _ANNOTATION:
        return False
    rows = await Relations(store).page(
        room.room_id, target, _MAX_COMPARED, kind=_ANNOTATION, sender=user, newest_first=True
    )
    own = event_ids_of([row for row in rows if row.fields["type"] == type_])
    before = (await room.events.load(own, room.version)).values() if own else ()
    return any(_annotation_key(one.pdu.content) == _annotation_key(content) for one in before)


def _annotation_key(content: Mapping[str, Any]) -> Any:
    """Returns the key of an annotation; None for a redacted one."""
    said = content.get("m.relates_to")
    return said.get("key") if isinstance(said, dict) else None
