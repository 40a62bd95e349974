"""Rules for state events of local users beyond the authorization rules: the same for one state event and for
the events that a room begins with. SPEC: client-server API, "Sending events to a room", "Creation",
"m.room.canonical_alias".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from hansa_matrix.errors import matrix_error
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import ACL_KEY, CREATE
from hansa_matrix.proto.canonical_json import check_values
from hansa_matrix.proto.servers.server_acl import parse_acl
from hansa_matrix.proto.state_content import alt_aliases, canonical_alias
from hansa_matrix.rooms.create_room import InitialEvent

CANONICAL_ALIAS = "m.room.canonical_alias"
#: Names that a room may call itself by.
_MAX_ALIASES = 100


async def check_state(
    step: InitialEvent,
    server: str,
    leads_here: Callable[[str], Awaitable[bool]],
    present: Mapping[str, Any] | None = None,
) -> None:
    """Raises the error answer of a state event that nobody of ``server`` may send. ``leads_here`` says of an
    alias whether it is the room's own; it is asked of those that the ``present`` content does not have.
    """
    type_, key, content = step
    if not type_ or not ids.fits_255_bytes(type_) or not ids.fits_255_bytes(key):
        raise matrix_error(
            400, "M_INVALID_PARAM", f"a type and a state key must have at most {ids.MAX_BYTES} bytes"
        )
    if type_ == CREATE:
        raise matrix_error(400, "M_INVALID_PARAM", "a room is created once")
    check_values(content)
    if (type_, key) == ACL_KEY:
        acl = parse_acl(content)
        if acl is not None and not acl.allows(server):
            raise matrix_error(400, "M_BAD_JSON", f"this server ACL would bar {server} itself")
    if type_ == CANONICAL_ALIAS:
        more = content.get("alt_aliases", [])
        if not isinstance(more, list) or len(more) > _MAX_ALIASES:
            raise matrix_error(400, "M_BAD_JSON", f"alt_aliases is a list of {_MAX_ALIASES} aliases at most")
        known = _aliases_in(present or {})
        for one in [content.get("alias"), *more]:
            if one is None or one == "":
                continue
            if not ids.is_valid_alias(one):
                raise matrix_error(400, "M_INVALID_PARAM", f"{str(one)[:80]!r} is not an alias")
            if one not in known and not await leads_here(one):
                raise matrix_error(400, "M_BAD_ALIAS", f"{one} does not name this room")


def _aliases_in(content: Mapping[str, Any]) -> frozenset[str]:
    """The aliases that a room calls itself by."""
    first = canonical_alias(content)
    return frozenset([*alt_aliases(content), *([first] if first is not None else [])])
