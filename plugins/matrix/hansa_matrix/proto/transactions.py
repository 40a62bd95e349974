"""The body of ``/send``. SPEC: server-server API, "Transactions"."""

from __future__ import annotations

from typing import Any

import orjson
from hansa.pure.bounded_json import MAX_VALUES, Limits, infinite, values_in
from hansa.pure.errors import RemoteProtocolError

from hansa_matrix.proto.canonical import TRANSACTION, decode
from hansa_matrix.proto.json_stream import Piece, Splitter

MAX_PDUS = 50
MAX_EDUS = 100
#: Bytes of what a transaction says besides its PDUs and EDUs.
_REST = Limits(bytes=64 * 1024)


def parse_transaction(body: bytes, origin: str) -> tuple[list[Any], list[Any]]:
    """``(pdus, edus)``, each unchecked, so that what is wrong with one does not keep the others out. Raises
    RemoteProtocolError (400, 413) for the whole transaction.

    None stands for one that cannot be read: it has a number beyond a double, or with those before it more
    than ``MAX_VALUES`` keys and values. A PDU that is left out so is fetched by itself once another cites it.
    """
    try:
        value = decode(body, TRANSACTION)
    except RemoteProtocolError:
        value = _one_by_one(body)
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


def _one_by_one(body: bytes) -> Any:
    """The transaction, by reading each PDU and EDU by itself."""
    if len(body) > TRANSACTION.bytes:
        raise RemoteProtocolError("the transaction is too large", hint=413, code="M_TOO_LARGE")
    splitter = Splitter(["pdus", "edus"], most_element=TRANSACTION.bytes, rest=_REST)
    pieces = splitter.feed(body)
    last, value = splitter.finish()
    if not isinstance(value, dict):
        return value
    left = MAX_VALUES
    for piece in [*pieces, *last]:
        items = value[piece.name]
        size = values_in(piece.raw or b"")
        if size > left or len(items) > MAX_EDUS:
            items.append(None)
            continue
        left -= size
        items.extend(_read(piece))
    return value


def _read(piece: Piece) -> list[Any]:
    try:
        return piece.values()
    except RemoteProtocolError as error:
        if isinstance(error.__cause__, orjson.JSONDecodeError) and infinite(error.__cause__):
            return [None]
        raise
