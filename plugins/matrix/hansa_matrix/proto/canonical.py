"""Canonical JSON, and strict parsing of what peers send.

SPEC: Matrix v1.19, appendices, "Canonical JSON". Integers lie in [-(2^53)+1, (2^53)-1]; there are no floats;
keys sort by code point. Known limit: of duplicate keys the last one counts, as in every JSON library we use.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

import orjson
from hansa.pure.errors import RemoteProtocolError

from hansa_matrix.proto.versions import RoomVersion

_MOST = 2**53 - 1
#: Deeper nesting than this is refused; orjson's own limit for encoding is above 200.
MAX_DEPTH = 100
#: orjson's limit for decoding; Python's own depends on its version.
_READ_DEPTH = 1024


def decode(data: bytes) -> Any:
    """JSON as it stands, of any depth that can be read (about 1,000): what is kept of it is checked piece by
    piece. A number beyond 64 bits is a float, infinite beyond that. Raises RemoteProtocolError (M_NOT_JSON).
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        try:
            return _with_any_number(data)
        except (ValueError, RecursionError):
            raise RemoteProtocolError(f"not JSON: {error}", code="M_NOT_JSON") from error


def _with_any_number(data: bytes) -> Any:
    # orjson takes a number beyond a double for no JSON, and one such number in an EDU that nobody looks at
    # would cost the transaction, again at every retry.
    value = json.loads(data.decode(), parse_int=_integer, parse_constant=_no_number)
    if _deeper(value, _READ_DEPTH):
        raise ValueError("too deep")
    json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate has no UTF-8
    return value


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 19 else float(digits)


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def parse(data: bytes) -> Any:
    """JSON as it stands, floats allowed: for documents that nobody signs. Raises RemoteProtocolError."""
    value = decode(data)
    check_depth(value)
    return value


def loads(data: bytes) -> Any:
    """JSON of which every value has a canonical form. Raises RemoteProtocolError (M_NOT_JSON, M_BAD_JSON)."""
    value = decode(data)
    check_values(value)
    return value


def check_depth(value: Any) -> None:
    """Raise RemoteProtocolError if ``value`` nests deeper than ``MAX_DEPTH``."""
    if _deeper(value, MAX_DEPTH):
        raise RemoteProtocolError(f"JSON nests deeper than {MAX_DEPTH}", code="M_BAD_JSON")


def _deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return False
    return True


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
