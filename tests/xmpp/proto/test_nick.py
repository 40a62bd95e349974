"""Nicks: always representable, and the same people give the same nicks."""

from __future__ import annotations

import pytest
from hansa import NativeId
from hansa_xmpp.proto import nick
from hypothesis import given
from hypothesis import strategies as st
from slixmpp.jid import JID

names = st.text(max_size=120) | st.text("abאבج1 😀\u200b\x00é", max_size=12)
ALICE = NativeId("matrix", "@alice:example.org")


@given(names)
def test_a_sanitised_name_is_a_resource_or_nothing(name: str) -> None:
    made = nick.sanitised(name)
    if made:
        assert JID(f"room@gw.example/{made}").resource == made
        assert len(made.encode()) <= nick.MAX_NICK
    assert nick.sanitised(made) == made


@given(names | st.none(), st.text(max_size=30), st.sets(st.text(max_size=20)))
def test_everybody_gets_a_nick_of_their_own(name: str | None, local: str, taken: set[str]) -> None:
    user = NativeId("matrix", f"@{local}:x.example")
    made = nick.nick_for(user, name, taken.__contains__)
    assert nick.is_valid(made)
    assert made not in taken
    assert made == nick.nick_for(user, name, taken.__contains__)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Alice", "Alice"),
        ("Alice 😀", "Alice"),
        ("😀", ""),
        ("  a \t b  ", "a b"),
        ("Ⅳ", "IV"),
        ("דוד 2", "דוד"),
        ("x" * 500, "x" * 197),
        ("a\x00b\u200bc", "abc"),
    ],
)
def test_names(name: str, expected: str) -> None:
    assert nick.sanitised(name) == expected


def test_a_taken_name_gets_a_suffix_made_of_the_id() -> None:
    taken = {"Alice"}
    assert nick.nick_for(ALICE, "Alice", taken.__contains__) == "Alice (alice)"
    taken.add("Alice (alice)")
    assert nick.nick_for(ALICE, "Alice", taken.__contains__) == "Alice (alice:example.org)"
    taken.add("Alice (alice:example.org)")
    assert nick.nick_for(ALICE, "Alice", taken.__contains__).startswith("user-")


def test_without_a_name_the_id_speaks() -> None:
    assert nick.nick_for(ALICE, None, lambda _: False) == "alice"
    assert nick.nick_for(ALICE, "😀", lambda _: False) == "alice"
    assert nick.nick_for(NativeId("x", "juliet@capulet.example"), None, lambda _: False) == "juliet"
