"""JSON of strangers: counted before it is parsed, and read as it always was where it is within bounds."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hansa.model.bounded_json import MAX_VALUES, MEMORY, Limits, read_json, values_in
from hansa.model.errors import RemoteProtocolError
from hypothesis import given
from hypothesis import strategies as st
from memory import peak_memory

MIB = 1024 * 1024
MANY = Limits(bytes=16 * MIB)
KIB_64 = Limits(bytes=64 * 1024)

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
)


def count(value: Any) -> int:
    """Keys and values, one by one."""
    if isinstance(value, dict):
        return 1 + len(value) + sum(count(inner) for inner in value.values())
    return 1 + sum(count(inner) for inner in value) if isinstance(value, list) else 1


@given(values)
def test_never_fewer_are_counted_than_there_are(value: Any) -> None:
    assert values_in(orjson.dumps(value)) >= count(value)


@given(values, st.booleans())
def test_what_is_accepted_is_what_orjson_reads(value: Any, ascii_only: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    try:
        expected = orjson.loads(data)
    except orjson.JSONDecodeError:
        with pytest.raises(RemoteProtocolError):
            read_json(data, MANY)
    else:
        assert read_json(data, MANY) == expected


@pytest.mark.parametrize("unit", [b"0,", b"[],", b"{},", b'{"":0},', b'"x",', b'[{"a":[{}]}],', b"1.5,"])
def test_64_kib_of_any_shape_are_read(unit: bytes) -> None:
    data = b"[" + (unit * (65_530 // len(unit)))[:-1] + b"]"
    assert read_json(data, KIB_64) == orjson.loads(data)


@pytest.mark.parametrize(
    "unit", [b"0,", b"[],", b"{},", b'{"":0},', b'"xy",', b'[{"a":[{}]}],', b"1.5,", b"[0],"]
)
def test_what_is_read_takes_at_most_its_memory(unit: bytes) -> None:
    """The most that passes, and 16 MiB of the same, of which no object is made."""
    per = sum(unit.count(one) for one in (b",", b":", b"[", b"{"))
    most = b"[" + (unit * (MAX_VALUES // per - 1))[:-1] + b"]"
    huge = b"[" + (unit * (16 * MIB // len(unit) - 1))[:-1] + b"]"
    with peak_memory() as peak:
        assert read_json(most, MANY)
    assert peak.bytes < MEMORY
    with peak_memory() as peak, pytest.raises(RemoteProtocolError) as caught:
        read_json(huge, MANY)
    assert peak.bytes < MEMORY
    assert (caught.value.code, caught.value.hint) == ("M_TOO_LARGE", 413)


@pytest.mark.parametrize("wide", ["😀".encode(), b"\\ud83d\\ude00", b""])
def test_one_wide_character_does_not_make_a_large_string_four_times_as_large(wide: bytes) -> None:
    data = b'["' + b"x" * 8 * MIB + wide + b'"]'
    with peak_memory() as peak:
        if wide:
            with pytest.raises(RemoteProtocolError, match="memory"):
                read_json(data, MANY)
        else:
            assert read_json(data, MANY)
    assert peak.bytes < MEMORY
    assert read_json(data[:2] + wide + b'"]', MANY)


def test_an_absurd_number_costs_no_more_than_another(monkeypatch) -> None:
    def slow(*_: Any, **__: Any) -> Any:
        raise AssertionError("the pure Python parser reads megabytes")

    assert read_json(b'{"a":1e999,"b":2}', MANY) == {"a": float("inf"), "b": 2}
    monkeypatch.setattr("hansa.model.bounded_json.json.loads", slow)
    with pytest.raises(RemoteProtocolError) as caught:
        read_json(b"[" + b"1e999," * 180_000 + b"1]", MANY)
    assert caught.value.code == "M_NOT_JSON"
    with pytest.raises(RemoteProtocolError):
        read_json(b'["' + b"x" * MIB + b'",1e999]', MANY)
