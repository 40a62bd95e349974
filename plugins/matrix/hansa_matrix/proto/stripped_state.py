"""The stored part of the state that comes with an invite or a knock. SPEC: client-server API, "Stripped
state".

The specification names a few events; a server may send anything of any size. Only signed events can be
checked: the others are the claims of their sender. So only claims about the room and about the inviting user
are stored: the name of a third user, or of a local one, would be shown as if it were theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import orjson

from hansa_matrix.proto.auth_rules.state_keys import CREATE, CREATE_KEY, MEMBER
from hansa_matrix.proto.event import StateKey
from hansa_matrix.proto.ids import domain_of, is_valid_user_id

#: Types of the events that are shown, the most important first, with the strings of their content that are.
_CONTENT_KEYS: Final[Mapping[str, frozenset[str]]] = {
    CREATE: frozenset({"type", "room_version", "creator"}),
    "m.room.join_rules": frozenset({"join_rule"}),
    "m.room.name": frozenset({"name"}),
    "m.room.encryption": frozenset({"algorithm"}),
    "m.room.canonical_alias": frozenset({"alias"}),
    "m.room.avatar": frozenset({"url"}),
    "m.room.topic": frozenset({"topic"}),
}
TYPES: Final = tuple(_CONTENT_KEYS)
#: The state that an invited or knocking person is shown of a room, besides who invites them.
STRIPPED_KEYS: Final[tuple[StateKey, ...]] = tuple((type_, "") for type_ in TYPES)
_MEMBER_CONTENT_KEYS: Final = frozenset({"membership", "displayname", "avatar_url"})
#: The fields of an event that is stripped.
STRIPPED_FIELDS: Final = ("type", "state_key", "content", "sender", "origin_server_ts")
#: Bytes of all of them together.
MAX_STRIPPED_SIZE: Final = 32 * 1024


def stripped_event(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event of a room's state for a person who is not in the room."""
    return {name: event[name] for name in STRIPPED_FIELDS if name in event}


def stripped_state(
    state: Iterable[Any], sender: str, *, server: str = "", signed: Collection[int] = frozenset()
) -> list[dict[str, Any]]:
    """One event of each type that a person is shown of a room, and who asks them in, ``sender``; of each what
    is shown of it, in at most ``MAX_STRIPPED_SIZE`` bytes. Events that do not fit are left out.

    What people of ``server``, which is ours, are said to have said is kept only if it has our signature:
    ``signed`` are the places in ``state`` of events whose signatures hold.
    """
    given: dict[tuple[Any, Any], dict[str, Any]] = {}
    for at, one in enumerate(state):
        if (
            isinstance(one, dict)
            and isinstance(one.get("type"), str)
            and isinstance(one.get("state_key"), str)
            and isinstance(one.get("content"), dict)
            and is_valid_user_id(one.get("sender"))
            and (at in signed or domain_of(one["sender"]) != server)
            and (one["type"] != MEMBER or one["sender"] == one["state_key"])
        ):
            given.setdefault((one["type"], one["state_key"]), one)
    kept, size = [], 0
    for key in (CREATE_KEY, (MEMBER, sender), *STRIPPED_KEYS[1:]):
        if key not in given:
            continue
        says = _MEMBER_CONTENT_KEYS if key[0] == MEMBER else _CONTENT_KEYS[key[0]]
        content = {k: v for k, v in given[key]["content"].items() if k in says and isinstance(v, str)}
        shown = stripped_event(given[key]) | {"content": content}
        size_of = len(orjson.dumps(shown))
        if size + size_of <= MAX_STRIPPED_SIZE:
            kept.append(shown)
            size += size_of
    return kept
