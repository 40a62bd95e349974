"""The checks of a joining server on the answer of the resident, by the vectors of
tests/vectors/joins.json.
"""

from __future__ import annotations

from typing import Any

import pytest
from hansa.model.errors import RemoteProtocolError
from hansa_matrix.crypto import SigningKey, verify_signature
from hansa_matrix.proto import send_join
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import VerifyKey, add_signature, hash_and_sign, parse_pdu, signature_problem
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.send_join import (
    MAX_EVENTS,
    check_stripped_state,
    parse_make_join,
    parse_send_join,
    with_returned_signatures,
)
from hypothesis import given
from hypothesis import strategies as st
from matrix.proto.json_values import json_values
from matrix.proto.room_graph import ALL_VERSIONS, HASHED, V10, V11, V12
from matrix.proto.vectors import each, vectors

V = vectors("joins.json")
each_version = pytest.mark.parametrize("version", HASHED, ids=lambda v: f"v{v.id}")
KEY = SigningKey.from_seed("ed25519:1", b"\x01" * 32)
THEIRS = SigningKey.from_seed("ed25519:t", b"\x02" * 32)
SIGN = (KEY.key_id, KEY.sign)


def template(case: dict[str, Any]) -> dict[str, Any]:
    event = {**V["template"], **case["change"]}
    return {key: value for key, value in event.items() if key not in case["remove"]}


@each(V["cases"])
def test_templates(case: dict[str, Any]) -> None:
    event = template(case)
    taken = parse_make_join({"room_version": "11", "event": event}, V["room"], V["user"], "join", V11)
    assert taken == {key: event[key] for key in V["taken"]}


