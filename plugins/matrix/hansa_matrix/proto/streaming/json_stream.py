"""Large JSON cut into pieces as it comes, so that nobody holds it whole.

The elements of some arrays of the outermost object are handed out, as bytes; what is left of the document
has these arrays empty. orjson parses every piece and what is left: only where to cut is found here.
SPEC: server-server API, "Joining Rooms", whose answers hold a room's whole state.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, NamedTuple

import orjson
from hansa.model.bounded_json import Limits
from hansa.model.errors import RemoteProtocolError
from hansa.model.lenient_json import MENDED_AT_ONCE, read_parts

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SPACE = re.compile(rb"[ \t\r\n]*+")
_WHOLE_STRING = re.compile(_STRING, re.DOTALL)
#: Up to the next bracket or string.
_PLAIN = re.compile(rb'[^"\[\]{}]*+')
#: Elements that are neither arrays nor objects, each with the comma behind it; and one without.
_SCALARS = re.compile(rb'(?:[^"\[\]{},]*+(?:' + _STRING + rb')?+[^"\[\]{},]*+,)++', re.DOTALL)
_SCALAR = re.compile(rb'[^"\[\]{},]*+(?:' + _STRING + rb')?+[^"\[\]{},]*+', re.DOTALL)


_GAP = rb'[^"\[\]{}]*+(?:' + _STRING + rb'[^"\[\]{}]*+)*+'


def _nested_pattern(levels: int) -> bytes:
    """A pattern of an object or array that nests so deep at the most; it never tries anything twice."""
    pattern = rb"[\[{]" + _GAP + rb"[\]}]"
    for _ in range(levels - 1):
        pattern = rb"[\[{]" + _GAP + rb"(?:" + pattern + _GAP + rb")*+[\]}]"
    return pattern


#: An event as most are: others are cut bracket by bracket.
_SHALLOW = re.compile(_nested_pattern(4), re.DOTALL)
#: As far as everything is whole and shallow, and the next bracket behind that.
_WHOLE = _GAP + rb"(?:" + _nested_pattern(3) + _GAP + rb")*+"
_BRACKET, _NO_BRACKET = re.compile(_WHOLE + rb"[\[\]{}]", re.DOTALL), re.compile(_WHOLE, re.DOTALL)
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_COLON = re.compile(rb"[ \t\r\n]*+:[ \t\r\n]*+")
_QUOTE, _COMMA, _OPEN, _CLOSE = ord('"'), ord(","), b"[{", b"]}"
#: The beginning of an answer of version 1, and the white space in it that is looked through.
_NUMBERED = re.compile(rb"[ \t\r\n]*+\[[ \t\r\n]*+[0-9]{3}[ \t\r\n]*+,(?=[ \t\r\n]*+\{)")
_FIRST = 1024
#: Bytes that are looked at together: a string that is cut off is looked at again with each chunk.
_CHUNK = 64 * 1024
#: Bytes that one pattern is tried on, for a millisecond: nobody else runs meanwhile.
_WINDOW = 32 * 1024
#: An element that is this many times too large ends the reading; one that nests deeper is left out.
_MAX_SKIPPED, _MAX_DEPTH = 16, 1024


class Piece(NamedTuple):
    """One element of the array ``name`` or, of strings and numbers, several with commas between them. ``raw``
    is None for an element that was too large to be kept, or nests deeper than 1,024 levels.
    """

    name: str
    raw: bytes | None

    def parse_values(self) -> list[Any]:
        """The elements, None for one that is not there or too large to be mended where it cannot be read; see
        ``hansa.model.lenient_json.read_parts``. Raises RemoteProtocolError (M_NOT_JSON).
        """
        if self.raw is None:
            return [None]
        try:
            values: list[Any] = orjson.loads(b"[%b]" % self.raw)
        except orjson.JSONDecodeError as error:
            if len(self.raw) > MENDED_AT_ONCE:
                return [None]
            values = read_parts(
                b"[%b]" % self.raw, Limits(bytes=MENDED_AT_ONCE + 2), mended=MENDED_AT_ONCE + 2
            )
            if not isinstance(values, list):
                raise _malformed_error(str(error)) from error
        if not values:
            raise _malformed_error("a comma without an element")
        return values


def _match_end(pattern: re.Pattern[bytes], data: bytes, at: int, upto: int) -> int:
    found = pattern.match(data, at, upto)
    return found.end() if found is not None else at


def _malformed_error(why: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"not JSON: {why}", code="M_NOT_JSON")


class Splitter:
    """Cuts one document. At the most ``most_element`` bytes of an element and ``rest`` of all else are
    kept. ``numbered``: the document may be an array of a status and the object, as answers of version 1 are;
    of that the object is what is left.
    """

    def __init__(
        self, names: Collection[str], *, most_element: int, rest: Limits, numbered: bool = False
    ) -> None:
        self._names = frozenset(names)
        self._numbered = numbered
        #: True if the array around the object is open.
        self._around = False
        self._most_element = most_element
        self._rest_limits = rest
        self._rest = bytearray()
        self._buffer = b""
        self._at = 0
        self._depth = 0
        self._ended = False
        self._key = b""
        self._key_end = -1
        self._seen: set[str] = set()
        #: The array that is being cut; empty outside of any.
        self._array = ""
        #: True after an element, and after a comma between elements.
        self._after_element = self._after_comma = False
        #: Where the element that is under way begins in the buffer, and how deep in it we are.
        self._start = -1
        self._inner = 0
        self._in_string = self._skipping = self._deep = False
        self._skipped = 0

    def feed(self, chunk: bytes) -> list[Piece]:
        """The pieces that are whole with this chunk. Raises RemoteProtocolError."""
        self._buffer = self._buffer[self._needed_from() :] + chunk if self._buffer else chunk
        waits = max(_CHUNK, _FIRST if self._numbered else 0)
        return self._cut_pieces() if len(self._buffer) - self._at >= waits else []

    def finish(self) -> tuple[list[Piece], Any]:
        """The last pieces, and what else the document says. Raises RemoteProtocolError."""
        pieces = self._cut_pieces()
        if self._array or self._around or self._at < len(self._buffer):
            raise _malformed_error("it ends too early")
        return pieces, read_parts(bytes(self._rest), self._rest_limits)

    def _needed_from(self) -> int:
        """From where on the buffer is still needed; what counts in it is moved there."""
        begin = self._at if self._start < 0 else self._start
        self._at -= begin
        self._start = min(0, self._start)
        return begin

    def _cut_pieces(self) -> list[Piece]:
        pieces: list[Piece] = []
        if self._numbered:
            found = _NUMBERED.match(self._buffer, 0, _FIRST)
            self._numbered, self._around = False, found is not None
            self._at = found.end() if found is not None else 0
        while self._at < len(self._buffer):
            if self._start >= 0:
                more = self._read_element(pieces)
            elif self._array:
                more = self._read_between(pieces)
            elif self._depth > 1:
                more = self._read_uncut()
            else:
                more = self._read_top_level()
            if not more:
                break
        return pieces

    def _pass_bracket(self) -> int | None:
        """Consumes input up to the next bracket and returns its change of the depth; None if it has not
        arrived yet.
        """
        buffer, size = self._buffer, len(self._buffer)
        while self._at < size:
            upto = self._at + _WINDOW
            if self._in_string:
                self._at = _match_end(_IN_STRING, buffer, self._at, upto)
                if buffer[self._at : self._at + 1] == b'"':
                    self._at, self._in_string = self._at + 1, False
                elif self._at >= size - 1:
                    return None
                continue
            found = _BRACKET.match(buffer, self._at, upto)
            if found is not None:
                self._at = found.end()
                return 1 if buffer[self._at - 1] in _OPEN else -1
            self._at = _match_end(_NO_BRACKET, buffer, self._at, upto)
            if buffer[self._at : self._at + 1] == b'"':
                self._at, self._in_string = self._at + 1, True
        return None

    def _read_element(self, pieces: list[Piece]) -> bool:
        step = self._pass_bracket()
        if step is None:
            if len(self._buffer) - self._start > self._most_element:
                self._skip_element()
            return False
        self._inner += step
        self._deep = self._deep or self._inner > _MAX_DEPTH
        if self._inner:
            if self._at - self._start > self._most_element:
                self._skip_element()
            return True
        large = self._deep or self._skipping or self._at - self._start > self._most_element
        pieces.append(Piece(self._array, None if large else self._buffer[self._start : self._at]))
        self._start, self._skipping, self._skipped, self._deep = -1, False, 0, False
        self._after_element, self._after_comma = True, False
        return True

    def _skip_element(self) -> None:
        """Drops the bytes so far of an element that is too large. Raises RemoteProtocolError if it also nests
        too deep, or if too many bytes are skipped.
        """
        if self._deep:
            raise _malformed_error("it nests too deep")
        self._skipped += self._at - self._start
        self._start, self._skipping = self._at, True
        if self._skipped > _MAX_SKIPPED * self._most_element:
            raise RemoteProtocolError("one element of the JSON is too large", hint=413, code="M_TOO_LARGE")

    def _read_between(self, pieces: list[Piece]) -> bool:
        """In an array, outside of its elements."""
        space = _SPACE.match(self._buffer, self._at)
        self._at = space.end() if space else self._at
        if self._at == len(self._buffer):
            return False
        byte = self._buffer[self._at]
        if byte == _CLOSE[0]:
            if self._after_comma:
                raise _malformed_error("a comma without an element")
            self._array = ""
            self._depth -= 1
            self._keep_rest(self._at + 1)
        elif self._after_element:
            if byte != _COMMA:
                raise _malformed_error("elements without a comma")
            self._at += 1
            self._after_element, self._after_comma = False, True
        elif byte in _OPEN:
            self._begin_element(pieces)
        else:
            return self._read_scalars(pieces)
        return True

    def _begin_element(self, pieces: list[Piece]) -> None:
        """An element, at once if it is whole and shallow."""
        found = _SHALLOW.match(self._buffer, self._at, self._at + _WINDOW)
        if found is None or found.end() - self._at > self._most_element:
            self._start, self._inner = self._at, 0
            return
        pieces.append(Piece(self._array, found.group()))
        self._at = found.end()
        self._after_element = True
        if self._at < len(self._buffer) and self._buffer[self._at] == _COMMA:
            self._at += 1
            self._after_element = False
        self._after_comma = not self._after_element

    def _read_scalars(self, pieces: list[Piece]) -> bool:
        found = _SCALARS.match(self._buffer, self._at, self._at + _WINDOW)
        if found is not None:
            pieces.append(Piece(self._array, self._buffer[self._at : found.end() - 1]))
            self._at, self._after_comma = found.end(), True
            return True
        found = _SCALAR.match(self._buffer, self._at)
        end = found.end() if found is not None else self._at
        if end < len(self._buffer) and self._buffer[end] in (_COMMA, _CLOSE[0]):
            pieces.append(Piece(self._array, self._buffer[self._at : end]))
            self._at, self._after_element, self._after_comma = end, True, False
            return True
        if end < len(self._buffer) and self._buffer[end] != _QUOTE:
            raise _malformed_error("an element ends in a bracket")
        if len(self._buffer) - self._at > self._most_element:
            raise RemoteProtocolError("one string of the JSON is too large", hint=413, code="M_TOO_LARGE")
        return False

    def _read_uncut(self) -> bool:
        """In a value that is not cut."""
        begin = self._at
        step = self._pass_bracket()
        end, self._at = self._at, begin
        self._keep_rest(end)
        if step is None:
            self._check_rest(len(self._buffer) - end)
            return False
        self._depth += step
        return True

    def _read_top_level(self) -> bool:
        """Among the keys of the outermost object, or outside of it."""
        found = _PLAIN.match(self._buffer, self._at)
        begin, end = self._at, found.end() if found is not None else self._at
        if end == len(self._buffer):
            self._keep_rest(end)
            return False
        byte = self._buffer[end]
        if self._ended and self._around and byte == _CLOSE[0]:
            self._keep_rest(end)
            self._at, self._around = end + 1, False
            return True
        if self._ended:
            raise _malformed_error("there is something behind its end")
        if byte == _QUOTE:
            string = _WHOLE_STRING.match(self._buffer, end)
            if string is None:
                self._check_rest(len(self._buffer) - begin)
                return False
            self._keep_rest(string.end())
            self._key, self._key_end = string.group(), len(self._rest)
            return True
        self._keep_rest(end + 1)
        self._depth += 1 if byte in _OPEN else -1
        self._ended = self._depth < 1
        if byte == _OPEN[0] and self._depth == 2 and self._key_end >= 0:
            self._enter_array()
        return True

    def _enter_array(self) -> None:
        """Cut the array that begins here, if it is one of those."""
        if _COLON.fullmatch(self._rest, self._key_end, len(self._rest) - 1) is None:
            return
        try:
            name = orjson.loads(self._key)
        except orjson.JSONDecodeError as error:
            raise _malformed_error(str(error)) from error
        if name not in self._names:
            return
        if name in self._seen:
            raise RemoteProtocolError(f"the JSON has {name} twice", code="M_BAD_JSON")
        self._seen.add(name)
        self._array, self._after_element, self._after_comma = name, False, False

    def _keep_rest(self, end: int) -> None:
        self._rest += self._buffer[self._at : end]
        self._at = end
        self._check_rest(0)

    def _check_rest(self, more: int) -> None:
        if len(self._rest) + more > self._rest_limits.bytes + _CHUNK:
            raise RemoteProtocolError("the JSON is too large", hint=413, code="M_TOO_LARGE")
