"""JSON of strangers, bounded before objects are made of it.

Parsed JSON takes up to 40 times its bytes: 16 MiB of ``{"":0},`` take 500 MiB. The structure is counted in
the bytes, which costs 0.4 ns each, and only what is within its limits is parsed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from hansa.model.errors import RemoteProtocolError

#: Keys and values of one document: 20 ms of the loop.
MAX_VALUES = 200_000
#: Bytes of memory that parsing one document may take, besides its own bytes.
MEMORY = 32 * 1024 * 1024
#: Bytes of memory that a key or value takes at the most, while it is parsed; and a byte of the document, of
#: which orjson makes a copy. One character beyond ASCII can make Python keep 4 bytes for each of its string.
_PER_VALUE, _PER_BYTE, _PER_BYTE_WIDE = 125, 2, 5
#: orjson's limit of depth for decoding; Python's own depends on its version.
_READ_DEPTH = 1024
#: Bytes up to which a number that orjson cannot read is read by Python, which is ten times slower.
_SLOWLY = 64 * 1024
_PUNCTUATION = b",:[{"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one kind of document. ``values`` counts keys and values, the commas and colons in strings with them:
    nothing shorter than ``values`` bytes is over it.
    """

    bytes: int
    values: int = MAX_VALUES


def values_in(data: bytes) -> int:
    """At least as many as there are keys and values; punctuation within strings is counted too."""
    return 1 + len(data) - len(data.translate(None, _PUNCTUATION))


def check_limits(data: bytes, limits: Limits) -> None:
    """Raise RemoteProtocolError (413 M_TOO_LARGE) for JSON that would take too much memory to parse."""
    size = len(data)
    if size > limits.bytes:
        raise _too_large(f"the JSON is over {limits.bytes} bytes")
    if size * (_PER_VALUE + _PER_BYTE_WIDE) <= MEMORY and size <= limits.values:
        return
    values = values_in(data)
    if values > limits.values:
        raise _too_large(f"the JSON has over {limits.values} values")
    per_byte = _PER_BYTE if data.isascii() and b"\\u" not in data else _PER_BYTE_WIDE
    if values * _PER_VALUE + size * per_byte > MEMORY:
        raise _too_large(f"the JSON takes over {MEMORY} bytes of memory")


def _too_large(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(reason, hint=413, code="M_TOO_LARGE")


def read_json(data: bytes, limits: Limits) -> Any:
    """JSON as it stands, up to 1,024 levels deep. A number beyond 64 bits is a float, infinite beyond that;
    one that is infinite is read in a document of up to 64 KiB alone. Raises RemoteProtocolError (M_NOT_JSON,
    413 M_TOO_LARGE).
    """
    check_limits(data, limits)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        problem = RemoteProtocolError(f"not JSON: {error}", code="M_NOT_JSON")
        if len(data) > _SLOWLY:
            raise problem from error
        try:
            return _with_any_number(data)
        except (ValueError, RecursionError):
            raise problem from error


def infinite(error: orjson.JSONDecodeError) -> bool:
    """True if orjson refuses the bytes only because of a number beyond a double."""
    return "infinity" in error.msg


def _with_any_number(data: bytes) -> Any:
    value = json.loads(data.decode(), parse_int=_parse_integer, parse_constant=_no_number)
    if deeper(value, _READ_DEPTH):
        raise ValueError("too deep")
    json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate has no UTF-8
    return value


def _parse_integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 19 else float(digits)


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def deeper(value: Any, most: int) -> bool:
    """True if a value nests deeper than ``most``."""
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
