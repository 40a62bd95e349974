"""The filter of a client: which events it wants, and in which form. SPEC: client-server API, "Filtering".

A filter that is not valid is refused where it is given: with ``M_BAD_JSON`` in a body, with
``M_INVALID_PARAM`` in a query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from hansa import Glob

from hansa_matrix.errors import matrix_error
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.push_rules import split_property_path
from hansa_matrix.proto.state_content import string_field

_MAX_LISTED = 1000
#: Patterns of types in one list, and paths of fields: each is looked at for each event.
MAX_PATTERNS, MAX_FIELDS = 50, 100
#: Events of a timeline, where a client says nothing, and the most that it may ask for.
_DEFAULT_LIMIT, _MAX_LIMIT = 10, 100
#: The fields that an event always keeps: without them no client can read it.
_REQUIRED_FIELDS = ("type", "event_id", "room_id", "sender", "state_key", "origin_server_ts")

T = TypeVar("T")


class NoFilter(ValueError):
    """The reason why a value is not a filter."""


def _parse_names(value: Mapping[str, Any], key: str, begins: str = "") -> tuple[str, ...] | None:
    given = value.get(key)
    if given is None:
        return None
    if not isinstance(given, list) or len(given) > _MAX_LISTED or not all(isinstance(x, str) for x in given):
        raise NoFilter(f"{key} of a filter must be a list of names, of {_MAX_LISTED} at most")
    if not all(one.startswith(begins) for one in given):
        raise NoFilter(f"what {key} of a filter lists begins with {begins}")
    return tuple(given)


def _as_set(given: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if given is None else frozenset(given)


def _require_object(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    given = value.get(key)
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise NoFilter(f"{key} of a filter must be an object")
    return given


def _parse_flag(value: Mapping[str, Any], key: str) -> bool | None:
    given = value.get(key)
    if given is not None and not isinstance(given, bool):
        raise NoFilter(f"{key} of a filter is true or false")
    return given


def _parse_limit(value: Mapping[str, Any]) -> int:
    # COMPAT: the specification wants an integer over 0; clients say 0 for no timeline, and Synapse takes any
    # number. What is null anywhere is not said.
    given = value.get("limit")
    if given is None:
        return _DEFAULT_LIMIT
    if isinstance(given, bool) or not isinstance(given, int | float) or given < 0 or given != given // 1:
        raise NoFilter("limit of a filter is a number from 0")
    return int(min(given, _MAX_LIMIT))


@dataclass(frozen=True, slots=True)
class _Types:
    """Types by their names, and by patterns in which ``*`` is special and nothing else."""

    names: frozenset[str] = frozenset()
    patterns: tuple[Glob, ...] = ()

    @classmethod
    def from_json(cls, value: Mapping[str, Any], key: str) -> _Types | None:
        """Out of a list, None where there is none. Raises ``NoFilter``."""
        given = _parse_names(value, key)
        if given is None:
            return None
        patterns = tuple(Glob(one, wildcards="*") for one in given if "*" in one)
        if len(patterns) > MAX_PATTERNS:
            raise NoFilter(f"{key} of a filter has more than {MAX_PATTERNS} patterns")
        return cls(frozenset(one for one in given if "*" not in one), patterns)

    def __bool__(self) -> bool:
        return bool(self.names or self.patterns)

    def __contains__(self, type_: str) -> bool:
        return type_ in self.names or any(glob.matches(type_) for glob in self.patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Of one kind of events. None lets all pass."""

    types: _Types | None = None
    not_types: _Types = field(default_factory=_Types)
    senders: frozenset[str] | None = None
    not_senders: frozenset[str] = frozenset()
    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = frozenset()
    limit: int = _DEFAULT_LIMIT
    lazy: bool = False
    by_thread: bool = False
    with_url: bool | None = None
    #: True if the type and the room of an event decide, and if every event is accepted.
    by_key: bool = field(init=False, default=True)
    is_unrestricted: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        """Answered once, as every event asks."""
        by_key = self.senders is None and not self.not_senders and self.with_url is None
        typed = self.types is not None or bool(self.not_types)
        roomed = self.rooms is not None or bool(self.not_rooms)
        object.__setattr__(self, "by_key", by_key)
        object.__setattr__(self, "is_unrestricted", by_key and not typed and not roomed)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> EventFilter:
        """Out of its JSON. Raises ``NoFilter``."""
        _parse_flag(value, "include_redundant_members")  # none is left out as known already
        return cls(
            types=_Types.from_json(value, "types"),
            not_types=_Types.from_json(value, "not_types") or _Types(),
            senders=_as_set(_parse_names(value, "senders", "@")),
            not_senders=_as_set(_parse_names(value, "not_senders", "@")) or frozenset(),
            rooms=_as_set(_parse_names(value, "rooms", "!")),
            not_rooms=_as_set(_parse_names(value, "not_rooms", "!")) or frozenset(),
            limit=_parse_limit(value),
            lazy=_parse_flag(value, "lazy_load_members") or False,
            by_thread=_parse_flag(value, "unread_thread_notifications") or False,
            with_url=_parse_flag(value, "contains_url"),
        )

    @classmethod
    def from_query(cls, text: str) -> EventFilter:
        """Out of a query. Raises the error answer of what is none."""
        return parse_in_query(cls.from_json, text) if text else cls()

    def matches_event(self, pdu: Pdu) -> bool:
        """True if the filter accepts an event."""
        if self.is_unrestricted:
            return True
        if self.with_url is not None and (string_field(pdu.content, "url") is not None) is not self.with_url:
            return False
        return self.matches_fields(pdu.type, pdu.sender, pdu.room_id)

    def matches_fields(self, type_: str, sender: str = "", room_id: str = "") -> bool:
        """True if the filter accepts a type, sender and room."""
        if sender in self.not_senders or (self.senders is not None and sender not in self.senders):
            return False
        return self.matches_type(type_, room_id)

    def matches_type(self, type_: str, room_id: str = "") -> bool:
        """True if the filter accepts a type and room, for any sender."""
        if type_ in self.not_types or (self.types is not None and type_ not in self.types):
            return False
        return not room_id or self.matches_room(room_id)

    def matches_room(self, room_id: str) -> bool:
        """True if the filter accepts a room."""
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncFilter:
    """The filter of a sync request."""

    rooms: EventFilter = field(default_factory=EventFilter)
    timeline: EventFilter = field(default_factory=EventFilter)
    state: EventFilter = field(default_factory=EventFilter)
    ephemeral: EventFilter = field(default_factory=EventFilter)
    room_data: EventFilter = field(default_factory=EventFilter)
    data: EventFilter = field(default_factory=EventFilter)
    presence: EventFilter = field(default_factory=EventFilter)
    include_leave: bool = False
    #: Events as servers send them to each other.
    federation: bool = False
    #: The paths of which an event consists; None for all.
    fields: tuple[tuple[str, ...], ...] | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SyncFilter:
        """Out of its JSON. Raises ``NoFilter``."""
        room, kind = _require_object(value, "room"), value.get("event_format") or "client"
        if kind not in ("client", "federation"):  # whatever it is, a list too
            raise NoFilter("event_format of a filter is client or federation")
        paths = _parse_names(value, "event_fields")
        if paths is not None and len(paths) > MAX_FIELDS:
            raise NoFilter(f"event_fields of a filter has more than {MAX_FIELDS} paths")
        return cls(
            rooms=EventFilter.from_json({k: room[k] for k in ("rooms", "not_rooms") if k in room}),
            timeline=EventFilter.from_json(_require_object(room, "timeline")),
            state=EventFilter.from_json(_require_object(room, "state")),
            ephemeral=EventFilter.from_json(_require_object(room, "ephemeral")),
            room_data=EventFilter.from_json(_require_object(room, "account_data")),
            data=EventFilter.from_json(_require_object(value, "account_data")),
            presence=EventFilter.from_json(_require_object(value, "presence")),
            include_leave=_parse_flag(room, "include_leave") or False,
            federation=kind == "federation",
            fields=None if paths is None else tuple(tuple(split_property_path(one)) for one in paths),
        )

    @classmethod
    def from_query(cls, text: str) -> SyncFilter:
        """Out of a query. Raises the error answer of what is none."""
        return parse_in_query(cls.from_json, text)

    def select_fields(self, events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Events with the fields that are wanted, and those by which a client knows them."""
        if self.fields is None:
            return list(events)
        return [_select_fields(event, self.fields) for event in events]


def _select_fields(event: Mapping[str, Any], paths: Iterable[tuple[str, ...]]) -> Mapping[str, Any]:
    found: dict[str, Any] = {key: event[key] for key in _REQUIRED_FIELDS if key in event}
    found["content"] = {}
    for path in paths:
        value: Any = event
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is None:
            continue
        inner = found
        for name in path[:-1]:
            known = inner.get(name)
            inner[name] = inner = dict(known) if isinstance(known, Mapping) else {}
        inner[path[-1]] = value
    return found


def parse_in_body(read: Callable[[Mapping[str, Any]], T], value: Mapping[str, Any]) -> T:
    """A filter that a body is. Raises the error answer of what is none."""
    try:
        return read(value)
    except NoFilter as problem:
        raise matrix_error(400, "M_BAD_JSON", str(problem)) from problem


def parse_in_query(read: Callable[[Mapping[str, Any]], T], text: str) -> T:
    """A filter that stands in a query. Raises the error answer of what is none."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as problem:
        raise matrix_error(400, "M_INVALID_PARAM", "the filter must be JSON") from problem
    if not isinstance(value, dict):
        raise matrix_error(400, "M_INVALID_PARAM", "the filter must be an object")
    try:
        return read(value)
    except NoFilter as problem:
        raise matrix_error(400, "M_INVALID_PARAM", str(problem)) from problem
