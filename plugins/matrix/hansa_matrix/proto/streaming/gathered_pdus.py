"""PDUs and event ids out of an answer that is read as it comes: each looked at once, nothing else kept.

SPEC: server-server API, "Retrieving events".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hansa.model.errors import RemoteProtocolError

from hansa_matrix.proto import ids
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import parse_pdu
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.streaming.packed_pdus import pack_pdu

#: So many elements may fail receipt check 1, or be of another room, before there are as many that do not.
MAX_DROPPED = 100


class GatheredPdus:
    """The PDUs of one room, packed, each once however often it came, through receipt check 1. ``dropped``
    counts those that did not pass it, ``foreign`` are the ids of those of other rooms.
    """

    def __init__(self, room_id: str, version: RoomVersion) -> None:
        self._room_id = room_id
        self._version = version
        self.pdus: dict[str, Pdu] = {}
        #: Those that nobody has looked at the signatures of yet, and the first that nobody vouches for.
        self.fresh: list[Pdu] = []
        self.unsigned: list[Pdu] = []
        self.dropped = 0
        self.foreign: set[str] = set()

    def add_values(self, _name: str, values: list[Any]) -> None:
        """Some elements. Raises RemoteProtocolError once most of what came is of no use."""
        for value in values:
            try:
                pdu = pack_pdu(parse_pdu(value, self._version, bounded=False))
            except RemoteProtocolError:
                self.dropped += 1
            else:
                if pdu.event_id in self.pdus:
                    continue
                if pdu.room_id == self._room_id:
                    self.pdus[pdu.event_id] = pdu
                    self.fresh.append(pdu)
                else:
                    self.foreign.add(pdu.event_id)
            if self.dropped + len(self.foreign) > MAX_DROPPED + len(self.pdus):
                raise RemoteProtocolError("most of the answer's entries are not events of the room")

    def drop_events(self, pdus: Sequence[Pdu]) -> None:
        """Let go of events that nobody vouches for."""
        for pdu in pdus:
            self.pdus.pop(pdu.event_id, None)
        self.unsigned += pdus[: MAX_DROPPED - len(self.unsigned)]


class GatheredIds:
    """Event ids by the array that they stood in, each once."""

    def __init__(self) -> None:
        self._ids: dict[str, dict[str, None]] = {}
        self._dropped = 0

    def add_values(self, name: str, values: list[Any]) -> None:
        """Some elements. Raises RemoteProtocolError once most of what came is of no use."""
        found = self._ids.setdefault(name, {})
        for value in values:
            if ids.is_valid_event_id(value):
                found[value] = None
            else:
                self._dropped += 1
        if self._dropped > MAX_DROPPED + len(found):
            raise RemoteProtocolError("most of the answer's entries are not event IDs")

    def ids_of(self, name: str) -> list[str]:
        """Those of one array."""
        return list(self._ids.get(name, {}))
