"""JSON of which one part cannot be read, with that part marked and everything else as it is.

A number beyond a double, ``NaN``, half of a surrogate pair and what nests too deep
make a whole document unreadable to a strict parser, although its other parts are sound.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

import orjson

from hansa.model.bounded_json import Limits, check_limits
from hansa.model.errors import RemoteProtocolError

#: Stands for a value that cannot be read. A float has no canonical form, so nothing that is signed holds one.
UNREADABLE: Final = sys.float_info.max
#: Levels that are read; what nests deeper is marked.
DEPTH: Final = 1024
#: Bytes of a document that is mended on the loop: 64 KiB take 10 ms.
MENDED_AT_ONCE: Final = 64 * 1024
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[-+0-9A-Za-z.]++|[\[\]{}]', re.DOTALL)
_SPACE_AND_COLON = re.compile(rb"[ \t\r\n]*+:")
_ODD_NUMBER = re.compile(rb"-?(?:[0-9][-+0-9eE.]*|NaN|Infinity)")
_PLAIN_STRING = re.compile(rb'"[ !#-\[\]-~]*+"')
_MARK = repr(UNREADABLE).encode()
#: The name of a member that cannot be read, beside a mark that stays when the member's own value is sound.
_NAME = b'"\\ufffd?":' + _MARK + b',"\\ufffd"'
_QUOTE, _OPEN, _CLOSE, _SIGNS = ord('"'), b"[{", b"]}", b"-+"


def read_parts(data: bytes, limits: Limits, *, mended: int = MENDED_AT_ONCE) -> Any:
    """JSON, with ``UNREADABLE`` for each number or string that cannot be read and for what nests deeper than
    ``DEPTH``. A document that has such parts is read up to ``mended`` bytes. Raises RemoteProtocolError
    (M_NOT_JSON, 413 M_TOO_LARGE).
    """
    check_limits(data, limits)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        problem = RemoteProtocolError(f"not JSON: {error}", code="M_NOT_JSON")
        if len(data) > mended:
            raise problem from error
        try:
            return orjson.loads(_mend_document(data))
        except orjson.JSONDecodeError:
            raise problem from error


def cut_deep(value: Any, most: int) -> Any:
    """The value, with ``UNREADABLE`` for what nests deeper than ``most`` levels. It is changed in place."""
    level = [value]
    for _ in range(most - 1):
        level = [
            child for parent in level for child in _child_values(parent) if isinstance(child, dict | list)
        ]
        if not level:
            return value
    for parent in level:
        for key, child in list(parent.items() if isinstance(parent, dict) else enumerate(parent)):
            if isinstance(child, dict | list):
                parent[key] = UNREADABLE
    return value


def unreadable_in(value: Any) -> bool:
    """True if any part of a value could not be read."""
    level = [value]
    while level:
        if any(type(one) is float and one == UNREADABLE for one in level):
            return True
        level = [child for parent in level for child in _child_values(parent)]
    return False


def _child_values(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _mend_document(data: bytes) -> bytes:
    """The document with marks in place of what orjson cannot read."""
    mended, kept, level = bytearray(), 0, 0
    for token in _TOKEN.finditer(data):
        first, start, end = data[token.start()], token.start(), token.end()
        if first in _OPEN:
            level += 1
            if level == DEPTH + 1:
                mended += data[kept:start] + _MARK
            continue
        if first in _CLOSE:
            if level == DEPTH + 1:
                kept = end
            level -= 1
            continue
        if level > DEPTH or _is_readable(token.group()):
            continue
        if start and data[start - 1] in _SIGNS:
            return data  # with its sign, the mark would be another number
        named = first == _QUOTE and _SPACE_AND_COLON.match(data, end) is not None
        mended += data[kept:start] + (_NAME if named else _MARK)
        kept = end
    return bytes(mended + data[kept:]) if level <= DEPTH else data


def _is_readable(token: bytes) -> bool:
    """True if a string or number can be read. Other words, and bytes that are not UTF-8, are left to the
    parser.
    """
    if token[0] == _QUOTE:
        if _PLAIN_STRING.fullmatch(token):
            return True
    elif (token.isdigit() and len(token) < 16) or not _ODD_NUMBER.fullmatch(token):
        return True
    try:
        orjson.loads(token)
    except orjson.JSONDecodeError:
        return not _is_text(token)
    return True


def _is_text(token: bytes) -> bool:
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True
