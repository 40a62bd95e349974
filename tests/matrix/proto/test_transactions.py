"""The bodies of ``/send``, by the vectors of tests/vectors/transactions.json."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hansa.pure.errors import RemoteProtocolError
from hansa_matrix.proto.pdu import parse
from hansa_matrix.proto.transactions import MAX_EDUS, MAX_PDUS, parse_transaction
from hypothesis import given
from hypothesis import strategies as st
from matrix.proto.json_values import json_values
from matrix.proto.room_graph import V11
from matrix.proto.vectors import each, vectors

V = vectors("transactions.json")


@each(V["cases"])
def test_transactions(case: dict[str, Any]) -> None:
    pdus, edus = parse_transaction(case["body"].encode(), V["origin"])
    assert (len(pdus), len(edus)) == (case["pdus"], case["edus"])
    for pdu in pdus:  # mistake 32: each is judged by itself
        with pytest.raises(RemoteProtocolError):
            parse(pdu, V11)


@each(V["refused"])
def test_transactions_that_are_refused_as_a_whole(case: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_transaction(case["body"].encode(), V["origin"])
    assert caught.value.code == case["code"]
    assert caught.value.hint == 400


def test_the_limits() -> None:
    assert (MAX_PDUS, MAX_EDUS) == (50, 100)


@given(json_values, json_values, st.booleans())
def test_any_body_is_taken_or_refused(one: Any, other: Any, whole: bool) -> None:
    body = orjson.dumps(one if whole else {"pdus": one, "edus": other})
    try:
        pdus, edus = parse_transaction(body, V["origin"])
    except RemoteProtocolError:
        return
    assert (pdus, edus) == (one, other)
