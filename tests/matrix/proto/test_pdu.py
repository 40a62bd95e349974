"""Receipt check 1 and our own events, by the vectors of tests/vectors/pdus.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hansa.model.errors import RemoteProtocolError
from hansa_matrix.proto.auth_rules.rules import check_auth_events
from hansa_matrix.proto.canonical_json import dumps_canonical
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.hashing import content_hash, event_id
from hansa_matrix.proto.pdu import (
    MAX_AUTH,
    MAX_PDU,
    MAX_PREV,
    add_signature,
    hash_and_sign,
    parse_pdu,
    pdu_from_raw,
    pdu_from_wire,
)
from hansa_matrix.proto.room_versions import VERSIONS, RoomVersion, version_of
from hypothesis import given
from hypothesis import strategies as st
from matrix.proto.json_values import json_values, objects
from matrix.proto.room_graph import HASHED, V12
from matrix.proto.vectors import each, vectors

V = vectors("pdus.json")
each_version = pytest.mark.parametrize("version", HASHED, ids=lambda v: f"v{v.id}")
SIGN = ("ed25519:1", lambda _: "s" * 86)
DRAFT = {key: value for key, value in V["base"].items() if key not in {"hashes", "signatures"}}


def events(case: dict[str, Any]) -> Iterator[tuple[RoomVersion, dict[str, Any]]]:
    for name in case["versions"]:
        event = {**V["base"], **case["change"]}
        event = {key: value for key, value in event.items() if key not in case["remove"]}
        if "nest" in case:
            deep: Any = 1
            for _ in range(case["nest"]):
                deep = [deep]
            event["content"] = {"deep": deep}
        if "pad" in case:
            size = len(dumps_canonical({key: value for key, value in event.items() if key != "unsigned"}))
            body = event["content"]["body"] + "x" * (case["pad"] - size)
            event["content"] = {**event["content"], "body": body}
        yield VERSIONS[name], event


@each(V["cases"])
def test_check_1(case: dict[str, Any]) -> None:
    for version, event in events(case):
        if not case["ok"]:
            with pytest.raises(RemoteProtocolError) as caught:
                parse_pdu(event, version)
            assert caught.value.code == "M_BAD_JSON"
            if case.get("unbounded"):
                assert parse_pdu(event, version, bounded=False)
            continue
        pdu = parse_pdu(event, version)
        kept = {key: value for key, value in event.items() if key not in {"event_id", "unsigned"}}
        assert pdu.raw == kept
        assert pdu.wire == dumps_canonical(kept)
        assert pdu.event_id == event_id(kept, version)
        rule = check_auth_events(pdu, [], version) if case.get("oversize") else None
        assert (rule is not None and rule.rule == "0.size") is case.get("oversize", False)
        if "pad" in case:
            assert len(pdu.wire) == case["pad"]


@each(V["nothing"])
def test_what_is_no_event(case: Any) -> None:
    for version in HASHED:
        with pytest.raises(RemoteProtocolError):
            parse_pdu(case, version)


def test_the_limits() -> None:
    assert (MAX_PDU, MAX_PREV, MAX_AUTH) == (65_536, 20, 10)


def same(one: Pdu, other: Pdu) -> bool:
    kept = (name for name in Pdu.__slots__ if name != "signable")
    return all(getattr(one, name) == getattr(other, name) for name in kept)


@each_version
def test_what_is_kept_is_what_was_parsed(version: RoomVersion) -> None:
    """C-14: the wire bytes are the truth."""
    raw = {**V["base"], "state_key": "é", "x": {"b": [1, {"c": "\u2028"}], "a": None}, "event_id": "$z"}
    pdu = parse_pdu(raw, version)
    assert (pdu.type, pdu.sender, pdu.room_id, pdu.state_key) == ("m.room.message", "@a:x", "!r:x", "é")
    assert (pdu.depth, pdu.origin_server_ts) == (7, 9)
    assert (pdu.prev_events, pdu.auth_events) == (("$p",), ("$a",))
    assert same(pdu_from_wire(pdu.event_id, pdu.wire, version), pdu)
    assert same(parse_pdu(orjson.loads(pdu.wire), version), pdu)
    assert same(pdu_from_raw(pdu.raw, version), pdu)


def test_the_create_event_makes_the_room_id() -> None:
    """C-11."""
    raw = {**DRAFT, "type": "m.room.create", "state_key": "", "prev_events": [], "auth_events": []}
    del raw["room_id"]
    pdu = hash_and_sign(raw, V12, "x", SIGN)
    assert "room_id" not in pdu.raw
    assert pdu.room_id == "!" + pdu.event_id[1:]
    assert len(pdu.room_id) == 44
    assert same(parse_pdu(pdu.raw, V12), pdu)
    assert same(pdu_from_wire(pdu.event_id, pdu.wire, V12), pdu)


@each_version
def test_an_event_of_ours(version: RoomVersion) -> None:
    pdu = hash_and_sign(DRAFT, version, "x", SIGN)
    assert pdu.raw["hashes"] == {"sha256": content_hash(DRAFT, V12)}
    assert pdu.raw["signatures"] == {"x": {"ed25519:1": "s" * 86}}
    assert same(parse_pdu(pdu.raw, version), pdu)
    both = add_signature(pdu, version, "y", ("ed25519:2", lambda _: "t"))
    assert both.event_id == pdu.event_id
    assert both.raw["signatures"] == {"x": {"ed25519:1": "s" * 86}, "y": {"ed25519:2": "t"}}
    assert both.wire == dumps_canonical(both.raw)
    assert pdu.raw["signatures"] == {"x": {"ed25519:1": "s" * 86}}


@each_version
def test_an_event_of_ours_leaves_room_for_signatures_of_others(version: RoomVersion) -> None:
    size = len(hash_and_sign({**DRAFT, "content": {"body": ""}}, version, "x", SIGN).wire)
    most = MAX_PDU - 1024 - size
    assert (
        len(hash_and_sign({**DRAFT, "content": {"body": "x" * most}}, version, "x", SIGN).wire)
        == MAX_PDU - 1024
    )
    with pytest.raises(RemoteProtocolError) as caught:
        hash_and_sign({**DRAFT, "content": {"body": "x" * (most + 1)}}, version, "x", SIGN)
    assert (caught.value.hint, caught.value.code) == (413, "M_TOO_LARGE")


@given(json_values, st.sampled_from(sorted([*V["base"], "state_key", "x"])), st.sampled_from(HASHED))
def test_any_field_of_any_shape_is_an_event_or_a_peer_s_error(
    value: Any, name: str, version: RoomVersion
) -> None:
    try:
        pdu = parse_pdu({**V["base"], name: value}, version)
    except RemoteProtocolError:
        return
    assert pdu.raw[name] == value
    assert same(pdu_from_wire(pdu.event_id, pdu.wire, version), pdu)


@given(objects, st.sampled_from(HASHED))
def test_foreign_fields_and_content_survive(more: dict[str, Any], version: RoomVersion) -> None:
    """Mistake 1: an event that is written again from a model loses fields that the model does not have."""
    event = {**V["base"], "content": more, **{"x." + key: value for key, value in more.items()}}
    assert orjson.loads(parse_pdu(event, version).wire) == event


@pytest.mark.parametrize("value", [None, 10, True, ["10"], {}, "", "0", "13", "10 "])
def test_room_versions_that_are_none_of_ours(value: Any) -> None:
    assert version_of(value) is None


def test_room_versions_of_ours() -> None:
    assert {str(name): version_of(str(name)) for name in range(1, 13)} == VERSIONS
