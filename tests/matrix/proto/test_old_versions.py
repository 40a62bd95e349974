"""The differences of room versions 1 to 9: names for events, lax JSON, levels in strings, keys of any age."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hansa.model.errors import RemoteProtocolError
from hansa_matrix.crypto import SigningKey, verify_signature
from hansa_matrix.proto.auth_rules.levels import level_of
from hansa_matrix.proto.auth_rules.rules import check_event_auth
from hansa_matrix.proto.hashing import content_hash, event_id, hash_matches, reference_hash
from hansa_matrix.proto.pdu import (
    VerifyKey,
    add_signature,
    check_content_hash,
    hash_and_sign,
    key_valid_at,
    parse_pdu,
    pdu_from_wire,
    reference_to,
    required_servers,
    signature_problem,
)
from hansa_matrix.proto.room_versions import VERSIONS, RoomVersion
from hansa_matrix.proto.signing import decode_base64, event_signable
from hypothesis import given
from hypothesis import strategies as st
from matrix.proto.json_values import json_values
from matrix.proto.room_graph import ALL_VERSIONS, create_event, load_vectors, make, state_of

V1, V2, V3, V5, V6, V9 = (VERSIONS[name] for name in ("1", "2", "3", "5", "6", "9"))
KEY = SigningKey.from_seed("ed25519:1", b"\x07" * 32)
OTHER = SigningKey.from_seed("ed25519:1", b"\x08" * 32)

named = pytest.mark.parametrize("version", [V1, V2], ids=lambda v: f"v{v.id}")


def draft(version: RoomVersion, **more: Any) -> dict[str, Any]:
    event: dict[str, Any] = {
        "type": "m.room.message",
        "room_id": "!r:x",
        "sender": "@a:x",
        "content": {"body": "x"},
        "prev_events": [["$p:y", {"sha256": "h"}]] if version.server_made_event_ids else ["$p"],
        "auth_events": [],
        "depth": 3,
        "origin_server_ts": 1000,
    }
    if version.server_made_event_ids:
        event["event_id"] = "$e:x"
    return {**event, **more}


def signed(version: RoomVersion, **more: Any) -> Any:
    return hash_and_sign(draft(version, **more), version, "x", (KEY.key_id, KEY.sign))


def known(**keys: SigningKey) -> Any:
    found = {s: VerifyKey(public=k.public, valid_until=500) for s, k in keys.items()}
    return lambda server, _: found.get(server)


@named
def test_c10_an_event_names_itself_and_the_name_is_hashed_and_signed(version: RoomVersion) -> None:
    pdu = signed(version)
    assert (pdu.event_id, pdu.prev_events, pdu.raw["event_id"]) == ("$e:x", ("$p:y",), "$e:x")
    again = parse_pdu(orjson.loads(pdu.wire), version)
    assert (again.event_id, again.wire) == ("$e:x", pdu.wire)
    assert pdu_from_wire("$e:x", pdu.wire, version).prev_events == ("$p:y",)
    assert signature_problem(again, version, known(x=KEY), verify_signature) is None
    other = parse_pdu({**orjson.loads(pdu.wire), "event_id": "$f:x"}, version)
    assert signature_problem(other, version, known(x=KEY), verify_signature)
    assert not hash_matches(other.raw, version)
    assert check_content_hash(other, version).event_id == "$f:x"


@named
@pytest.mark.parametrize(
    "name", [None, 7, "", "$", "e:x", "$e", "$e:", "$e:not a name", "$" + "e" * 255 + ":x"]
)
def test_an_event_that_does_not_name_itself_is_none(version: RoomVersion, name: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_pdu({**signed(version).raw, "event_id": name}, version)


@named
@pytest.mark.parametrize(
    "references", [None, {}, ["$p:y"], [[]], [[7, {}]], [["p:y", {}]], [{"$p:y": {}}], [["$p:y", {}]] * 21]
)
def test_references_that_are_no_pairs(version: RoomVersion, references: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_pdu({**signed(version).raw, "prev_events": references}, version)


@named
def test_the_server_that_made_the_name_signs_too(version: RoomVersion) -> None:
    pdu = signed(version, event_id="$e:y")
    assert required_servers(pdu, version) == {"x", "y"}
    assert signature_problem(pdu, version, known(x=KEY, y=OTHER), verify_signature)
    both = add_signature(pdu, version, "y", (OTHER.key_id, OTHER.sign))
    assert signature_problem(both, version, known(x=KEY, y=OTHER), verify_signature) is None
    assert required_servers(signed(V3), V3) == {"x"}


@named
def test_an_event_is_cited_with_its_reference_hash(version: RoomVersion) -> None:
    pdu = signed(version)
    assert reference_to(pdu, version) == ["$e:x", {"sha256": reference_hash(pdu.raw, version)}]
    assert signed(version, prev_events=[reference_to(pdu, version)]).prev_events == ("$e:x",)


def test_c10_the_alphabet_of_ids() -> None:
    """The ids of versions 3 and 4 differ by nothing else."""
    seen = set()
    for case in load_vectors("signing.json")["events"]:
        hashed = {**case["event"], "hashes": {"sha256": case["hash"]}}
        for version in ALL_VERSIONS[3:10]:
            assert event_id(hashed, version) == case["event_ids"]["10"]
        for depth in range(20):
            three, four = (event_id({**hashed, "depth": depth}, v) for v in (V3, VERSIONS["4"]))
            assert three.translate(str.maketrans("+/", "-_")) == four
            seen |= set(three)
    assert seen & {"+", "/"}


def test_c8_what_the_published_signatures_of_events_cover() -> None:
    """They are of version 1, where the signature covers the id."""
    vectors = load_vectors("signing.json")
    key = SigningKey.from_seed(vectors["key_id"], decode_base64(vectors["seed"]) or b"")
    for case in vectors["events"]:
        hashed = {**case["event"], "hashes": {"sha256": case["hash"]}}
        for version in (V1, V2):
            assert content_hash(case["event"], version) == case["hash"]
            assert key.sign(event_signable(hashed, version)) == case["signature"]


def test_c3_numbers_that_have_no_canonical_form_are_events_up_to_version_5() -> None:
    content = {"float": 1.5, "large": 2**60, "huge": 1e30}
    for version in ALL_VERSIONS:
        if version.strict_json:
            raw = signed(version).raw
            with pytest.raises(RemoteProtocolError):
                parse_pdu({**raw, "content": content}, version)
            continue
        pdu = signed(version, content=content)
        again = parse_pdu(orjson.loads(pdu.wire), version)
        assert again.wire == pdu.wire
        assert b'"float":1.5,"huge":1e+30,"large":1152921504606846976' in pdu.wire
        assert check_content_hash(again, version) is again
        assert (
            signature_problem(again, version, known(x=KEY), verify_signature) is None or version.key_validity
        )


@given(
    json_values,
    st.sampled_from([V1, V2, V3, V5]),
    st.sampled_from(sorted([*draft(V1), "hashes", "signatures"])),
)
def test_no_value_makes_the_parser_raise_anything_else(value: Any, version: RoomVersion, name: str) -> None:
    raw = {**draft(version), "hashes": {}, "signatures": {}, name: value}
    try:
        parse_pdu(raw, version)
    except RemoteProtocolError:
        return


def test_k5_a_key_of_any_age_will_do_up_to_version_4() -> None:
    for version in ALL_VERSIONS[:6]:
        pdu = signed(version)
        assert (signature_problem(pdu, version, known(x=KEY), verify_signature) is None) is (
            int(version.id) <= 4
        )
        assert key_valid_at(pdu, version) == (0 if int(version.id) <= 4 else 1000)


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("50", 50), (" -7\n", -7), ("+3", 3), ("007", 7), ("1_0", None), ("١", None), ("", None), ("5.0", None),
        ("9" * 41, None), (2.9, 2), (-2.9, -2), (float("inf"), None), (float("nan"), None), (True, None),
        (None, None), ([], None), (7, 7),
    ],
)  # fmt: skip
def test_levels_as_earlier_versions_write_them(value: Any, level: int | None) -> None:
    assert level_of(value, V9) == level
    assert level_of(value, VERSIONS["10"]) == (value if type(value) is int else None)


def redacts(version: RoomVersion, sender: str, target: str, *, level: int = 50) -> bool:
    joined = {"membership": "join"}
    state = [create_event(version)]
    state += [make(version, f"$M{u}", "m.room.member", u, joined, state_key=u) for u in ("@b:y", "@c:z")]
    levels = {"users": {"@a:x": 100, "@b:y": level}, "redact": 50}
    state.append(make(version, "$PL", "m.room.power_levels", "@a:x", levels))
    event = make(version, "$R:z", "m.room.redaction", sender, {}, state_key=None, redacts=target)
    return check_event_auth(event, state_of(state), version) is None


def test_rule_11_redactions_up_to_version_2() -> None:
    for version in (V1, V2):
        assert redacts(version, "@b:y", "$any:x")
        assert not redacts(version, "@b:y", "$any:x", level=49)
        assert redacts(version, "@c:z", "$own:z")
        assert not redacts(version, "@c:z", "$own:y")
        assert not redacts(version, "@c:z", "none")
    assert redacts(V3, "@c:z", "$any:x")
