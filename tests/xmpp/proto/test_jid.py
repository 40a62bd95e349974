"""Addresses: bijective, and left alone by every nodeprep."""

from __future__ import annotations

import pytest
from hansa import NativeId
from hansa_xmpp.proto import jid
from hypothesis import example, given
from hypothesis import strategies as st
from slixmpp.jid import JID

GW = "gw.example"

anything = st.text(st.characters(codec=None), max_size=60)
hard = st.text("aZ^%\\;0@:/ <>&'\"5c40é😀_-.=", max_size=20)
matrix_id = st.builds(lambda a, b: f"@{a}:{b}", hard, hard)
users = st.builds(
    NativeId,
    st.sampled_from(["matrix", "other", "", "ma%trix"]),
    anything | hard | matrix_id | st.just("@a:b"),
)


@given(users)
@example(NativeId("matrix", "@Alice:example.org"))
@example(NativeId("matrix", "@^a:x"))
@example(NativeId("matrix", "@:x"))
@example(NativeId("matrix", ""))
@example(NativeId("other", "@a:b%c"))
def test_an_address_turns_back_into_the_person(user: NativeId) -> None:
    address = jid.puppet(user, GW)
    assert jid.person(address, GW) == user


@given(users)
def test_an_address_is_a_jid_that_no_server_changes(user: NativeId) -> None:
    address = jid.puppet(user, GW)
    assert JID(address).bare == address


@given(users, users)
def test_two_people_have_two_addresses(one: NativeId, other: NativeId) -> None:
    assert (jid.puppet(one, GW) == jid.puppet(other, GW)) == (one == other)


@given(hard)
def test_only_what_was_escaped_is_unescaped(text: str) -> None:
    part = jid.unescape(text)
    assert part is None or jid.escape(part) == text


@given(hard)
def test_only_what_was_made_is_a_person(text: str) -> None:
    found = jid.person(f"{text}@{GW}", GW)
    assert found is None or jid.puppet(found, GW) == f"{text}@{GW}"


@pytest.mark.parametrize(
    ("user", "address"),
    [
        (NativeId("matrix", "@alice:example.org"), "alice%example.org@gw.example"),
        (NativeId("matrix", "@Alice:example.org:8448"), "^alice%example.org\\3a8448@gw.example"),
        (NativeId("lab", "@alice:example.org"), "alice%example.org%lab@gw.example"),
        (NativeId("lab", "alice"), "%alice%lab@gw.example"),
        (NativeId("matrix", "@a b%:x"), "a^020;b^025;%x@gw.example"),
    ],
)
def test_addresses_are_these_for_ever(user: NativeId, address: str) -> None:
    assert jid.puppet(user, GW) == address


def test_what_is_too_long_is_a_hash_of_its_own() -> None:
    long, longer = (NativeId("matrix", f"@{'a' * n}:x") for n in (1022, 1023))
    assert len(jid.puppet(NativeId("matrix", f"@{'a' * 1021}:x"), GW)) == 1023 + 1 + len(GW)
    assert jid.puppet(long, GW) != jid.puppet(longer, GW)
    for user in (long, longer):
        assert len(jid.puppet(user, GW)) < 100
        assert jid.person(jid.puppet(user, GW), GW) is None
        assert JID(jid.puppet(user, GW)).bare == jid.puppet(user, GW)


@pytest.mark.parametrize("address", ["a%b@other.example", "gw.example", "a@gw.example", "A%b@gw.example", ""])
def test_what_is_no_puppet(address: str) -> None:
    assert jid.person(address, GW) is None


def test_domains() -> None:
    assert [jid.domain_of(x) for x in ("a@b.example/c@d/e", "b.example", "b.example/a@c")] == [
        "b.example"
    ] * 3
