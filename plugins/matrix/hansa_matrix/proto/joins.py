"""What a joining or invited server checks. SPEC: server-server API, "Joining Rooms", "Inviting to a room"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hansa.pure.errors import RemoteProtocolError

from hansa_matrix.proto import ids
from hansa_matrix.proto.canonical import check_depth, check_values
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import MAX_AUTH, MAX_PREV, NOT_KEPT, cites, from_raw, parse, required_servers
from hansa_matrix.proto.signing import signatures_of
from hansa_matrix.proto.versions import RoomVersion

#: A resident may answer with this many events of state and chain together.
MAX_EVENTS = 200_000
_STEPS = frozenset(
    ["type", "room_id", "sender", "state_key", "content", "prev_events", "auth_events", "depth"]
)


def check_template(
    answer: object, room_id: str, user_id: str, membership: str, version: RoomVersion
) -> dict[str, Any]:
    """The event to complete out of a make_join or make_leave answer. Raises RemoteProtocolError if it is
    not the one that was asked for.
    """
    event = answer.get("event") if isinstance(answer, dict) else None
    if not isinstance(event, dict):
        raise RemoteProtocolError("the template has no event")
    content = event.get("content")
    wanted = {"type": "m.room.member", "room_id": room_id, "sender": user_id, "state_key": user_id}
    if any(event.get(key) != value for key, value in wanted.items()):
        raise RemoteProtocolError("the template is of another room or user")
    if not isinstance(content, dict) or content.get("membership") != membership:
        raise RemoteProtocolError(f"the template is not a {membership}")
    for name, most in (("prev_events", MAX_PREV), ("auth_events", MAX_AUTH)):
        refs = event.get(name)
        if not isinstance(refs, list) or len(refs) > most or not cites(refs, version):
            raise RemoteProtocolError(f"the template's {name} is no list of event ids")
    if type(event.get("depth")) is not int or event["depth"] < 0:
        raise RemoteProtocolError("the template's depth is no integer from 0")
    taken = {key: event[key] for key in _STEPS}
    check_values(taken)
    return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinAnswer:
    """A send_join answer, every event through check 1; ``dropped`` did not pass it, or are state twice."""

    state: tuple[Pdu, ...]
    chain: tuple[Pdu, ...]
    create: Pdu
    servers: tuple[str, ...]
    dropped: int
    #: The join as the resident gave it back; see ``joined``.
    event: Mapping[str, Any] | None = None


def check_answer(answer: object, room_id: str, version: RoomVersion) -> JoinAnswer:
    """Parse a send_join answer. Raises RemoteProtocolError unless there is exactly one create event, of the
    expected version and room.
    """
    if not isinstance(answer, dict):
        raise RemoteProtocolError("the send_join answer is no object")
    raw_state, raw_chain = answer.get("state"), answer.get("auth_chain")
    if not isinstance(raw_state, list) or not isinstance(raw_chain, list):
        raise RemoteProtocolError("the send_join answer has no state or no auth chain")
    if len(raw_state) + len(raw_chain) > MAX_EVENTS:
        raise RemoteProtocolError(f"the send_join answer has over {MAX_EVENTS} events")
    state = _events(raw_state, room_id, version, {})
    # Some residents give the state once more in the auth chain.
    chain = _events(raw_chain, room_id, version, {_mark(p.raw): p for p in state})
    creates = {p for p in state if p.type == "m.room.create" and p.state_key == ""}
    if len(creates) != 1:
        raise RemoteProtocolError(f"the room's state has {len(creates)} create events")
    # Of two events for one piece of state the first counts; one with no state key is no state.
    first = {p.key: p for p in reversed(state) if p.state_key is not None}
    kept = tuple(p for p in state if p.state_key is not None and first[p.key] is p)
    create = creates.pop()
    if create.content.get("room_version", "1") != version.id:
        raise RemoteProtocolError("the create event is of another room version")
    servers = answer.get("servers_in_room")
    named = [s for s in servers if ids.valid_server_name(s)] if isinstance(servers, list) else []
    event = answer.get("event")
    return JoinAnswer(
        state=kept,
        chain=tuple(chain),
        create=create,
        servers=tuple(named[:10_000]),
        dropped=len(raw_state) + len(raw_chain) - len(kept) - len(chain),
        event=event if isinstance(event, dict) else None,
    )


def _events(raw: Sequence[object], room_id: str, version: RoomVersion, known: Mapping[str, Pdu]) -> list[Pdu]:
    """Those that pass receipt check 1 and are of the room; ``known`` ones, by their mark, did already."""
    found = []
    for one in raw:
        same = known.get(_mark(one)) if known else None
        if same is not None and _same(one, same.raw):
            found.append(same)
            continue
        with suppress(RemoteProtocolError):
            pdu = parse(one, version, bounded=False)
            if pdu.room_id == room_id:
                found.append(pdu)
    return found


def _same(one: Any, raw: Mapping[str, Any]) -> bool:
    """Whether parsing ``one`` would give ``raw``."""
    more = one.keys() - raw.keys()
    return more <= NOT_KEPT and all(name in one and one[name] == value for name, value in raw.items())


def _mark(raw: object) -> str:
    """What two objects that are the same event have in common; others rarely."""
    hashes = raw.get("hashes") if isinstance(raw, dict) else None
    mark = hashes.get("sha256") if isinstance(hashes, dict) else None
    return mark if isinstance(mark, str) else ""


def joined(join: Pdu, answer: JoinAnswer, version: RoomVersion) -> Pdu:
    """Our join as it came back, with the signature of the server that authorised it, which a restricted
    room's needs. Raises RemoteProtocolError if another event came back (J-5).
    """
    if answer.event is None:
        return join
    if parse(answer.event, version, bounded=False).event_id != join.event_id:
        raise RemoteProtocolError("the send_join answer is about another event")
    missing = required_servers(join, version) - join.raw["signatures"].keys()
    added = {server: signatures_of(answer.event, server) for server in missing}
    return from_raw({**join.raw, "signatures": {**join.raw["signatures"], **added}}, version)


def check_shown(state: Sequence[object], invite: Pdu, version: RoomVersion) -> None:
    """The state that goes along with an invite: events of some shape, and where the room's id is made of its
    create event, that event. Raises RemoteProtocolError (400).
    """
    check_depth(list(state))
    events = [one for one in state if isinstance(one, dict)]
    if len(events) < len(state):
        raise RemoteProtocolError("invite_room_state holds what is no event", code="M_INVALID_PARAM")
    if not version.hashed_room_id:
        return
    creates = [one for one in events if one.get("type") == "m.room.create"]
    if not creates:
        raise RemoteProtocolError("invite_room_state has no m.room.create", code="M_MISSING_PARAM")
    if any(parse(one, version).room_id != invite.room_id for one in creates):
        raise RemoteProtocolError("the create event is of another room", code="M_INVALID_PARAM")


def senders_of(state: Sequence[object]) -> frozenset[str]:
    """The servers whose people the shown state of a room is by."""
    senders = (one.get("sender") for one in state if isinstance(one, dict))
    return frozenset(ids.domain_of(s) for s in senders if isinstance(s, str) and ids.valid_user_id(s))
