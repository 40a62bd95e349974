"""JSON of which one part cannot be read: that part is marked, everything else is as it was."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hansa.model.bounded_json import Limits
from hansa.model.errors import RemoteProtocolError
from hansa.model.lenient_json import (
    DEPTH,
    MENDED_AT_ONCE,
    UNREADABLE,
    cut_deep,
    read_parts,
    unreadable_in,
)
from hypothesis import given
from hypothesis import strategies as st

LIMITS = Limits(bytes=1024 * 1024)
ODD = [
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-1e999",
    b"9" * 400,
    b'"\\ud800"',
    b'"x\\udfff y"',
    b'"\\udc00\\ud800"',
]
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=5)
    ),
)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "where", [b'{"a":%b,"b":[%b,{"c":%b}]}', b'[1,[%b],{"x":%b},"NaN 1e999 \\\\ud800 [[",%b]']
)
def test_only_what_cannot_be_read_is_marked(odd: bytes, where: bytes) -> None:
    plain = orjson.loads(where.replace(b"%b", b"7"))
    for at in range(3):
        parts = [b"7"] * 3
        parts[at] = odd
        found = read_parts(where % tuple(parts), LIMITS)
        assert unreadable_in(found)
        assert not unreadable_in(plain)

        def unmarked(one: Any) -> Any:
            if isinstance(one, dict):
                return {key: unmarked(inner) for key, inner in one.items()}
            return (
                [unmarked(inner) for inner in one]
                if isinstance(one, list)
                else 7
                if one == UNREADABLE
                else one
            )

        assert unmarked(found) == plain


@pytest.mark.parametrize("opened", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [DEPTH + 1, 30_000])
def test_what_nests_too_deep_is_cut_off(opened: bytes, depth: int) -> None:
    deep = opened * depth + b"1" + {b"[": b"]"}.get(opened, b"}") * depth
    found = read_parts(b'{"deep":%b,"other":[[1]]}' % deep, LIMITS, mended=1024 * 1024)
    assert unreadable_in(found) and found["other"] == [[1]]
    inner = UNREADABLE if opened == b"[" else {"a": UNREADABLE}
    assert cut_deep(found, 3)["deep"] == ([[UNREADABLE]] if opened == b"[" else {"a": inner})
    assert found["other"] == [[1]]


@pytest.mark.parametrize("key", [b'"\\ud800"', b'"a\\udc00b"'])
def test_an_object_with_a_name_that_cannot_be_read_is_marked_with_the_others_of_its_members(
    key: bytes,
) -> None:
    found = read_parts(b'[{"a":1,%b :{"b":2}},{"c":3}]' % key, LIMITS)
    assert unreadable_in(found[0]) and found[0]["a"] == 1
    assert found[1] == {"c": 3}


@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_what_can_be_read_is_as_it_was(value: Any, ascii_only: bool, indent: int | None) -> None:
    """Also beside something that cannot."""
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert read_parts(data, LIMITS) == orjson.loads(data)
    assert read_parts(b"[" + data + b",NaN]", LIMITS) == [orjson.loads(data), UNREADABLE]


@pytest.mark.parametrize(
    "bad", [b'{"a":}', b"[NaN", b"[NaN,]", b"[nope]", b"\xff", b'"\xed\xa0\x80"', b'{"a" 1}', b""]
)
def test_what_is_no_json_is_refused(bad: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        read_parts(bad, LIMITS)
    assert caught.value.code == "M_NOT_JSON"


def test_so_much_is_mended_at_once() -> None:
    large = b'[NaN,"' + b"x" * MENDED_AT_ONCE + b'"]'
    with pytest.raises(RemoteProtocolError):
        read_parts(large, LIMITS)
    assert read_parts(large, LIMITS, mended=len(large))[0] == UNREADABLE
