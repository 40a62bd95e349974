"""Large JSON, cut as it comes: whatever is cut is what it was whole, and nobody makes us hold it."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hansa.model.bounded_json import Limits
from hansa.model.errors import RemoteProtocolError
from hansa_matrix.proto.streaming.json_stream import Splitter
from hypothesis import given
from hypothesis import strategies as st
from matrix.proto.json_values import json_values, texts

KIB = 1024
NAMES = ("state", "auth_chain")


def cut(data: bytes, sizes: list[int] | None = None, *, numbered: bool = False) -> dict[str, Any]:
    """The document, out of its pieces."""
    splitter = Splitter(NAMES, most_element=256 * KIB, rest=Limits(bytes=256 * KIB), numbered=numbered)
    found: dict[str, list[Any]] = {}
    pieces = []
    at = 0
    for size in [*(sizes or []), len(data)]:
        pieces += splitter.feed(data[at : at + size])
        at += size
    last, rest = splitter.finish()
    for piece in [*pieces, *last]:
        found.setdefault(piece.name, []).extend(piece.parse_values())
    return {**rest, **found} if isinstance(rest, dict) else rest


@pytest.fixture(autouse=True)
def at_once(monkeypatch) -> None:
    """Every chunk is looked at, however small, and in windows that cut it anywhere."""
    monkeypatch.setattr("hansa_matrix.proto.streaming.json_stream._WINDOW", 5)
    monkeypatch.setattr("hansa_matrix.proto.streaming.json_stream._CHUNK", 1)
    monkeypatch.setattr("hansa_matrix.proto.streaming.json_stream._FIRST", 40)


documents = st.dictionaries(
    st.sampled_from([*NAMES, "event", 'a"', "servers"]) | texts, json_values, max_size=6
)


@given(
    documents | json_values,
    st.lists(st.integers(1, 9), max_size=40),
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_the_pieces_are_the_document(
    value: Any, sizes: list[int], ascii_only: bool, indent: int | None
) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert cut(data, sizes) == value


tokens = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        '"state"',
        '"a"',
        ":",
        ",",
        '"',
        "\\",
        "1",
        "e9",
        "-",
        "null",
        " ",
        '{"state":[',
        "{}",
    ]
)


@given(st.lists(tokens, max_size=14).map("".join), st.lists(st.integers(1, 5), max_size=20), st.booleans())
def test_what_is_no_json_is_refused(text: str, sizes: list[int], inside: bool) -> None:
    data = ('{"state":[' + text + "]}" if inside else text).encode()
    try:
        found = cut(data, sizes)
    except RemoteProtocolError:
        return
    assert found == json.loads(data)


def test_an_array_that_is_there_twice_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="twice"):
        cut(b'{"state":[1],"state":[2]}')
    with pytest.raises(RemoteProtocolError, match="twice"):
        cut(b'{"state":[1],"st\\u0061te":[2]}')


def test_what_is_too_large_is_let_go_and_the_rest_goes_on() -> None:
    splitter = Splitter(["state"], most_element=100, rest=Limits(bytes=KIB))
    large = orjson.dumps({"a": ["x"] * 100})
    data = b'{"state":[{"b":1},' + large + b',{"c":2}],"d":3}'
    pieces = []
    for at in range(0, len(data), 7):
        pieces += splitter.feed(data[at : at + 7])
    last, rest = splitter.finish()
    assert [p.raw for p in [*pieces, *last]] == [b'{"b":1}', None, b'{"c":2}']
    assert rest == {"state": [], "d": 3}


@pytest.mark.parametrize(
    "endless",
    [
        b'{"state":["' + b"x" * 10_000,
        b'{"a":"' + b"x" * 10_000,
        b'{"a":[' + b"[]," * 5000,
        b'{"state":[{"a":"',
    ],
)
def test_nobody_makes_us_hold_what_does_not_end(endless: bytes) -> None:
    splitter = Splitter(["state"], most_element=KIB, rest=Limits(bytes=KIB))

    def fed() -> None:
        for at in range(0, len(endless), 100):
            splitter.feed(endless[at : at + 100])
            assert len(splitter._buffer) + len(splitter._rest) < 200 * KIB
        for _ in range(10_000):
            splitter.feed(b"y" * 100)

    with pytest.raises(RemoteProtocolError, match="too large"):
        fed()


def test_a_million_elements_leave_nothing_behind() -> None:
    splitter = Splitter(["state"], most_element=KIB, rest=Limits(bytes=KIB))
    count = len(splitter.feed(b'{"state":[{}'))
    for _ in range(20):
        count += len(splitter.feed(b',{"a":[1]}' * 6000))
        assert len(splitter._buffer) < 128 * KIB and len(splitter._rest) < 100
    assert count == 120_001


def test_an_element_that_is_too_deep_and_too_large_ends_the_reading() -> None:
    """Nothing but brackets was kept whole, however much of it came."""
    splitter = Splitter(["state"], most_element=100 * KIB, rest=Limits(bytes=KIB))
    splitter.feed(b'{"state":[' + b"[" * (64 * KIB))
    with pytest.raises(RemoteProtocolError, match="too deep"):
        splitter.feed(b"[" * (64 * KIB))


@given(
    st.dictionaries(st.sampled_from([*NAMES, "event"]) | texts, json_values, max_size=6),
    st.lists(st.integers(1, 9), max_size=40),
    st.sampled_from([b"[200,%b]", b" [ 200 ,\n%b ]\n", b"%b"]),
)
def test_an_object_behind_a_status_is_cut_as_one_alone(
    value: dict[str, Any], sizes: list[int], around: bytes
) -> None:
    assert cut(around % json.dumps(value).encode(), sizes, numbered=True) == value


@pytest.mark.parametrize(
    "data",
    [
        b'[200,{"state":[1]}',
        b'[200,{"state":[1]}]]',
        b'[200,{"state":[1]},{}]',
        b'[200,{"state":[1]},1]',
        b'[200,{"state":[1]}}',
        b'[200,{"state":[1]]',
        b'{"state":[1]}]',
    ],
)
def test_what_is_no_object_behind_a_status_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not JSON"):
        cut(data, numbered=True)


@pytest.mark.parametrize("data", [b'[200,{"state":[1]}]', b'[200,[{"state":[1]}]]', b"[200]", b"[]"])
def test_what_is_behind_a_status_where_none_was_asked_for_is_no_object(data: bytes) -> None:
    found = cut(data) if data.endswith(b"}]") else cut(data, numbered=True)
    assert isinstance(found, list)
    assert "state" not in found


def test_what_is_behind_a_status_is_not_held_whole() -> None:
    splitter = Splitter(["state"], most_element=KIB, rest=Limits(bytes=KIB), numbered=True)
    count = len(splitter.feed(b'[200, {"state":[{}'))
    for _ in range(20):
        count += len(splitter.feed(b',{"a":[1]}' * 6000))
        assert len(splitter._buffer) < 128 * KIB and len(splitter._rest) < 100
    assert count == 120_001
    splitter.feed(b',"')

    def fed() -> None:
        for _ in range(10_000):
            splitter.feed(b"y" * 100)

    with pytest.raises(RemoteProtocolError, match="too large"):
        fed()
