"""Canonical JSON, and strict parsing of what peers send.

SPEC: Matrix v1.19, appendices, "Canonical JSON". Integers lie in [-(2^53)+1, (2^53)-1]; there are no floats;
keys sort by code point. Known limit: of duplicate keys the last one counts, as in every JSON library we use.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson
from hansa.pure.bounded_json import Limits, deeper, read_json
from hansa.pure.errors import RemoteProtocolError

from hansa_matrix.proto.versions import RoomVersion

_MOST = 2**53 - 1
#: Deeper nesting than this is refused; orjson's own limit for encoding is above 200.
MAX_DEPTH = 100
#: A body or an answer of which nothing else is said.
DOCUMENT = Limits(bytes=8 * 1024 * 1024)
#: What ``/_matrix/key/v2/server`` answers: 50 keys of some 200 bytes at the most.
KEY_DOCUMENT = Limits(bytes=64 * 1024)
#: A transaction: 50 PDUs of 64 KiB and 100 EDUs.
TRANSACTION = Limits(bytes=4 * 1024 * 1024)
#: What a client says: a question for the keys of 30,000 people has 100,000 values.
CLIENT_BODY = Limits(bytes=1024 * 1024, values=100_000)
#: An answer that says what went wrong.
ERROR_ANSWER = Limits(bytes=64 * 1024)


def decode(data: bytes, limits: Limits = DOCUMENT) -> Any:
    """JSON as it stands, of any depth that can be read (about 1,000): what is kept of it is checked piece by
    piece. Raises as ``hansa.pure.bounded_json.read_json``.
    """
    return read_json(data, limits)


def parse(data: bytes, limits: Limits = DOCUMENT) -> Any:
    """JSON as it stands, floats allowed: for documents that nobody signs. Raises RemoteProtocolError."""
    value = read_json(data, limits)
    check_depth(value)
    return value


def loads(data: bytes, limits: Limits = DOCUMENT) -> Any:
    """JSON of which every value has a canonical form. Raises RemoteProtocolError (M_NOT_JSON, M_BAD_JSON)."""
    value = read_json(data, limits)
    check_values(value)
    return value


def check_depth(value: Any) -> None:
    """Raise RemoteProtocolError if ``value`` nests deeper than ``MAX_DEPTH``."""
    if deeper(value, MAX_DEPTH):
        raise RemoteProtocolError(f"JSON nests deeper than {MAX_DEPTH}", code="M_BAD_JSON")


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
                if not -_MOST <= one <= _MOST:
                    raise RemoteProtocolError(f"integer {one} is out of range", code="M_BAD_JSON")
            elif kind is float:
                raise RemoteProtocolError("a number is not an integer", code="M_BAD_JSON")
        if not below:
            return
        level = below
    raise RemoteProtocolError(f"JSON nests deeper than {MAX_DEPTH}", code="M_BAD_JSON")


def dumps(value: Any) -> bytes:
    """The canonical form of a valid value. Raises RemoteProtocolError for one that cannot be encoded."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONEncodeError, TypeError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"no canonical form: {error}", code="M_BAD_JSON") from error


def dumps_lax(value: Any) -> bytes:
    """The form that rooms up to version 5 hash, numbers as Python's ``json`` writes them: floats and integers
    of any size are let through there. Raises RemoteProtocolError for what is no JSON.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"no canonical form: {error}", code="M_BAD_JSON") from error


def canonical(version: RoomVersion) -> Callable[[Any], bytes]:
    """The encoder of a room version."""
    return dumps if version.strict_json else dumps_lax
