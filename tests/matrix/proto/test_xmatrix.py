"""Request authentication, by the vectors of tests/vectors/xmatrix.json."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hansa.model.errors import RemoteProtocolError
from hansa_matrix.crypto import SigningKey, verify_signature
from hansa_matrix.proto.servers.xmatrix import format_header, parse_header, signing_bytes
from hypothesis import given
from hypothesis import strategies as st
from matrix.proto.vectors import each, vectors

V = vectors("xmatrix.json")
KEY = SigningKey.from_line(f"ed25519 1 {V['seed']}")


@each(V["headers"])
def test_headers(case: dict[str, Any]) -> None:
    found = parse_header(case["header"])
    assert {
        "origin": found.origin,
        "destination": found.destination,
        "key": found.key,
        "sig": found.sig,
    } == {name: case[name] for name in ("origin", "destination", "key", "sig")}


@each(V["refused"])
def test_headers_that_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_header(case["header"])
    assert caught.value.hint == 401
    assert caught.value.code == "M_UNAUTHORIZED"


@each(V["requests"])
def test_requests(case: dict[str, Any]) -> None:
    """A signature covers the body as it arrived or its canonical form; one of both must verify."""
    named = (case["method"], case["uri"], case["origin"], case["destination"])
    signed = case["signed"].encode()
    messages = []
    if "body" not in case:
        messages.append(signing_bytes(*named))
    else:
        body = case["body"].encode()
        messages.append(signing_bytes(*named, body))
        try:
            messages.append(signing_bytes(*named, json.loads(body)))
        except RemoteProtocolError:
            assert "as it came" in case["name"]
    assert signed in messages
    assert verify_signature(V["public_key"], case["sig"], signed)
    assert KEY.sign(signed) == case["sig"]
    assert format_header(case["origin"], case["destination"], "ed25519:1", case["sig"]) == case["header"]


def test_a_body_is_content_and_none_is_none() -> None:
    """A-3: ``{}`` is a content, no body is none."""
    assert b'"content":{}' in signing_bytes("PUT", "/", "a", "b", {})
    assert b'"content":{}' in signing_bytes("PUT", "/", "a", "b", b"{}")
    assert b"content" not in signing_bytes("GET", "/", "a", "b")


@pytest.mark.parametrize("part", range(5))
def test_every_part_is_signed(part: int) -> None:
    one: list[Any] = ["PUT", "/a?b", "a.example", "b.example", {"c": 1}]
    other = [*one[:part], {"c": 2} if part == 4 else one[part] + "x", *one[part + 1 :]]
    assert signing_bytes(*one) != signing_bytes(*other)


names = st.from_regex(r"[a-z0-9.-]{1,20}(:[0-9]{1,5})?", fullmatch=True)
key_ids = st.from_regex(r"ed25519:[A-Za-z0-9_]{1,10}", fullmatch=True)
sigs = st.from_regex(r"[A-Za-z0-9+/]{1,86}", fullmatch=True)


@given(names, names, key_ids, sigs)
def test_what_we_send_is_what_we_read(origin: str, destination: str, key: str, sig: str) -> None:
    found = parse_header(format_header(origin, destination, key, sig))
    assert (found.origin, found.destination, found.key, found.sig) == (origin, destination, key, sig)


@given(
    names,
    key_ids,
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30),
    st.data(),
)
def test_any_text_may_be_quoted(origin: str, key: str, text: str, data: st.DataObject) -> None:
    def written(value: str) -> str:
        escapes = "".join("\\" + c if c in '"\\' or data.draw(st.booleans()) else c for c in value)
        return f'"{escapes}"'

    parts = [f"origin={written(origin)}", f"key={written(key)}", f"sig={written(text)}", f"x={written(text)}"]
    found = parse_header("X-Matrix " + ",".join(data.draw(st.permutations(parts))))
    assert (found.origin, found.key, found.sig) == (origin, key, text)


fragments = st.sampled_from(
    ["origin", "key", "sig", "=", '"', ",", "\\", " ", "\t", "a.b", "ed25519:1", "é", "\0", "\n"]
)


@given(st.text(max_size=40) | st.lists(fragments, max_size=25).map("".join))
def test_any_header_is_read_or_refused(text: str) -> None:
    for value in (text, f"X-Matrix {text}"):
        with suppress(RemoteProtocolError):
            parse_header(value)


def test_a_long_header_takes_no_time() -> None:
    for value in ('X-Matrix a="' + "\\" * 4000, "X-Matrix " + "a=b," * 1000, "X-Matrix " + " " * 4000 + "a"):
        with pytest.raises(RemoteProtocolError):
            parse_header(value)
