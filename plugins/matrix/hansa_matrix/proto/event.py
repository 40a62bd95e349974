"""A PDU as the rules read it. SPEC: server-server API, "PDUs"; event format of room versions 1 to 12."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hansa.model.fast_dataclass import quick

from hansa_matrix.proto.state_content import membership_of

#: ``(type, state_key)``, the name of one piece of room state.
StateKey = tuple[str, str]
#: The greatest depth that an event may say of itself; what follows such a one says no more.
MAX_DEPTH = 2**53 - 1


@quick
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pdu:
    """One parsed PDU. Only ``proto.pdu`` makes these from a peer's bytes.

    ``content`` and ``raw`` are the peer's own objects and must not be changed. ``raw`` is the whole
    event as it hashes: no ``event_id``, no foreign ``unsigned``. ``wire`` is ``raw`` as canonical JSON
    (UTF-8), the form that is stored and sent. ``origin_server_ts`` is the sender's claim in milliseconds.
    ``room_id`` is filled in for the create event of a version 12 room, whose ``raw`` has none.
    ``signable`` is what its signatures cover, where parsing had to make it for the event id, else empty.
    """

    event_id: str
    room_id: str
    type: str
    sender: str
    state_key: str | None
    content: Mapping[str, Any]
    prev_events: tuple[str, ...]
    auth_events: tuple[str, ...]
    depth: int
    origin_server_ts: int
    raw: Mapping[str, Any]
    wire: bytes
    signable: bytes = b""

    @property
    def key(self) -> StateKey:
        """``(type, state_key)`` of a state event; a timeline event has none and raises."""
        if self.state_key is None:
            msg = f"{self.event_id} is not a state event"
            raise ValueError(msg)
        return (self.type, self.state_key)

    @property
    def membership(self) -> str | None:
        """Returns ``content.membership``; None where it is not a string."""
        return membership_of(self.content)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pdu) and other.event_id == self.event_id

    def __hash__(self) -> int:
        return hash(self.event_id)
