"""Canonical JSON, and strict parsing of what peers send.

SPEC: Matrix v1.19, appendices, "Canonical JSON". Integers lie in [-(2^53)+1, (2^53)-1]; there are no floats;
keys sort by code point. Known limit: of duplicate keys the last one counts, as in every JSON library we use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from canonicaljson import encode_canonical_json
from hansa.model.bounded_json import Limits, deeper, read_json
from hansa.model.errors import RemoteProtocolError
from hansa.model.lenient_json import MENDED_AT_ONCE, cut_deep, read_parts, unreadable_in

from hansa_matrix.proto.room_versions import RoomVersion

_MAX_INTEGER = 2**53 - 1
#: Levels of an event or of anything else that others say. Synapse takes events of 127 levels; orjson encodes
#: 254, of which the rest is for what an event stands in.
MAX_DEPTH = 200
#: Levels of what a client says: an event that others refuse would be seen here alone.
CLIENT_DEPTH = 100
#: Levels of an answer, which holds events some levels deep.
_ANSWER_DEPTH = 220
#: A body or an answer of which nothing else is said.
DOCUMENT = Limits(bytes=8 * 1024 * 1024)
#: The answer of ``/_matrix/key/v2/server``: 50 keys of some 200 bytes at the most.
KEY_DOCUMENT = Limits(bytes=64 * 1024)
#: A transaction: 50 PDUs of 64 KiB and 100 EDUs.
TRANSACTION = Limits(bytes=4 * 1024 * 1024)
#: The body of a client: a query for the keys of 30,000 users has 100,000 values.
CLIENT_BODY = Limits(bytes=1024 * 1024, values=100_000)
#: An answer that says what went wrong.
ERROR_ANSWER = Limits(bytes=64 * 1024)


def loads_lenient(data: bytes, limits: Limits = DOCUMENT) -> Any:
    """JSON as it stands, of any depth that can be read (about 1,000): the stored parts are checked piece by
    piece. Raises as ``hansa.model.bounded_json.read_json``.
    """
    return read_json(data, limits)


def loads_json(data: bytes, limits: Limits = DOCUMENT, mended: int = MENDED_AT_ONCE) -> Any:
    """JSON as it stands, floats allowed. A part that cannot be read or nests too deep is ``UNREADABLE``,
    which is refused wherever a value of its place is checked: one bad event does not keep out the others of
    an answer. See ``hansa.model.lenient_json.read_parts``. Raises RemoteProtocolError.
    """
    value = read_parts(data, limits, mended=mended)
    return cut_deep(value, _ANSWER_DEPTH) if deeper(value, _ANSWER_DEPTH) else value


def loads_canonical(data: bytes, limits: Limits = DOCUMENT) -> Any:
    """JSON of which every value has a canonical form. Raises RemoteProtocolError (M_NOT_JSON, M_BAD_JSON)."""
    value = read_json(data, limits)
    check_values(value)
    return value


def check_depth(value: Any, most: int = MAX_DEPTH) -> None:
    """Raise RemoteProtocolError if ``value`` nests deeper than ``most``."""
    if deeper(value, most):
        raise RemoteProtocolError(f"JSON nests deeper than {most}", code="M_BAD_JSON")


def is_usable_json(value: Any) -> bool:
    """True if every part of a value could be read and it nests no deeper than ``MAX_DEPTH``."""
    return not deeper(value, MAX_DEPTH) and not unreadable_in(value)


def check_lax_values(value: Any) -> None:
    """As ``check_values``, of an event of a room version that lets any number through: what could not be read
    is refused there too.
    """
    check_depth(value)
    if unreadable_in(value):
        raise RemoteProtocolError("a part of it cannot be read", code="M_BAD_JSON")


def check_values(value: Any) -> None:
    """Raise RemoteProtocolError if ``value`` nests deeper than ``MAX_DEPTH``, or if anything in it has no
    canonical form: a float, or an integer out of range. Every event goes through this once.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for one in level:
            kind = type(one)
            if kind is str:
                continue
            if kind is dict:
                below.extend(one.values())
            elif kind is list:
                below.extend(one)
            elif kind is int:
                if not -_MAX_INTEGER <= one <= _MAX_INTEGER:
                    raise RemoteProtocolError(f"integer {one} is out of range", code="M_BAD_JSON")
            elif kind is float:
                raise RemoteProtocolError("a number is not an integer", code="M_BAD_JSON")
        if not below:
            return
        level = below
    raise RemoteProtocolError(f"JSON nests deeper than {MAX_DEPTH}", code="M_BAD_JSON")


def dumps_canonical(value: Any) -> bytes:
    """The canonical form of a valid value. Raises RemoteProtocolError for one that cannot be encoded."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONEncodeError, TypeError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"no canonical form: {error}", code="M_BAD_JSON") from error


def dumps_legacy(value: Any) -> bytes:
    """Returns the form that rooms up to version 5 hash, which is what ``canonicaljson`` makes: floats and
    integers of any size are allowed there. Raises RemoteProtocolError for a value that is not JSON.
    """
    try:
        return encode_canonical_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"no canonical form: {error}", code="M_BAD_JSON") from error


def copy_compact(data: bytes) -> bytes:
    """The same bytes for who keeps them: what orjson makes takes 4 KiB of memory however short it is."""
    return b"".join((data, b""))


def encoder_for(version: RoomVersion) -> Callable[[Any], bytes]:
    """The encoder of a room version."""
    return dumps_canonical if version.strict_json else dumps_legacy
