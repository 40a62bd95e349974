"""The parts of a replaced room that survive: the events that the new room begins with.

SPEC: client-server API, "Room Upgrades".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import (
    ACL_KEY,
    CREATE_KEY,
    MEMBER,
    POWER_LEVELS,
    POWER_LEVELS_KEY,
)
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.servers.server_acl import parse_acl
from hansa_matrix.proto.state_content import alt_aliases, canonical_alias, is_federated, room_type
from hansa_matrix.rooms.create_room import PUBLIC, InitialEvent, RoomTemplate
from hansa_matrix.rooms.directory.aliases import RoomAlias
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.upgrade.inherited_levels import inherit_power_levels, raise_power_levels

_ALIAS_EVENT = "m.room.canonical_alias"
_COPIED = frozenset(
    [
        "m.room.server_acl",
        "m.room.encryption",
        "m.room.name",
        "m.room.avatar",
        "m.room.topic",
        "m.room.guest_access",
        "m.room.history_visibility",
        "m.room.join_rules",
    ]
)
#: State that says something, and rules nothing.
_SAID = frozenset({"m.room.name", "m.room.avatar", "m.room.topic", _ALIAS_EVENT})


def is_copied(event: Pdu) -> bool:
    """True if the new room gets only the visible content of an event. The others are copied even if withheld:
    such an event may be a rule, without which the new room would be less safe than the old one.
    """
    return event.membership == "ban" if event.type == MEMBER else event.type in _SAID and not event.state_key


def successor_template(
    old: MatrixRoom,
    state: Mapping[StateKey, Pdu],
    version: RoomVersion,
    creators: Sequence[str],
    names: Sequence[RoomAlias],
) -> RoomTemplate:
    """How the new room begins: what outlives the old one, on its levels. The first of ``creators`` makes
    it.
    """
    said = state[CREATE_KEY].content
    create: dict[str, Any] = {"predecessor": {"room_id": old.room_id}}
    if (kind := room_type(said)) is not None:
        create["type"] = kind
    if not is_federated(said):
        create["m.federate"] = False
    if not version.room_id_is_create_hash:
        create["predecessor"]["event_id"] = next(iter(old.head.extremities))
    if version.privileged_creators and creators[1:]:
        create["additional_creators"] = list(creators[1:])
    own = ids.domain_of(creators[0])
    copied: list[InitialEvent] = [
        (p.type, p.state_key or "", dict(p.content))
        for p in state.values()
        if (p.type in _COPIED and not p.state_key) or (p.type == MEMBER and p.membership == "ban")
        if p.key != ACL_KEY
        or parse_acl(p.content).allows(own)  # a room of this server that bars it would serve no user
    ]
    given = {type_ for type_, key, _ in copied if not key}
    steps = [step for step in PUBLIC if step[0] not in given] + copied + _canonical_alias_events(state, names)
    present = state.get(POWER_LEVELS_KEY)
    if present is None:
        return RoomTemplate(create=create, then=steps, replaces=old.room_id)
    levels = old.levels(state[CREATE_KEY], present, old.version)
    final = inherit_power_levels(present.content, levels, old.version, version, creators)
    first = final if version.privileged_creators else raise_power_levels(final, creators[0], levels, steps)
    if first != final:  # who was lower in the old room is as low in the new one, once it is made
        steps.append((POWER_LEVELS, "", final))
    return RoomTemplate(create=create, levels=first, then=steps, replaces=old.room_id)


def _canonical_alias_events(state: Mapping[StateKey, Pdu], names: Sequence[RoomAlias]) -> list[InitialEvent]:
    """The names that the room calls itself by, of those which are its own."""
    event = state.get((_ALIAS_EVENT, ""))
    if event is None:
        return []
    owned = {one.name for one in names}
    first = canonical_alias(event.content)
    content: dict[str, Any] = {"alias": first} if first in owned else {}
    others = [one for one in alt_aliases(event.content) if one in owned]
    if others:
        content["alt_aliases"] = others
    return [(_ALIAS_EVENT, "", content)] if content else []
