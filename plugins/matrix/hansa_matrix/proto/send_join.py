"""The checks of a joining or invited server. SPEC: server-server API, "Joining Rooms", "Inviting to a
room".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hansa.model.errors import RemoteProtocolError

from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.rules import check_auth_events
from hansa_matrix.proto.auth_rules.state_keys import CREATE, CREATE_KEY
from hansa_matrix.proto.canonical_json import check_depth, check_values
from hansa_matrix.proto.event import MAX_DEPTH, Pdu, StateKey
from hansa_matrix.proto.pdu import (
    MAX_AUTH,
    MAX_PREV,
    STRIPPED_ON_RECEIPT,
    is_reference_list,
    parse_pdu,
    pdu_from_raw,
    required_servers,
)
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.signing import signatures_of
from hansa_matrix.proto.state_content import room_version
from hansa_matrix.proto.streaming.gathered_pdus import MAX_DROPPED
from hansa_matrix.proto.streaming.packed_pdus import pack_pdu, unpack_pdu

#: A resident may answer with this many events of state and chain together.
MAX_EVENTS = 200_000
_MAX_SERVERS = 10_000
#: The arrays of a send_join answer that are read as they come.
JOIN_ARRAYS = ("state", "auth_chain", "servers_in_room")
#: The fields of a whole event that a stripped one does not have.
_WHOLE = frozenset(["hashes", "signatures", "auth_events", "prev_events"])
_STEPS = frozenset(
    ["type", "room_id", "sender", "state_key", "content", "prev_events", "auth_events", "depth"]
)


def parse_make_join(
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
        if not isinstance(refs, list) or len(refs) > most or not is_reference_list(refs, version):
            raise RemoteProtocolError(f"the template's {name} must be a list of event IDs")
    if type(event.get("depth")) is not int or event["depth"] < 0:
        raise RemoteProtocolError("the template's depth must be an integer of at least 0")
    taken = {key: event[key] for key in _STEPS}
    taken["depth"] = min(event["depth"], MAX_DEPTH)  # in a room that is as deep as can be others count on
    check_values(taken)
    return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class SendJoinResponse:
    """A send_join answer, every event through check 1; ``dropped`` did not pass it, or are state twice."""

    state: tuple[Pdu, ...]
    chain: tuple[Pdu, ...]
    create: Pdu
    servers: tuple[str, ...]
    dropped: int
    #: The join as the resident gave it back; see ``with_returned_signatures``.
    event: Mapping[str, Any] | None = None


class SendJoinReader:
    """Reads a send_join answer as its members come, and keeps what a join needs of it, packed. A create event
    of another room version and a second one end the reading at once. So does an answer that is mostly no
    state of the room.
    """

    def __init__(self, room_id: str, version: RoomVersion) -> None:
        self._room_id = room_id
        self._version = version
        self._count = self._dropped = self._variants = 0
        #: By their mark: some residents give the state once more in the auth chain.
        self._known: dict[str, Pdu] = {}
        self._state: dict[StateKey, Pdu] = {}
        self._chain: dict[int, Pdu] = {}
        self._ids: set[str] = set()
        #: Events that nobody has looked at the signatures of yet.
        self.fresh: list[Pdu] = []
        self._create: Pdu | None = None
        self._servers: list[str] = []

    def add_values(self, name: str, values: list[Any]) -> None:
        """Some members of the array ``name``, one of ``JOIN_ARRAYS``. Raises RemoteProtocolError."""
        if name == "servers_in_room":
            named = [one for one in values if ids.is_valid_server_name(one)]
            self._servers += named[: _MAX_SERVERS - len(self._servers)]
            return
        self._count += len(values)
        if self._count > MAX_EVENTS:
            raise RemoteProtocolError(f"the send_join answer has over {MAX_EVENTS} events")
        for value in values:
            pdu = self._parse_event(value)
            if pdu is None or not (self._keep_state(pdu) if name == "state" else self._keep_chain(pdu)):
                self._dropped += 1
                if self._dropped > MAX_DROPPED + len(self._state) + len(self._chain):
                    raise RemoteProtocolError("the send_join answer is mostly no state of the room")

    def _parse_event(self, value: Any) -> Pdu | None:
        """The event, if it passes receipt check 1 and is of the room; one that did already is parsed once."""
        same = self._known.get(_fingerprint_of(value))
        if same is not None and _is_same_event(value, unpack_pdu(same, self._version).raw):
            return same
        try:
            pdu = pack_pdu(parse_pdu(value, self._version, bounded=False))
        except RemoteProtocolError:
            return None
        if pdu.room_id != self._room_id:
            return None
        if pdu.event_id in self._ids:  # other signatures, or other fields that no hash covers
            self._variants += 1
            if self._variants > MAX_DROPPED:
                raise RemoteProtocolError("the send_join answer has the same events in many forms")
        self._ids.add(pdu.event_id)
        self._known[_fingerprint_of(value)] = pdu
        self.fresh.append(pdu)
        return pdu

    def drop_events(self, pdus: Sequence[Pdu]) -> None:
        """Let go of events that nobody vouches for."""
        for pdu in pdus:
            self._ids.discard(pdu.event_id)
            self._chain.pop(id(pdu), None)
            if self._known.get(_fingerprint_of(pdu.raw)) is pdu:
                del self._known[_fingerprint_of(pdu.raw)]
            if pdu.state_key is not None and self._state.get(pdu.key) is pdu:
                del self._state[pdu.key]

    def _keep_state(self, pdu: Pdu) -> bool:
        """Keeps a state event: the first of two for one state key. False for a second one, and for an event
        that is not state.
        """
        if pdu.state_key is None:
            return False
        if pdu.key == CREATE_KEY and pdu.event_id != self._require_create(pdu).event_id:
            raise RemoteProtocolError("the room's state has several create events")
        if pdu.key in self._state:
            return False
        self._state[pdu.key] = pdu
        return True

    def _require_create(self, pdu: Pdu) -> Pdu:
        if self._create is None:
            if room_version(pdu.content) != self._version.id:
                raise RemoteProtocolError("the create event is of another room version")
            reject = check_auth_events(pdu, (), self._version)
            if reject is not None:  # nothing of such a room could be judged
                raise RemoteProtocolError(f"the create event breaks the rules: {reject.reason}")
            self._create = pdu
        return self._create

    def _keep_chain(self, pdu: Pdu) -> bool:
        again = id(pdu) in self._chain
        self._chain[id(pdu)] = pdu
        return not again

    def finish(self, rest: object) -> SendJoinResponse:
        """The answer, of which ``rest`` is what is in no such array. Raises RemoteProtocolError unless there
        is exactly one create event.
        """
        if not isinstance(rest, dict):
            raise RemoteProtocolError("the send_join answer must be an object")
        if not isinstance(rest.get("state"), list) or not isinstance(rest.get("auth_chain"), list):
            raise RemoteProtocolError("the send_join answer has no state or no auth chain")
        if self._create is None:
            raise RemoteProtocolError("the room's state has no create event")
        event = rest.get("event")
        return SendJoinResponse(
            state=tuple(self._state.values()),
            chain=tuple(self._chain.values()),
            create=self._create,
            servers=tuple(self._servers),
            dropped=self._dropped,
            event=event if isinstance(event, dict) else None,
        )


def parse_send_join(answer: object, room_id: str, version: RoomVersion) -> SendJoinResponse:
    """Parse a send_join answer that is there whole. Raises RemoteProtocolError as ``SendJoinReader``."""
    reader = SendJoinReader(room_id, version)
    if isinstance(answer, dict):
        for name in JOIN_ARRAYS:
            if isinstance(answer.get(name), list):
                reader.add_values(name, answer[name])
    return reader.finish(answer)


def _is_same_event(one: Any, raw: Mapping[str, Any]) -> bool:
    """True if parsing ``one`` would give ``raw``."""
    more = one.keys() - raw.keys()
    return more <= STRIPPED_ON_RECEIPT and all(
        name in one and one[name] == value for name, value in raw.items()
    )


def _fingerprint_of(raw: object) -> str:
    """Returns a key that is equal for two copies of one event, and rarely for others."""
    hashes = raw.get("hashes") if isinstance(raw, dict) else None
    mark = hashes.get("sha256") if isinstance(hashes, dict) else None
    return mark if isinstance(mark, str) else ""


def with_returned_signatures(join: Pdu, came: Mapping[str, Any] | None, version: RoomVersion) -> Pdu:
    """Our join as it came back, with the signature of the server that authorised it, which a restricted
    room's needs. Raises RemoteProtocolError if another event came back (J-5).
    """
    if came is None:
        return join
    if parse_pdu(came, version, bounded=False).event_id != join.event_id:
        raise RemoteProtocolError("the send_join answer is about another event")
    missing = required_servers(join, version) - join.raw["signatures"].keys()
    added = {server: signatures_of(came, server) for server in missing}
    return pdu_from_raw({**join.raw, "signatures": {**join.raw["signatures"], **added}}, version)


def check_stripped_state(state: Sequence[object], invite: Pdu, version: RoomVersion) -> None:
    """The state that goes along with an invite: events of some shape, and where the room's id is made of its
    create event, that event among well-formed ones. Raises RemoteProtocolError (400).

    COMPAT: these are whole events by the specification; Dendrite sends stripped ones, and Synapse takes both.
    """
    check_depth(list(state))
    events = [one for one in state if isinstance(one, dict)]
    if len(events) < len(state):
        raise RemoteProtocolError("each entry of invite_room_state must be an event", code="M_INVALID_PARAM")
    if not version.room_id_is_create_hash:
        return
    if not all(map(_is_stripped, events)):
        raise RemoteProtocolError("invite_room_state holds a malformed event", code="M_INVALID_PARAM")
    creates = [one for one in events if one["type"] == CREATE]
    if not creates:
        raise RemoteProtocolError("invite_room_state has no m.room.create", code="M_MISSING_PARAM")
    for one in creates:
        if _WHOLE.isdisjoint(one):
            continue
        try:
            room_id = parse_pdu(one, version).room_id
        except RemoteProtocolError as problem:
            text = f"the create event is malformed: {problem.reason}"
            raise RemoteProtocolError(text, code="M_INVALID_PARAM") from problem
        if room_id != invite.room_id:
            raise RemoteProtocolError("the create event is of another room", code="M_INVALID_PARAM")


def _is_stripped(event: Mapping[str, Any]) -> bool:
    """True if an event has all fields of a stripped state event."""
    named = (event.get(name) for name in ("type", "state_key"))
    whose = ids.is_valid_user_id(event.get("sender"))
    return whose and all(isinstance(one, str) for one in named) and isinstance(event.get("content"), dict)


def servers_of(state: Sequence[object]) -> frozenset[str]:
    """The servers whose people the shown state of a room is by."""
    senders = (one.get("sender") for one in state if isinstance(one, dict))
    return frozenset(ids.domain_of(s) for s in senders if isinstance(s, str) and ids.is_valid_user_id(s))
