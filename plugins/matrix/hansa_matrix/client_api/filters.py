"""Which events a client wants. SPEC: client-server API, "Filtering"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import orjson

from hansa_matrix.federation.server import error
from hansa_matrix.proto.event import Pdu

_MOST_LISTED = 1000
#: Events of a timeline, where a client says nothing, and the most that it may ask for.
_LIMIT, _MOST = 10, 100


def _names(value: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    given = value.get(key)
    if given is None:
        return None
    if not isinstance(given, list) or len(given) > _MOST_LISTED or not all(isinstance(x, str) for x in given):
        raise error(400, "M_BAD_JSON", f"{key} of a filter is no list of names")
    return tuple(given)


def _object(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    given = value.get(key, {})
    if not isinstance(given, dict):
        raise error(400, "M_BAD_JSON", f"{key} of a filter is no object")
    return given


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Of one kind of events. None lets all pass."""

    types: tuple[str, ...] | None = None
    not_types: tuple[str, ...] = ()
    senders: tuple[str, ...] | None = None
    not_senders: tuple[str, ...] = ()
    rooms: tuple[str, ...] | None = None
    not_rooms: tuple[str, ...] = ()
    limit: int = _LIMIT
    lazy: bool = False
    with_url: bool | None = None

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> EventFilter:
        """Out of its JSON. Raises the error answer of what is none."""
        limit, lazy, url = (
            value.get("limit", _LIMIT),
            value.get("lazy_load_members", False),
            value.get("contains_url"),
        )
        if type(limit) is not int or limit < 0 or not isinstance(lazy, bool):
            raise error(400, "M_BAD_JSON", "a limit is a number from 0, and lazy_load_members true or false")
        return cls(
            types=_names(value, "types"),
            not_types=_names(value, "not_types") or (),
            senders=_names(value, "senders"),
            not_senders=_names(value, "not_senders") or (),
            rooms=_names(value, "rooms"),
            not_rooms=_names(value, "not_rooms") or (),
            limit=min(limit, _MOST),
            lazy=lazy,
            with_url=url if isinstance(url, bool) else None,
        )

    @classmethod
    def read(cls, text: str) -> EventFilter:
        """Out of a query."""
        return cls.of(parsed(text)) if text else cls()

    @property
    def open(self) -> bool:
        """Whether it lets every event pass."""
        return self == EventFilter(limit=self.limit, lazy=self.lazy)

    def takes(self, pdu: Pdu) -> bool:
        """Whether an event is wanted."""
        if self.open:
            return True
        if self.with_url is not None and isinstance(pdu.content.get("url"), str) is not self.with_url:
            return False
        return self.named(pdu.type, pdu.sender, pdu.room_id)

    def named(self, type_: str, sender: str = "", room_id: str = "") -> bool:
        """Whether something of a type, sender and room is wanted."""
        if any(fnmatchcase(type_, one) for one in self.not_types) or sender in self.not_senders:
            return False
        if self.types is not None and not any(fnmatchcase(type_, one) for one in self.types):
            return False
        if self.senders is not None and sender not in self.senders:
            return False
        return self.room(room_id)

    def room(self, room_id: str) -> bool:
        """Whether a room is wanted."""
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncFilter:
    """What a client wants of a sync."""

    rooms: EventFilter = field(default_factory=EventFilter)
    timeline: EventFilter = field(default_factory=EventFilter)
    state: EventFilter = field(default_factory=EventFilter)
    ephemeral: EventFilter = field(default_factory=EventFilter)
    room_data: EventFilter = field(default_factory=EventFilter)
    data: EventFilter = field(default_factory=EventFilter)
    presence: EventFilter = field(default_factory=EventFilter)
    include_leave: bool = False

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> SyncFilter:
        """Out of its JSON. Raises the error answer of what is none."""
        room = _object(value, "room")
        return cls(
            rooms=EventFilter.of({k: room[k] for k in ("rooms", "not_rooms") if k in room}),
            timeline=EventFilter.of(_object(room, "timeline")),
            state=EventFilter.of(_object(room, "state")),
            ephemeral=EventFilter.of(_object(room, "ephemeral")),
            room_data=EventFilter.of(_object(room, "account_data")),
            data=EventFilter.of(_object(value, "account_data")),
            presence=EventFilter.of(_object(value, "presence")),
            include_leave=room.get("include_leave") is True,
        )


def parsed(text: str) -> Mapping[str, Any]:
    """A JSON object in a query. Raises the error answer of what is none."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as problem:
        raise error(400, "M_INVALID_PARAM", "the filter is no JSON") from problem
    if not isinstance(value, dict):
        raise error(400, "M_INVALID_PARAM", "the filter is no object")
    return value
