"""The bodies of ``/send``, by the vectors of tests/vectors/transactions.json."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
import pytest
from hansa.model.bounded_json import MAX_VALUES, values_in
from hansa.model.errors import RemoteProtocolError
from hansa_matrix.proto.pdu import parse_pdu
from hansa_matrix.proto.streaming import json_stream
from hansa_matrix.proto.streaming.transactions import MAX_EDUS, MAX_PDUS, _load_piecewise, parse_transaction
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
            parse_pdu(pdu, V11)


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


MIB = 1024 * 1024


def transaction(pdus: list[bytes], edus: list[bytes]) -> bytes:
    return b'{"origin":"%s","pdus":[%s],"edus":[%s]}' % (
        V["origin"].encode(),
        b",".join(pdus),
        b",".join(edus),
    )


@pytest.mark.parametrize("number", [b"1e999", b"9" * 400])
@pytest.mark.parametrize("size", [0, 3 * MIB])
def test_a_number_that_nobody_can_read_costs_its_own_edu(number: bytes, size: int) -> None:
    """As large as a transaction may be, and as fast as any other: nothing falls back to a slow parser."""
    other = b'{"edu_type":"b","content":{"c":"' + b"x" * size + b'"}}'
    body = transaction([b'{"type":"a"}'], [b'{"edu_type":"a","content":{"b":' + number + b"}}", other])
    pdus, edus = parse_transaction(body, V["origin"])
    assert pdus == [{"type": "a"}]
    assert edus[1] == orjson.loads(other)
    assert edus[0] is None or size == 0


def test_numbers_that_nobody_can_read_do_not_go_through_python_s_parser(monkeypatch) -> None:
    def slow(*_: Any, **__: Any) -> Any:
        raise AssertionError("the pure Python parser reads megabytes")

    monkeypatch.setattr("hansa.model.bounded_json.json.loads", slow)
    body = transaction([], [b'{"a":' + b"[" + b"1e999," * 100_000 + b"1]}", b"{}"])
    assert parse_transaction(body, V["origin"])[1] == [None, {}]


def test_what_is_no_json_is_refused_whole_however_large() -> None:
    for bad in (b'{"a":}', b'{"a":1 2}', b"{]", b"\xff"):
        with pytest.raises(RemoteProtocolError) as caught:
            parse_transaction(transaction([], [b'{"a":"' + b"x" * 100_000 + b'"}', bad]), V["origin"])
        assert caught.value.code == "M_NOT_JSON", bad


@pytest.mark.parametrize("body", [b'{"pdus":[]}{"pdus":[]}', b'{"pdus":[1e999]}{"pdus":[]}', b'{"pdus":[]}x'])
def test_two_documents_are_no_json(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_transaction(body, V["origin"])
    assert caught.value.code == "M_NOT_JSON"


@pytest.mark.parametrize("junk", [b'{"":0}', b"[]", b'[{"a":[{}]}]', b'"x"'])
def test_a_transaction_of_junk_makes_few_objects(junk: bytes) -> None:
    """The part that fits is read, and the rest is left out: 4 MiB would be 80 to 130 MiB of objects."""
    one = b'{"a":[' + b",".join([junk] * (60_000 // (len(junk) + 1))) + b"]}"
    pdus, edus = parse_transaction(transaction([one] * 50, [b'{"edu_type":"m.typing"}']), V["origin"])
    assert len(pdus) == 50 and pdus[0] == orjson.loads(one) and pdus[-1] is None
    assert sum(values_in(one) for pdu in pdus if pdu is not None) <= MAX_VALUES
    assert edus == [{"edu_type": "m.typing"}]


def test_one_pdu_of_any_shape_is_read() -> None:
    """64 KiB of `0,` are 32,000 values, which the specification allows."""
    for junk in (b"0", b"[]", b'{"":0}'):
        one = b'{"a":[' + b",".join([junk] * (65_000 // (len(junk) + 1))) + b"]}"
        assert parse_transaction(transaction([one], []), V["origin"]) == ([orjson.loads(one)], [])
        large = transaction([one], [b'{"a":"' + b"x" * (3 * MIB) + b'"}'])
        assert parse_transaction(large, V["origin"])[0] == [orjson.loads(one)]


@given(st.lists(json_values, max_size=5), st.lists(json_values, max_size=5))
def test_one_by_one_is_the_same_as_whole(pdus: list[Any], edus: list[Any]) -> None:
    value = {"pdus": pdus, "edus": edus, "origin": "x", "origin_server_ts": 1}
    assert _load_piecewise(orjson.dumps(value)) == value


@pytest.mark.parametrize(
    "unit", [b'{"":0},', b"[],", b'"xxxxxxx",', b'"\\n\\n\\n",', b"0,", b"[", b"[[[[[]]]]],"]
)
def test_nobody_else_waits_while_a_transaction_is_read_by_its_parts(unit: bytes, monkeypatch) -> None:
    """Of 4 MiB in one element no pattern is tried on more than a window."""
    looked: list[int] = []

    class Watched:
        """A pattern, with the bytes that it is tried on."""

        def __init__(self, pattern: Any) -> None:
            self._pattern = pattern

        def match(self, data: bytes, at: int, upto: int | None = None) -> Any:
            looked.append(min(len(data), len(data) if upto is None else upto) - at)
            found = self._pattern.match(data, at, len(data) if upto is None else upto)
            if upto is None:
                looked[-1] = (found.end() if found else at) - at
            return found

        fullmatch = property(lambda self: self._pattern.fullmatch)

    for name in (
        "_SHALLOW",
        "_BRACKET",
        "_NO_BRACKET",
        "_IN_STRING",
        "_SCALARS",
        "_SCALAR",
        "_PLAIN",
        "_SPACE",
    ):
        monkeypatch.setattr(json_stream, name, Watched(getattr(json_stream, name)))
    body = transaction([], [b'{"a":[' + unit * (4_100_000 // len(unit)) + b"0]}"])
    with suppress(RemoteProtocolError):
        assert parse_transaction(body, V["origin"]) == ([], [None])
    assert max(looked) <= json_stream._WINDOW
