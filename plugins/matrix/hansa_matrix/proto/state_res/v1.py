"""State resolution of version 1 rooms.

SPEC: Matrix v1.19, room version 1, "State resolution". Unlike later versions it asks only for what the given
states hold: no auth chain is read, and a piece of state that some of them lack is not in dispute.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from hashlib import sha1

from hansa_matrix.proto.auth_rules.membership import ThirdPartyOk
from hansa_matrix.proto.auth_rules.rules import check_event_auth
from hansa_matrix.proto.auth_rules.state_keys import (
    CREATE_KEY,
    JOIN_RULES,
    MEMBER,
    POWER_LEVELS_KEY,
    auth_event_keys_of,
)
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.state_res.auth_graph import MissingAuthEvents

StateIds = Mapping[StateKey, str]


def resolve_v1(
    version: RoomVersion,
    state_sets: Sequence[StateIds],
    fetch: Callable[[str], Pdu | None],
    rejected: Container[str],
    third_party_ok: ThirdPartyOk,
) -> dict[StateKey, str]:
    """Returns the resolution of ``state_sets``. Raises ``MissingAuthEvents`` as ``v2.resolve_state``. A
    rejected event is not a candidate and authorises nothing; without a conflict, it stands.
    """
    undisputed, disputed = _split_conflicted(state_sets)
    listed = {key: sorted(e for e in ids if e not in rejected) for key, ids in disputed.items()}
    events = _fetch_all(fetch, (e for ids in listed.values() for e in ids))
    named = {key: [events[e] for e in ids] for key, ids in listed.items() if len(ids) > 1}
    wanted = {key for pdu in events.values() for key in auth_event_keys_of(pdu, version)} | {CREATE_KEY}
    # COMPAT: what a single candidate is left for does not authorise the others, as servers have it.
    chosen = [
        undisputed[key] for key in wanted if undisputed.get(key, "") not in rejected and key in undisputed
    ]
    state = {pdu.key: pdu for pdu in _fetch_all(fetch, chosen).values()}
    undisputed |= {key: ids[0] for key, ids in listed.items() if len(ids) == 1}

    def is_allowed(pdu: Pdu, seen: Mapping[StateKey, Pdu]) -> bool:
        return check_event_auth(pdu, seen, version, third_party_ok=third_party_ok) is None

    resolved: dict[StateKey, Pdu] = {}
    for stage in (lambda key: key == POWER_LEVELS_KEY, _of_type(JOIN_RULES), _of_type(MEMBER)):
        staged = {key: pdus for key, pdus in named.items() if stage(key)}
        made = {key: _last_passing(pdus, state, version, is_allowed) for key, pdus in staged.items()}
        resolved |= made
        state |= made
    for key, pdus in named.items():
        if key not in resolved:
            resolved[key] = _first_passing(pdus, state, is_allowed)
    return undisputed | {key: pdu.event_id for key, pdu in resolved.items()}


def _split_conflicted(state_sets: Sequence[StateIds]) -> tuple[dict[StateKey, str], dict[StateKey, set[str]]]:
    found: dict[StateKey, set[str]] = {}
    for one in state_sets:
        for key, event_id in one.items():
            found.setdefault(key, set()).add(event_id)
    undisputed = {key: next(iter(ids)) for key, ids in found.items() if len(ids) == 1}
    return undisputed, {key: ids for key, ids in found.items() if len(ids) > 1}


def _fetch_all(fetch: Callable[[str], Pdu | None], event_ids: Iterable[str]) -> dict[str, Pdu]:
    found = {event_id: fetch(event_id) for event_id in event_ids}
    missing = [event_id for event_id, pdu in found.items() if pdu is None]
    if missing:
        raise MissingAuthEvents(missing)
    return {event_id: pdu for event_id, pdu in found.items() if pdu is not None}


def _of_type(type_: str) -> Callable[[StateKey], bool]:
    return lambda key: key[0] == type_


def _deepest_first(pdus: Iterable[Pdu]) -> list[Pdu]:
    """By falling depth; of one depth by the rising SHA-1 of their ids, an order that nobody can choose."""
    return sorted(pdus, key=lambda p: (-p.depth, sha1(p.event_id.encode(), usedforsecurity=False).digest()))


_Allowed = Callable[[Pdu, Mapping[StateKey, Pdu]], bool]


def _last_passing(
    pdus: Sequence[Pdu], state: Mapping[StateKey, Pdu], version: RoomVersion, allowed: _Allowed
) -> Pdu:
    """The least deep event, and then each that the one before lets follow, until one is not."""
    selected = {key for pdu in pdus for key in auth_event_keys_of(pdu, version)} | {CREATE_KEY}
    seen = {key: state[key] for key in selected if key in state}
    chosen, *later = reversed(_deepest_first(pdus))
    for pdu in later:
        seen[chosen.key] = chosen
        if not allowed(pdu, seen):
            break
        chosen = pdu
    return chosen


def _first_passing(pdus: Sequence[Pdu], state: Mapping[StateKey, Pdu], allowed: _Allowed) -> Pdu:
    """The deepest event that the state allows; the least deep one if it allows none."""
    ordered = _deepest_first(pdus)
    return next((pdu for pdu in ordered if allowed(pdu, state)), ordered[-1])
