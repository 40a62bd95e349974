"""What is kept of the state that goes along with an invite or a knock. SPEC: client-server API, "Stripped
state".

The specification names a few events; a server may send anything of any size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson

#: Types of the events that are shown, the most important first.
TYPES: Final = (
    "m.room.create",
    "m.room.join_rules",
    "m.room.name",
    "m.room.encryption",
    "m.room.canonical_alias",
    "m.room.avatar",
    "m.room.topic",
)
_MEMBER = "m.room.member"
_SHOWN = ("type", "state_key", "content", "sender", "origin_server_ts")
#: Bytes of all of them together.
MOST_STRIPPED: Final = 32 * 1024


def stripped_state(state: Iterable[Any], sender: str) -> list[dict[str, Any]]:
    """One event of each type that a person is shown of a room, and who asks them in, ``sender``; of each what
    is shown of it, in at most ``MOST_STRIPPED`` bytes. What does not fit is left out.
    """
    given: dict[tuple[Any, Any], dict[str, Any]] = {}
    for one in state:
        if (
            isinstance(one, dict)
            and isinstance(one.get("type"), str)
            and isinstance(one.get("state_key"), str)
        ):
            given.setdefault((one["type"], one["state_key"]), one)
    kept, size = [], 0
    for key in (("m.room.create", ""), (_MEMBER, sender), *((type_, "") for type_ in TYPES[1:])):
        if key not in given:
            continue
        shown = {name: given[key][name] for name in _SHOWN if name in given[key]}
        size_of = len(orjson.dumps(shown))
        if size + size_of <= MOST_STRIPPED:
            kept.append(shown)
            size += size_of
    return kept
