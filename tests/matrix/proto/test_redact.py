"""Redaction, by the tables of tests/vectors/redaction.json."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hansa_matrix.proto.canonical_json import dumps_canonical
from hansa_matrix.proto.hashing import event_id, hash_matches
from hansa_matrix.proto.pdu import check_content_hash, hash_and_sign, pdu_from_raw
from hansa_matrix.proto.redact import redact_event
from hansa_matrix.proto.room_versions import VERSIONS, RoomVersion
from hansa_matrix.proto.signing import event_signable
from hypothesis import given
from hypothesis import strategies as st
from matrix.proto.json_values import json_values, objects
from matrix.proto.room_graph import HASHED
from matrix.proto.vectors import each, vectors

V = vectors("redaction.json")
TYPES = sorted({case["event"]["type"] for case in V["cases"]})
KEYS = sorted({key for case in V["cases"] for key in case["event"]["content"]})
versions = st.sampled_from(HASHED)
contents = objects | st.dictionaries(st.sampled_from(KEYS), json_values, max_size=6)
top = st.dictionaries(
    st.sampled_from(["origin", "membership", "prev_state", "redacts", "state_key", "x"]), json_values
)


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    return {
        **draw(top),
        "type": draw(st.sampled_from(TYPES)),
        "room_id": "!r:x",
        "sender": "@a:x",
        "content": draw(contents),
        "prev_events": [],
        "auth_events": [],
        "depth": 1,
        "origin_server_ts": 1,
    }


@each(V["cases"])
def test_tables(case: dict[str, Any]) -> None:
    before = copy.deepcopy(case["event"])
    for name in case["versions"]:
        assert redact_event(case["event"], VERSIONS[name]) == case["redacted"]
    assert case["event"] == before


def test_every_version_has_vectors() -> None:
    assert {name for case in V["cases"] for name in case["versions"]} == set(VERSIONS)


@pytest.mark.parametrize("content", [None, 7, "x", ["membership"], True])
def test_content_of_another_type_is_none(content: Any) -> None:
    for version in HASHED:
        assert redact_event({"type": "m.room.member", "content": content}, version)["content"] == {}
        assert (
            redact_event({"type": ["m.room.member"], "content": {"membership": "join"}}, version)["content"]
            == {}
        )


@given(events(), versions)
def test_redaction_is_idempotent_and_keeps_the_id(event: dict[str, Any], version: RoomVersion) -> None:
    pdu = hash_and_sign(event, version, "x", ("ed25519:1", lambda _: "sig"))
    bare = redact_event(pdu.raw, version)
    assert redact_event(bare, version) == bare
    assert event_id(bare, version) == pdu.event_id
    assert event_signable(bare, version) == event_signable(pdu.raw, version)
    assert "unsigned" not in bare
    assert set(bare) <= set(pdu.raw)
    assert bare["content"].keys() <= pdu.content.keys()


@given(events(), versions, st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_check_3_the_content_hash_covers_everything(
    event: dict[str, Any], version: RoomVersion, name: str
) -> None:
    """C-13: a wrong content hash leaves the redacted copy, under the same id."""
    pdu = hash_and_sign(event, version, "x", ("ed25519:1", lambda _: "sig"))
    assert hash_matches(pdu.raw, version)
    assert check_content_hash(pdu, version) is pdu
    for changed in (
        {**pdu.raw, "content": {**pdu.content, "é" + name: 1}},
        {**pdu.raw, "origin_server_ts": 2},
        {**pdu.raw, "x." + name: None},
    ):
        assert not hash_matches(changed, version)
        again = pdu_from_raw(changed, version)
        kept = check_content_hash(again, version)
        assert kept.raw == redact_event(changed, version)
        assert kept.wire == dumps_canonical(kept.raw)
        assert kept.event_id == again.event_id
    for same in ({**pdu.raw, "unsigned": {"age": 1}}, {**pdu.raw, "signatures": {}}):
        assert hash_matches(same, version)


def test_redacted_events_are_dearer_by_version_than_by_chance() -> None:
    """Mistake 2: the tables differ, so the ids do."""
    content = {"invite": 50, "creator": "@a:x", "room_version": "11", "redacts": "$x"}
    for kind in ("m.room.power_levels", "m.room.create", "m.room.redaction"):
        event = {"type": kind, "content": content}
        assert redact_event(event, VERSIONS["10"]) != redact_event(event, VERSIONS["11"])
        assert redact_event(event, VERSIONS["11"]) == redact_event(event, VERSIONS["12"])
