"""The body of ``/send``. SPEC: server-server API, "Transactions"."""

from __future__ import annotations

from typing import Any

from hansa.pure.errors import RemoteProtocolError

from hansa_matrix.proto.canonical import decode

MAX_PDUS = 50
MAX_EDUS = 100


def parse_transaction(body: bytes, origin: str) -> tuple[list[Any], list[Any]]:
    """``(pdus, edus)``, each unchecked, so that what is wrong with one does not keep the others out. Raises
    RemoteProtocolError (400) for the whole transaction.
    """
    value = decode(body)
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
