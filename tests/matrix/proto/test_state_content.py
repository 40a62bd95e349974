"""State that says something of another kind than its field has says what its default is; the authorisation rules
refuse it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hansa_matrix.proto import state_content as read

ROOM = "!a:b.example"
#: Reader, key, and the default.
READERS: list[tuple[Callable[[read.Content], Any], str, Any]] = [
    (read.room_version, "room_version", ""),
    (read.room_creator, "creator", None),
    (read.additional_creators, "additional_creators", ()),
    (read.is_federated, "m.federate", True),
    (read.room_type, "type", None),
    (read.predecessor_room, "predecessor", None),
    (read.membership_of, "membership", None),
    (read.display_name, "displayname", None),
    (read.avatar_url, "avatar_url", None),
    (read.reason_of, "reason", None),
    (read.authorising_user, "join_authorised_via_users_server", None),
    (read.third_party_signed, "third_party_invite", None),
    (read.third_party_token, "third_party_invite", None),
    (read.public_keys, "public_key", []),
    (read.public_keys, "public_keys", []),
    (read.join_rule, "join_rule", "invite"),
    (read.auth_join_rule, "join_rule", ""),
    (read.allowed_rooms, "allow", ()),
    (read.history_visibility, "history_visibility", "shared"),
    (read.can_guests_join, "guest_access", False),
    (read.canonical_alias, "alias", None),
    (read.alt_aliases, "alt_aliases", ()),
    (read.room_name, "name", None),
    (read.room_topic, "topic", None),
    (read.room_avatar, "url", None),
    (read.encryption_algorithm, "algorithm", None),
    (read.replacement_room, "replacement_room", None),
    (lambda content: read.space_child(content).via, "via", ()),
    (lambda content: read.space_child(content).order, "order", None),
    (lambda content: read.space_child(content).suggested, "suggested", False),
]
ODD: list[Any] = [[["joined"]], [7], {"a": 1}, {"signed": ["x"]}, {"room_id": {}}, 1, None]


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize(("reader", "key", "default"), READERS)
def test_what_is_of_another_kind_is_the_default(
    reader: Callable[[read.Content], Any], key: str, default: Any, odd: Any
) -> None:
    assert reader({key: odd, **({"join_rule": "restricted"} if key == "allow" else {})}) == default


@pytest.mark.parametrize(("reader", "key", "default"), READERS)
def test_what_is_not_there_is_the_default(
    reader: Callable[[read.Content], Any], key: str, default: Any
) -> None:
    unsaid = {read.room_version: "1", read.auth_join_rule: "invite"}.get(reader, default)
    assert reader({}) == reader(None) == unsaid


def test_words_are_taken() -> None:
    assert read.history_visibility({"history_visibility": "joined"}) == "joined"
    assert read.history_visibility({"history_visibility": "nonsense"}) == "shared"
    assert read.join_rule({"join_rule": "public"}) == read.auth_join_rule({"join_rule": "public"}) == "public"
    assert read.room_version({"room_version": "12"}) == "12"
    assert not read.is_federated({"m.federate": False})
    assert read.predecessor_room({"predecessor": {"room_id": ROOM}}) == ROOM
    assert read.can_guests_join({"guest_access": "can_join"})
    assert read.alt_aliases({"alt_aliases": ["#a:b", 7, ["#c:d"]]}) == ("#a:b",)
    assert read.public_keys({"public_key": "a", "public_keys": [{"public_key": "b"}, "c", {}]}) == ["a", "b"]
    signed = {"third_party_invite": {"signed": {"token": "t"}}}
    assert read.third_party_token(signed) == "t"


def test_rooms_are_allowed_by_a_rule_that_restricts_alone() -> None:
    allow = [{"type": "m.room_membership", "room_id": ROOM}, {"type": ["x"], "room_id": "!c:d"}, "x", {}]
    assert read.allowed_rooms({"join_rule": "knock_restricted", "allow": allow}) == (ROOM,)
    assert read.allowed_rooms({"join_rule": "public", "allow": allow}) == ()
    many = [{"type": "m.room_membership", "room_id": f"!{n}:b"} for n in range(100)]
    assert len(read.allowed_rooms({"join_rule": "restricted", "allow": many})) == read.MAX_ALLOWED_ROOMS


def test_children_of_a_space_have_a_place() -> None:
    orders = ["~~", "a", " ", "", None, "\n", "ä", "x" * 51, ["a"]]
    children = [read.space_child({"via": ["a", "", 7], "order": order}) for order in orders]
    assert {child.via for child in children} == {("a",)}
    assert [child.order for child in sorted(children, key=lambda one: one.sort_key)] == [
        "",
        " ",
        "a",
        "~~",
        *[None] * 5,
    ]
