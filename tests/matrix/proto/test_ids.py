"""The grammar of identifiers, by the vectors of tests/vectors/identifiers.json."""

from __future__ import annotations

from typing import Any

import pytest
from hansa.model.errors import RemoteProtocolError
from hansa_matrix.local.ghosts import escape_localpart
from hansa_matrix.proto import ids
from hypothesis import given
from hypothesis import strategies as st
from matrix.proto.vectors import each, vectors

V = vectors("identifiers.json")
LOCAL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._=-/+")


@each(V["servers"])
def test_server_names(case: dict[str, Any]) -> None:
    parsed = ids.parse_server_name(case["name"])
    assert (parsed.host, parsed.port, parsed.ip) == (case["host"], case["port"], case["ip"])
    assert ids.is_valid_server_name(case["name"])


@each(V["no_servers"])
def test_what_is_no_server_name(case: str) -> None:
    with pytest.raises(RemoteProtocolError):
        ids.parse_server_name(case)
    assert not ids.is_valid_server_name(case)


@each(V["connect"])
def test_an_identity_is_not_always_an_address(case: dict[str, Any]) -> None:
    assert ids.parse_server_name(case["name"]).is_reachable is case["ok"]


@each(V["users"], "id")
def test_user_ids(case: dict[str, Any]) -> None:
    assert ids.is_valid_user_id(case["id"]) is case["valid"]


@each(V["rooms"], "id")
def test_room_ids(case: dict[str, Any]) -> None:
    assert ids.is_valid_room_id(case["id"]) is case["valid"]


@each(V["aliases"], "id")
def test_aliases(case: dict[str, Any]) -> None:
    assert ids.is_valid_alias(case["id"]) is case["valid"]


@each(V["events"], "id")
def test_event_ids(case: dict[str, Any]) -> None:
    assert ids.is_valid_event_id(case["id"]) is case["valid"]


@each(V["keys"], "id")
def test_key_ids(case: dict[str, Any]) -> None:
    assert ids.is_valid_key_id(case["id"]) is case["valid"]


@pytest.mark.parametrize("odd", [None, 7, 1.5, True, b"a.example", ["a.example"], {"a": 1}])
def test_what_is_no_text_is_no_identifier(odd: Any) -> None:
    assert not ids.is_valid_server_name(odd)
    with pytest.raises(RemoteProtocolError):
        ids.parse_server_name(odd)
    for valid in (
        ids.is_valid_user_id,
        ids.is_valid_room_id,
        ids.is_valid_alias,
        ids.is_valid_event_id,
        ids.is_valid_key_id,
    ):
        assert not valid(odd)


def test_the_domain_is_what_follows_the_first_colon() -> None:
    assert ids.domain_of("@a:x") == "x"
    assert ids.domain_of("@a:x:80") == "x:80"
    assert ids.domain_of("@:[::1]:80") == "[::1]:80"
    assert ids.domain_of("!hash") == ""  # mistake 16: a room id of version 12 has none


@given(st.text())
def test_any_text_is_judged_without_an_error(text: str) -> None:
    for valid in (
        ids.is_valid_user_id,
        ids.is_valid_room_id,
        ids.is_valid_alias,
        ids.is_valid_event_id,
        ids.is_valid_key_id,
    ):
        for sigil in ("", "@", "!", "#", "$", "ed25519:"):
            assert valid(sigil + text) in {True, False}
    if ids.is_valid_server_name(text):
        parsed = ids.parse_server_name(text)
        again = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
        assert text in {again, f"{again}:{text.rpartition(':')[2]}"}


@given(st.text(st.characters(exclude_characters=":\0", exclude_categories=["Cs"]), max_size=60))
def test_any_localpart_without_colon_and_nul_is_a_historical_user_id(local: str) -> None:
    assert ids.is_valid_user_id(f"@{local}:x.example")
    assert not ids.is_valid_user_id(f"@{local}\0:x.example")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_escaped_names_are_localparts_and_stay_apart(one: str, other: str) -> None:
    assert LOCAL.issuperset(escape_localpart(one))
    assert (escape_localpart(one) == escape_localpart(other)) == (one == other)
    assert bytes.fromhex("".join(escape_localpart("á=#").split("="))) == "á=#".encode()
