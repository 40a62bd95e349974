"""The readable form of stored events: for users, and for other servers.

An event that a local policy withholds counts in its room's state, since every server has it there. Users see
the state before it: the last value of its key that they may see. Of an event that the room's rules depend on,
such as a membership, they see what a redaction would leave. Other servers need the event itself to continue:
they get it as a redaction would leave it, whose hash and signatures stay valid.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import replace

from hansa_matrix.proto.auth_rules.state_keys import (
    CREATE,
    HISTORY_VISIBILITY,
    JOIN_RULES,
    MEMBER,
    POWER_LEVELS,
)
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.pdu import redact_pdu
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.rooms.event_store import Status, StoredEvent
from hansa_matrix.rooms.state.state_groups import StateGroups, StateIds
from hansa_matrix.texts import without_texts

#: Events by their ids, as far as they are here.
Load = Callable[[Iterable[str]], Awaitable[Mapping[str, StoredEvent]]]

#: Types of which people have to know what a redaction leaves, however it came about.
_RULES = frozenset({CREATE, MEMBER, JOIN_RULES, POWER_LEVELS, HISTORY_VISIBILITY})
#: The visible fields of a withheld create event, whose content no redaction touches since version 11.
_OF_CREATE = frozenset({"creator", "room_version", "m.federate", "additional_creators"})
_WITHHELD = Status.WITHHELD
#: Earlier events of a key that are looked at.
_BACK = 20


def for_servers(stored: StoredEvent, version: RoomVersion) -> StoredEvent:
    """An event as other servers may have it."""
    return replace(stored, pdu=redact_pdu(stored.pdu, version)) if stored.by_policy else stored


def is_of(pdu: Pdu, people: Collection[str]) -> bool:
    """True if some of these users sent an event, or it is another user's change of their membership, such as
    an invite that names them.
    """
    return pdu.sender in people or (pdu.type == MEMBER and pdu.state_key in people)


def without_names(stored: StoredEvent, version: RoomVersion, erased: Collection[str]) -> StoredEvent:
    """An event of a state for who was not there: of the erased there are memberships, and no names."""
    pdu = stored.pdu
    if pdu.type != MEMBER or pdu.state_key not in erased or "third_party_invite" in pdu.content:
        return stored
    return replace(stored, pdu=redact_pdu(pdu, version))


def of_erased(pdu: Pdu, version: RoomVersion, erased: Collection[str]) -> Pdu:
    """An event for who was not there: of the erased what a redaction leaves."""
    return redact_pdu(pdu, version) if is_of(pdu, erased) else pdu


def effect_without_texts(pdu: Pdu, version: RoomVersion) -> Pdu:
    """Returns the effect of a withheld event without its texts: a redaction alone leaves texts too, such as
    types that have a level, or the conditions of a join rule.
    """
    bare = redact_pdu(pdu, version)
    content = without_texts(bare.content)
    if pdu.type == CREATE:
        content = {key: value for key, value in content.items() if key in _OF_CREATE}
    return replace(bare, content=content, raw={**bare.raw, "content": content})


async def shown_of(
    state: StateIds, keys: Iterable[StateKey] | None, load: Load, groups: StateGroups, version: RoomVersion
) -> dict[StateKey, Pdu]:
    """The events of some keys of a state, of all without ``keys``, as people may be shown them. A key is left
    out whose event may not be shown, and none before it.
    """
    return {key: one.pdu for key, one in (await places_of(state, keys, load, groups, version)).items()}


async def places_of(
    state: StateIds, keys: Iterable[StateKey] | None, load: Load, groups: StateGroups, version: RoomVersion
) -> dict[StateKey, StoredEvent]:
    """As ``shown_of``, with the places of the events in the room."""
    wanted = state if keys is None else {key: state[key] for key in keys if key in state}
    stored = await load(wanted.values())
    found = {key: stored[event_id] for key, event_id in wanted.items() if event_id in stored}
    for one in [one for one in stored.values() if one.status is _WITHHELD and one.by_policy]:
        instead = await _replacement_of(one, load, groups, version)
        if instead is not None:
            found[one.pdu.key] = instead
        else:
            found.pop(one.pdu.key, None)
    return found


async def _replacement_of(
    one: StoredEvent, load: Load, groups: StateGroups, version: RoomVersion
) -> StoredEvent | None:
    """Returns the event that users see in the place of a withheld state event."""
    if one.pdu.type in _RULES and (one.pdu.type == MEMBER or not one.pdu.state_key):
        return replace(one, pdu=effect_without_texts(one.pdu, version))
    key, at = one.pdu.key, one
    for _ in range(_BACK):
        before = (await groups.load(at.before)).get(key)
        earlier = (await load([before])).get(before) if before is not None else None
        if earlier is None or not earlier.by_policy:
            return earlier
        at = earlier
    return None