@each(V["refused"])
def test_templates_of_something_else(case: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_make_join({"event": template(case)}, V["room"], V["user"], "join", V11)


@pytest.mark.parametrize("depth", [2**53 - 1, 2**53, 2**63 - 1])
def test_a_template_is_as_deep_as_can_be_counted(depth: int) -> None:
    event = {**V["template"], "depth": depth}
    taken = parse_make_join({"room_version": "11", "event": event}, V["room"], V["user"], "join", V11)
    assert taken["depth"] == 2**53 - 1


@each(V["nothing"])
def test_answers_without_a_template(case: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_make_join(case, V["room"], V["user"], "join", V11)


def test_a_template_of_a_leave() -> None:
    event = {**V["template"], "content": {"membership": "leave"}}
    assert parse_make_join({"event": event}, V["room"], V["user"], "leave", V11)["content"] == {
        "membership": "leave"
    }
    with pytest.raises(RemoteProtocolError):
        parse_make_join({"event": event}, V["room"], V["user"], "join", V11)


@given(json_values, st.sampled_from(sorted(V["template"])))
def test_any_template_is_taken_or_refused(value: Any, name: str) -> None:
    for answer in (value, {"event": value}, {"event": {**V["template"], name: value}}):
        try:
            taken = parse_make_join(answer, V["room"], V["user"], "join", V11)
        except RemoteProtocolError:
            continue
        assert taken.keys() == set(V["taken"])


# The answer to send_join.


class Room:
    """A room of one version: its create event, its first member, and whatever else is asked for."""

    def __init__(self, version: RoomVersion) -> None:
        self.version = version
        self.create = self.event("m.room.create", "", {"room_version": version.id, "creator": "@a:x"}, [])
        self.member = self.event("m.room.member", "@a:x", {"membership": "join"})

    @property
    def room_id(self) -> str:
        return self.create.room_id

    def event(
        self, kind: str, key: str | None, content: dict[str, Any], prev: list[str] | None = None, **more: Any
    ) -> Pdu:
        raw = {
            "type": kind,
            "sender": "@a:x",
            "content": content,
            "prev_events": ["$p"] if prev is None else prev,
            "auth_events": [],
            "depth": 1,
            "origin_server_ts": 1,
            **more,
        }
        if key is not None:
            raw["state_key"] = key
        if kind != "m.room.create" or not self.version.room_id_is_create_hash:
            raw.setdefault("room_id", self.room_id if kind != "m.room.create" else "!r:x")
        return hash_and_sign(raw, self.version, "x", SIGN)

    def answer(self, *more: Any, **fields: Any) -> dict[str, Any]:
        state = [
            self.create.raw,
            self.member.raw,
            *(one.raw if isinstance(one, Pdu) else one for one in more),
        ]
        return {"state": state, "auth_chain": [self.create.raw], **fields}

    def refused(self, answer: Any) -> None:
        with pytest.raises(RemoteProtocolError):
            parse_send_join(answer, self.room_id, self.version)


@each_version
def test_j5_an_answer(version: RoomVersion) -> None:
    room = Room(version)
    found = parse_send_join(room.answer(servers_in_room=["x", "y", "a b", 7]), room.room_id, version)
    assert found.state == (room.create, room.member)
    assert found.chain == (room.create,)
    assert found.create == room.create
    assert found.create.room_id == room.room_id
    assert found.dropped == 0
    assert found.servers == ("x", "y")
    assert found.event is None


@each_version
def test_j5_exactly_one_create_event(version: RoomVersion) -> None:
    room = Room(version)
    room.refused({"state": [room.member.raw], "auth_chain": [room.create.raw]})
    room.refused({"state": [], "auth_chain": []})
    if (
        not version.room_id_is_create_hash
    ):  # a second create event of version 12 is of another room, and dropped
        room.refused(room.answer(room.event("m.room.create", "", {"room_version": version.id, "x": 1}, [])))
    other = room.event("m.room.create", "other", {"room_version": version.id}, room_id=room.room_id)
    assert parse_send_join(room.answer(other), room.room_id, version).create == room.create


@each_version
def test_j5_a_create_event_of_another_version_or_room(version: RoomVersion) -> None:
    room = Room(version)
    for other in ALL_VERSIONS:
        if other is not version:
            with pytest.raises(RemoteProtocolError):
                parse_send_join(room.answer(), room.room_id, other)
    with pytest.raises(RemoteProtocolError):
        parse_send_join(room.answer(), "!other:x", version)
    plain = Room(version)
    plain.create = plain.event("m.room.create", "", {"creator": "@a:x"}, [])
    plain.refused(plain.answer())  # no room_version is version 1


@each_version
@pytest.mark.parametrize("odd", [["x"], {}, None, "x"], ids=repr)
def test_j5_a_create_event_that_breaks_the_rules_is_of_no_room(version: RoomVersion, odd: Any) -> None:
    room = Room(version)
    content = {"room_version": version.id, "additional_creators": odd}
    if not version.privileged_creators and not version.creator_in_content:
        content["room_version"] = odd
    room.create = room.event("m.room.create", "", content, [])
    room.member = room.event("m.room.member", "@a:x", {"membership": "join"})
    room.refused(room.answer())


@each_version
def test_j6_malformed_and_foreign_events_are_dropped_and_counted(version: RoomVersion) -> None:
    """Mistakes 26 and 31: one bad event ends no join, and none of another room gets in."""
    room = Room(version)
    foreign = room.event("m.room.name", "", {"name": "n"}, room_id="!other:x")
    bad = [None, 7, {}, {**room.member.raw, "depth": 1.5}, {**room.member.raw, "sender": "a"}, foreign]
    answer = room.answer(*bad)
    answer["auth_chain"] += [room.member.raw, *(one.raw if isinstance(one, Pdu) else one for one in bad)]
    found = parse_send_join(answer, room.room_id, version)
    assert found.state == (room.create, room.member)
    assert found.chain == (room.create, room.member)
    assert found.dropped == 2 * len(bad)


@each_version
def test_what_is_in_the_chain_again_is_parsed_once(version: RoomVersion, monkeypatch: Any) -> None:
    room, asked = Room(version), list[Any]()
    topic = room.event("m.room.topic", "", {"topic": "t"})
    again = {**topic.raw, "unsigned": {"age": 7}}
    other = {**topic.raw, "depth": 2}
    more = {**topic.raw, "extra": 1}
    resigned = {**topic.raw, "signatures": {"x": {"ed25519:1": "AAAA"}}}
    lacking = {k: v for k, v in topic.raw.items() if k != "depth"}
    answer = room.answer(topic)
    answer["auth_chain"] = [room.create.raw, again, other, more, resigned, lacking]

    def watched(one: Any, *rest: Any, **named: Any) -> Pdu:
        asked.append(one)
        return parse_pdu(one, *rest, **named)

    monkeypatch.setattr(send_join, "parse_pdu", watched)
    found = parse_send_join(answer, room.room_id, version)
    assert asked == [room.create.raw, room.member.raw, topic.raw, other, more, resigned, lacking]
    assert found.chain[:2] == (room.create, topic)
    assert [p.raw for p in found.chain[2:]] == [other, more, resigned]
    assert found.dropped == 1


@each_version
def test_of_two_events_for_one_piece_of_state_the_first_counts(version: RoomVersion) -> None:
    room = Room(version)
    one, two = (room.event("m.room.topic", "", {"topic": text}) for text in ("one", "two"))
    message = room.event("m.room.message", None, {"body": "b"})
    found = parse_send_join(room.answer(one, one, two, message, room.create), room.room_id, version)
    assert found.state == (room.create, room.member, one)
    assert found.dropped == 4


@each_version
def test_old_events_may_have_more_edges_than_new_ones(version: RoomVersion) -> None:
    room = Room(version)
    many = room.event("m.room.topic", "", {}, [f"$p{number}" for number in range(30)])
    assert many in parse_send_join(room.answer(many), room.room_id, version).state


@pytest.mark.parametrize("odd", [None, [], 7, "x", {}, {"state": []}, {"state": {}, "auth_chain": []}])
def test_answers_that_are_none(odd: Any) -> None:
    Room(V11).refused(odd)


def test_too_much_state() -> None:
    room = Room(V11)
    room.refused({**room.answer(), "auth_chain": [None] * (MAX_EVENTS - 1)})


@given(json_values, json_values, json_values, json_values)
def test_any_answer_is_taken_or_refused(one: Any, other: Any, servers: Any, event: Any) -> None:
    room = Room(V12)
    room.refused(one)
    room.refused({"state": one, "auth_chain": other})
    answer = room.answer(one, other, servers_in_room=servers, event=event)
    assert parse_send_join(answer, room.room_id, V12).dropped == 2


@pytest.mark.parametrize("version", [v for v in HASHED if v.restricted], ids=lambda v: f"v{v.id}")
def test_j5_a_restricted_join_takes_the_signature_of_the_authorising_server(version: RoomVersion) -> None:
    room = Room(version)
    content = {"membership": "join", "join_authorised_via_users_server": "@r:y"}
    join = room.event("m.room.member", "@a:x", content)
    back = add_signature(join, version, "y", (THEIRS.key_id, THEIRS.sign))
    back = add_signature(back, version, "z", ("ed25519:1", lambda _: "other"))
    keys = {"x": KEY, "y": THEIRS}

    def key_of(server: str, _: str) -> VerifyKey | None:
        return VerifyKey(public=keys[server].public, valid_until=9) if server in keys else None

    made = with_returned_signatures(
        join, parse_send_join(room.answer(event=back.raw), room.room_id, version).event, version
    )
    assert made.event_id == join.event_id
    assert made.raw["signatures"].keys() == {"x", "y"}
    assert signature_problem(join, version, key_of, verify_signature)
    assert signature_problem(made, version, key_of, verify_signature) is None
    # What else the resident did to the event is not taken over.
    changed = {**back.raw, "unsigned": {"age": 1}, "signatures": {"x": {}, "y": back.raw["signatures"]["y"]}}
    made = with_returned_signatures(
        join, parse_send_join(room.answer(event=changed), room.room_id, version).event, version
    )
    assert made.wire == add_signature(join, version, "y", (THEIRS.key_id, THEIRS.sign)).wire


@each_version
def test_j5_the_event_that_comes_back_is_ours(version: RoomVersion) -> None:
    room = Room(version)
    join = room.event("m.room.member", "@b:x", {"membership": "join"})
    for nothing in (None, 7, []):
        assert (
            with_returned_signatures(
                join, parse_send_join(room.answer(event=nothing), room.room_id, version).event, version
            )
            is join
        )
    for other in (room.member.raw, {}, {**join.raw, "depth": 2}):
        with pytest.raises(RemoteProtocolError):
            with_returned_signatures(
                join, parse_send_join(room.answer(event=other), room.room_id, version).event, version
            )


# The state that comes along with an invite.


def test_the_state_of_an_invite() -> None:
    for version in (V10, V11, V12):
        room = Room(version)
        invite = room.event("m.room.member", "@b:y", {"membership": "invite"})
        check_stripped_state([room.create.raw, room.member.raw], invite, version)
        deep: Any = 1
        for _ in range(220):
            deep = [deep]
        for odd in (None, 7, "x", [], {"a": deep}):
            with pytest.raises(RemoteProtocolError):
                check_stripped_state([room.create.raw, odd], invite, version)
    other = Room(V12)
    other.create = other.event("m.room.create", "", {"room_version": "12", "x": 1}, [])
    for state in ([], [room.member.raw], [other.create.raw], [room.create.raw, other.create.raw]):
        with pytest.raises(RemoteProtocolError):
            check_stripped_state(state, invite, V12)
    check_stripped_state([], Room(V11).member, V11)
