"""The body of ``/send``. SPEC: server-server API, "Transactions"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from hansa.model.bounded_json import MAX_VALUES, Limits, check_limits, values_in
from hansa.model.errors import RemoteProtocolError
from hansa.model.lenient_json import unreadable_in

from hansa_matrix.proto.canonical_json import TRANSACTION
from hansa_matrix.proto.streaming.json_stream import Piece, Splitter

MAX_PDUS = 50
MAX_EDUS = 100
#: Bytes of what a transaction says besides its PDUs and EDUs.
_REST = Limits(bytes=64 * 1024)
#: Bytes that are cut at a time.
_AT_ONCE = 64 * 1024


def parse_transaction(body: bytes, origin: str) -> tuple[list[Any], list[Any]]:
    """``(pdus, edus)``, each unchecked, so that what is wrong with one does not keep the others out. Raises
    RemoteProtocolError (400, 413) for the whole transaction.

    None stands for one that cannot be read: it nests deeper than 1,024 levels, is an EDU with a number beyond
    a double or half of a surrogate pair, or has with those before it more than ``MAX_VALUES`` keys and
    values. A PDU that is left out so is fetched by itself once another cites it.
    """
    value = _load_whole(body)
    if value is None:
        value = _load_piecewise(body)
    if not isinstance(value, dict):
        raise RemoteProtocolError("a transaction is an object", code="M_BAD_JSON")
    if value.get("origin", origin) != origin:
        raise RemoteProtocolError("the transaction's origin is not the sender", code="M_INVALID_PARAM")
    pdus, edus = value.get("pdus"), value.get("edus", [])
    if not isinstance(pdus, list) or not isinstance(edus, list):
        raise RemoteProtocolError("pdus and edus are lists", code="M_BAD_JSON")
    if len(pdus) > MAX_PDUS or len(edus) > MAX_EDUS:
        raise RemoteProtocolError(
            f"{len(pdus)} pdus and {len(edus)} edus, at most {MAX_PDUS} and {MAX_EDUS}", code="M_TOO_LARGE"
        )
    return pdus, edus


def _load_whole(body: bytes) -> Any:
    """The transaction, None if it has parts that cannot be read or is too much to be read at once."""
    try:
        check_limits(body, TRANSACTION)
        return orjson.loads(body)
    except (RemoteProtocolError, orjson.JSONDecodeError):
        return None


def _load_piecewise(body: bytes) -> Any:
    """The transaction, by reading each PDU and EDU by itself."""
    if len(body) > TRANSACTION.bytes:
        raise RemoteProtocolError("the transaction is too large", hint=413, code="M_TOO_LARGE")
    splitter = Splitter(["pdus", "edus"], most_element=TRANSACTION.bytes, rest=_REST)
    found: dict[str, list[Any]] = {"pdus": [], "edus": []}
    left = MAX_VALUES
    for at in range(0, len(body), _AT_ONCE):
        left = _gather_pieces(splitter.feed(body[at : at + _AT_ONCE]), found, left)
    last, value = splitter.finish()
    _gather_pieces(last, found, left)
    return {**value, **{k: v for k, v in found.items() if k in value}} if isinstance(value, dict) else value


def _gather_pieces(pieces: Sequence[Piece], found: Mapping[str, list[Any]], left: int) -> int:
    """Read some pieces; how many values may still come. Raises RemoteProtocolError at one too many: a million
    of them are not kept to be counted.
    """
    for piece in pieces:
        items = found[piece.name]
        size = values_in(piece.raw or b"")
        if size > left:
            items.append(None)
        else:
            left -= size
            items.extend(_read_values(piece))
        if len(items) > (MAX_PDUS if piece.name == "pdus" else MAX_EDUS):
            raise RemoteProtocolError(f"over {MAX_PDUS} pdus or {MAX_EDUS} edus", code="M_TOO_LARGE")
    return left


def _read_values(piece: Piece) -> list[Any]:
    """The elements of a piece. An unreadable part of a PDU may stand in ``unsigned``, which is not needed; an
    EDU that cannot be read whole is None.
    """
    values = piece.parse_values()
    return [None if unreadable_in(one) else one for one in values] if piece.name == "edus" else values
