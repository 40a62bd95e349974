"""What a joining or invited server checks. SPEC: server-server API, "Joining Rooms", "Inviting to a room"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hansa.pure.errors import RemoteProtocolError

from hansa_matrix.proto import ids
from hansa_matrix.proto.canonical import check_depth
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import MAX_AUTH, MAX_PREV, parse
from hansa_matrix.proto.versions import RoomVersion

#: A resident may answer with this many events of state and chain together.
MAX_EVENTS = 200_000
_STEPS = frozenset(
    ["type", "room_id", "sender", "state_key", "content", "prev_events", "auth_events", "depth"]
)


def check_template(answer: object, room_id: str, user_id: str, membership: str) -> dict[str, Any]:
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
        if not isinstance(refs, list) or len(refs) > most or not all(map(ids.valid_event_id, refs)):
            raise RemoteProtocolError(f"the template's {name} is no list of event ids")
    if type(event.get("depth")) is not int:
        raise RemoteProtocolError("the template's depth is no integer")
    return {key: event[key] for key in _STEPS}


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinAnswer:
    """A send_join answer, every event through check 1; ``dropped`` did not pass it."""

    state: tuple[Pdu, ...]
    chain: tuple[Pdu, ...]
    create: Pdu
    servers: tuple[str, ...]
    dropped: int
    #: The join as the resident signed it, for a restricted room.
    event: Mapping[str, Any] | None = None


def check_answer(answer: object, room_id: str, version: RoomVersion) -> JoinAnswer:
    """Parse a send_join answer. Raises RemoteProtocolError unless there is exactly one create event, of the
    expected version and room.
    """
    if not isinstance(answer, dict):
        raise RemoteProtocolError("the send_join answer is no object")
    lists = answer.get("state"), answer.get("auth_chain")
    state, chain = lists
    if not isinstance(state, list) or not isinstance(chain, list) or len(state) + len(chain) > MAX_EVENTS:
        raise RemoteProtocolError("the send_join answer has no state or too much of it")
    dropped, parsed = 0, ([], [])  # type: tuple[int, tuple[list[Pdu], list[Pdu]]]
    for raw, good in zip((state, chain), parsed, strict=True):
        for one in raw:
            try:
                pdu = parse(one, version, bounded=False)
            except RemoteProtocolError:
                dropped += 1
                continue
            if pdu.room_id == room_id:
                good.append(pdu)
            else:
                dropped += 1
    creates = {p for p in parsed[0] if p.type == "m.room.create" and p.state_key == ""}
    if len(creates) != 1:
        raise RemoteProtocolError(f"the room's state has {len(creates)} create events")
    create = creates.pop()
    if create.content.get("room_version", "1") != version.id:
        raise RemoteProtocolError("the create event is of another room version")
    servers = answer.get("servers_in_room")
    named = [s for s in servers if ids.valid_server_name(s)] if isinstance(servers, list) else []
    event = answer.get("event")
    return JoinAnswer(
        state=tuple(parsed[0]),
        chain=tuple(parsed[1]),
        create=create,
        servers=tuple(named[:10_000]),
        dropped=dropped,
        event=event if isinstance(event, dict) else None,
    )


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
