"""Canonical JSON, by the vectors of tests/vectors/canonical_json.json, and whatever else may be sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from canonicaljson import encode_canonical_json
from hansa.model.errors import RemoteProtocolError
from hansa.model.lenient_json import unreadable_in
from hansa_matrix.proto.canonical_json import (
    MAX_DEPTH,
    check_depth,
    check_values,
    dumps_canonical,
    dumps_legacy,
    loads_canonical,
    loads_json,
    loads_lenient,
)
from hypothesis import example, given
from hypothesis import strategies as st
from matrix.proto.json_values import MOST, json_values
from matrix.proto.vectors import each, vectors

V = vectors("canonical_json.json")


@each(V["cases"])
def test_canonical_forms(case: dict[str, Any]) -> None:
    if case.get("strict", True):
        assert dumps_canonical(loads_canonical(case["in"].encode())) == case["out"].encode()
    else:
        assert loads_json(case["in"].encode()) == json.loads(case["out"])
        with pytest.raises(RemoteProtocolError):
            loads_canonical(case["in"].encode())


@each(V["refused"])
def test_what_has_no_canonical_form(case: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        loads_canonical(case["in"].encode())
    assert caught.value.code == case["code"]
    assert caught.value.hint == 400


@pytest.mark.parametrize(
    "data", [b"\xff", b'"\xed\xa0\x80"', b'{"\xc0\x80":1}', b"\x00", b'"\xf4\x90\x80\x80"']
)
def test_what_is_no_utf_8(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        loads_json(data)
    assert caught.value.code == "M_NOT_JSON"


def test_of_a_key_that_is_there_twice_the_last_counts() -> None:
    assert loads_canonical(b'{"a":1,"a":2}') == {"a": 2}


@pytest.mark.parametrize("number", [b"1.5", b"1e3", b"-0.0", b"18446744073709551616", b"9" * 400, b"1e400"])
def test_any_number_is_read_where_nothing_is_signed(number: bytes) -> None:
    """One number that nobody can use keeps nothing out that stands beside it."""
    value = loads_lenient(b'{"pdus":[{"a":' + number + b'}],"edus":[]}')
    assert value["edus"] == []
    with pytest.raises(RemoteProtocolError):
        check_values(value)


@pytest.mark.parametrize("value", [1.0, -0.0, float("nan"), float("inf"), MOST + 1, -MOST - 1])
@pytest.mark.parametrize("where", ["list", "object", "deep"])
def test_values_without_a_canonical_form(value: Any, where: str) -> None:
    outer: Any = {"list": [0, value], "object": {"a": value}, "deep": [{"a": [{"b": value}]}]}[where]
    with pytest.raises(RemoteProtocolError):
        check_values(outer)
    check_values([True, False, None, MOST, -MOST, "1.5"])


def nested(kind: str, depth: int) -> bytes:
    before, after = {"[": ("[", "]"), "{": ('{"a":', "}")}[kind]
    return (before * depth + "1" + after * depth).encode()


@pytest.mark.parametrize("kind", ["[", "{"])
def test_depth_is_bounded(kind: str) -> None:
    assert dumps_canonical(loads_json(nested(kind, MAX_DEPTH - 1))) == nested(kind, MAX_DEPTH - 1)
    for depth in (MAX_DEPTH, MAX_DEPTH + 1, 500, 1000, 3000):
        both = loads_json(b'{"deep":' + nested(kind, depth) + b',"other":{"a":1}}')
        assert both["other"] == {"a": 1}
        assert dumps_canonical(both)
        with pytest.raises(RemoteProtocolError) as caught:
            check_values(both["deep"])
        assert caught.value.code == "M_BAD_JSON"
    for depth in (MAX_DEPTH, 1000):
        assert loads_lenient(nested(kind, depth))
    for depth in (1100, 30_000):
        with pytest.raises(RemoteProtocolError) as caught:
            loads_lenient(nested(kind, depth))
        assert caught.value.code == "M_NOT_JSON"


def test_breadth_is_no_depth() -> None:
    check_depth([[]] * 100_000)
    check_depth({str(number): {"a": [1]} for number in range(10_000)})


@pytest.mark.parametrize("odd", [{1: 2}, {"a": object()}, {"a": b""}, {"a": "\ud800"}, {"a": 2**70}])
def test_what_cannot_be_encoded(odd: Any) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        dumps_canonical(odd)
    assert caught.value.code == "M_BAD_JSON"


def test_what_nests_too_deep_to_be_encoded() -> None:
    with pytest.raises(RemoteProtocolError):
        dumps_canonical(loads_lenient(nested("[", 900)))


@given(json_values)
@example({"～": 1, "😀": 2, "z": {"b": 1, "a": 2}})
def test_the_form_is_python_s_and_there_and_back(value: Any) -> None:
    """C-5: the same as the standard library's, and stable."""
    data = dumps_canonical(value)
    assert data == json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    assert loads_canonical(data) == value
    assert dumps_canonical(loads_canonical(data)) == data


@given(json_values, st.booleans(), st.sampled_from([None, 2]), st.randoms(use_true_random=False))
def test_however_it_is_written_the_form_is_one(
    value: Any, ascii_only: bool, indent: int | None, random: Any
) -> None:
    def shuffled(one: Any) -> Any:
        if isinstance(one, dict):
            items = [(key, shuffled(inner)) for key, inner in one.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(inner) for inner in one] if isinstance(one, list) else one

    written = json.dumps(shuffled(value), ensure_ascii=ascii_only, indent=indent)
    assert dumps_canonical(loads_canonical(written.encode())) == dumps_canonical(value)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True))
def test_keys_stand_by_code_point(keys: list[str]) -> None:
    """Mistake 4: a sort by UTF-16 unit puts U+10000 and beyond before U+E000."""
    assert list(json.loads(dumps_canonical(dict.fromkeys(keys)))) == sorted(keys)


fragments = st.sampled_from(
    ["{", "}", "[", "]", '"', ":", ",", "\\", "\\u", "d8", "1", "e9", "-", ".", "true", "nul", " "]
)


@example(b'-"\x00"')
@example(b'[-"\x00"]')
@given(st.binary(max_size=80) | st.lists(fragments, max_size=20).map(lambda parts: "".join(parts).encode()))
def test_any_bytes_are_json_or_a_peer_s_error(data: bytes) -> None:
    for read in (loads_lenient, loads_json, loads_canonical):
        try:
            value = read(data)
        except RemoteProtocolError:
            continue
        assert unreadable_in(value) or value == json.loads(data)


@pytest.mark.parametrize("check", [check_depth, check_values])
@pytest.mark.parametrize("inside", [[], {}, "x", None])
def test_both_checks_know_the_same_limit(check: Any, inside: Any) -> None:
    value = inside
    for _ in range(MAX_DEPTH - 1):
        value = {"a": value} if isinstance(value, list) else [value]
    check(value)
    with pytest.raises(RemoteProtocolError):
        check([value])


@given(json_values)
def test_both_encoders_say_of_a_valid_value_what_canonicaljson_says(value: Any) -> None:
    assert dumps_canonical(value) == dumps_legacy(value) == encode_canonical_json(value)
