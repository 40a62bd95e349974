"""Hashes, ids and signatures: the published vectors, and what no vector can say."""

from __future__ import annotations

from typing import Any

import pytest
from hansa_matrix.crypto import SigningKey, verify_signature
from hansa_matrix.proto.canonical_json import dumps_canonical
from hansa_matrix.proto.hashing import content_hash, event_id, hash_matches, room_id_of_create
from hansa_matrix.proto.pdu import (
    VerifyKey,
    add_signature,
    hash_and_sign,
    required_servers,
    signature_problem,
    signing_key_ids,
)
from hansa_matrix.proto.redact import redact_event
from hansa_matrix.proto.room_versions import VERSIONS, RoomVersion
from hansa_matrix.proto.signing import (
    decode_base64,
    encode_base64,
    event_signable,
    signable_bytes,
    signatures_of,
    with_signature,
)
from hypothesis import given
from hypothesis import strategies as st
from matrix.proto.json_values import json_values, objects
from matrix.proto.room_graph import HASHED, V10
from matrix.proto.vectors import each, vectors

V = vectors("signing.json")
each_version = pytest.mark.parametrize("version", HASHED, ids=lambda v: f"v{v.id}")
KEY = SigningKey.from_line(f"ed25519 1 {V['seed']}")
OTHER = SigningKey.from_seed("ed25519:o", b"\x09" * 32)
MEMBER: dict[str, Any] = {
    "type": "m.room.member",
    "room_id": "!r:x",
    "sender": "@a:x",
    "state_key": "@a:x",
    "content": {"membership": "join"},
    "prev_events": ["$p"],
    "auth_events": ["$a"],
    "depth": 3,
    "origin_server_ts": 1000,
}


def known(**keys: VerifyKey) -> Any:
    return lambda server, key_id: keys.get(server) if key_id.startswith("ed25519:") else None


def key_of(key: SigningKey, until: int = 1000) -> VerifyKey:
    return VerifyKey(public=key.public, valid_until=until)


def test_the_published_key() -> None:
    assert KEY.public == V["public_key"]
    assert KEY.key_id == V["key_id"]


@each(V["json"])
def test_published_json_signatures(case: dict[str, Any]) -> None:
    message = signable_bytes(case["object"])
    assert KEY.sign(message) == case["signature"]
    assert verify_signature(KEY.public, case["signature"], message)


@each(V["events"])
def test_published_event_signatures(case: dict[str, Any]) -> None:
    """The vectors are of room version 1, whose events carry and sign their id and top-level ``origin``."""
    event = case["event"]
    assert content_hash(event, V10) == case["hash"]
    hashed = {**event, "hashes": {"sha256": case["hash"]}}
    assert hash_matches(hashed, V10)
    assert KEY.sign(signable_bytes(redact_event(hashed, V10))) == case["signature"]
    for name, expected in case["event_ids"].items():
        assert event_id(hashed, VERSIONS[name]) == expected
        assert "!" + expected[1:] == room_id_of_create(hashed, VERSIONS[name])
        assert len(expected) == 44  # C-10: URL-safe, unpadded


@each(V["events"])
def test_events_without_an_id_of_their_own(case: dict[str, Any]) -> None:
    """Mistake 3: events of room version 3 and later are signed without ``event_id``."""
    event = {key: value for key, value in case["event"].items() if key != "event_id"}
    assert content_hash(event, V10) == case["without_event_id"]["hash"]
    for name, expected in case["without_event_id"]["signatures"].items():
        version = VERSIONS[name]
        hashed = {**event, "hashes": {"sha256": case["without_event_id"]["hash"]}}
        assert KEY.sign(event_signable(hashed, version)) == expected
        # Whatever id a peer puts in changes neither what is signed nor the id.
        with_id = {**hashed, "event_id": "$other"}
        assert event_signable(with_id, version) == event_signable(hashed, version)
        assert event_id(with_id, version) == event_id(hashed, version)


def test_origin_is_hashed_in_version_10_alone() -> None:
    event = {**MEMBER, "hashes": {}}
    with_origin = {**event, "origin": "x"}
    assert event_id(with_origin, V10) != event_id(event, V10)
    for name in ("11", "12"):
        assert event_id(with_origin, VERSIONS[name]) == event_id(event, VERSIONS[name])


@each(V["base64"], "text")
def test_base64(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["hex"])
    assert decode_base64(case["text"]) == data
    if "also" not in case:
        assert encode_base64(data) == case["text"]


@each(V["no_base64"])
def test_what_is_no_base64(case: str) -> None:
    assert decode_base64(case) is None


def test_base64_is_of_short_texts() -> None:
    assert decode_base64("A" * 4096) == bytes(3072)


@pytest.mark.parametrize("odd", [None, 7, b"Zg", ["Zg"], "A" * 4098])
def test_what_is_no_short_text_is_no_base64(odd: Any) -> None:
    assert decode_base64(odd) is None


@given(st.binary(max_size=100))
def test_base64_there_and_back(data: bytes) -> None:
    text = encode_base64(data)
    assert "=" not in text
    assert decode_base64(text) == data
    assert decode_base64(text.replace("+", "-").replace("/", "_")) == data


@given(st.text(max_size=20))
def test_base64_of_any_text(text: str) -> None:
    decode_base64(text)


@each_version
def test_a_padded_or_url_safe_content_hash_is_the_same_hash(version: RoomVersion) -> None:
    """SPEC: the content hash is decoded, and the two are compared; C-12."""
    for number in range(40):
        raw = {**hash_and_sign(MEMBER | {"depth": number}, version, "x", (KEY.key_id, KEY.sign)).raw}
        digest = raw["hashes"]["sha256"]
        for same in (digest + "=", digest.replace("+", "-").replace("/", "_")):
            assert hash_matches({**raw, "hashes": {"sha256": same}}, V10)
    for odd in (
        "",
        digest[:-2],
        "A" + digest[1:] if digest[0] != "A" else "B" + digest[1:],
        None,
        7,
        [digest],
    ):
        assert not hash_matches({**raw, "hashes": {"sha256": odd}}, V10)
    for odd in (None, [], digest, {"sha1": digest}):
        assert not hash_matches({**raw, "hashes": odd}, V10)


@given(objects, st.sampled_from(["a", "b.example"]), objects)
def test_signed_json_verifies_and_keeps_other_signatures(
    value: dict[str, Any], server: str, unsigned: dict[str, Any]
) -> None:
    """C-4; mistake 1: signatures of others are lost."""
    value.pop("signatures", None)
    first = with_signature(value, "z", OTHER.key_id, OTHER.sign(signable_bytes(value)))
    both = with_signature(first, server, KEY.key_id, KEY.sign(signable_bytes(first)))
    assert signable_bytes(both) == signable_bytes(value) == signable_bytes({**both, "unsigned": unsigned})
    assert verify_signature(KEY.public, signatures_of(both, server)[KEY.key_id], signable_bytes(both))
    assert verify_signature(OTHER.public, signatures_of(both, "z")[OTHER.key_id], signable_bytes(both))
    again = with_signature(both, server, "ed25519:2", "s")
    assert signatures_of(again, server).keys() == {KEY.key_id, "ed25519:2"}
    assert {k: v for k, v in both.items() if k != "signatures"} == value


@given(st.binary(max_size=50), st.data())
def test_any_flipped_bit_fails(message: bytes, data: st.DataObject) -> None:
    signature = decode_base64(KEY.sign(message)) or b""
    assert verify_signature(KEY.public, encode_base64(signature), message)
    at = data.draw(st.integers(0, 511))
    flipped = bytearray(signature)
    flipped[at // 8] ^= 1 << at % 8
    assert not verify_signature(KEY.public, encode_base64(bytes(flipped)), message)
    if message:
        other = bytearray(message)
        at = data.draw(st.integers(0, len(message) * 8 - 1))
        other[at // 8] ^= 1 << at % 8
        assert not verify_signature(KEY.public, encode_base64(signature), bytes(other))
    assert not verify_signature(OTHER.public, encode_base64(signature), message)


@pytest.mark.parametrize("odd", ["", "AA", "é", "A" * 86, "A" * 88])
def test_malformed_signatures_and_keys_do_not_verify(odd: str) -> None:
    assert not verify_signature(KEY.public, odd, b"")
    assert not verify_signature(odd, KEY.sign(b""), b"")


@given(json_values)
def test_signatures_of_any_shape(value: Any) -> None:
    assert signatures_of({"signatures": value}, "x") == {}
    found = signatures_of({"signatures": {"x": value}}, "x")
    assert all(isinstance(one, str) for one in found.values())
    signed = with_signature({"signatures": value}, "x", "ed25519:1", "s")
    assert signatures_of(signed, "x") == {"ed25519:1": "s"} | (
        signatures_of({"signatures": value}, "x") if isinstance(value, dict) else {}
    )


def test_a_server_s_signatures_are_bounded() -> None:
    many = {f"ed25519:{number}": "s" for number in range(51)}
    assert signatures_of({"signatures": {"x": many}}, "x") == {}
    many.popitem()
    assert signatures_of({"signatures": {"x": many}}, "x") == many


# Receipt check 2: whose signatures, by which keys.


@each_version
def test_check_2_the_senders_server_signs(version: RoomVersion) -> None:
    pdu = hash_and_sign(MEMBER, version, "x", (KEY.key_id, KEY.sign))
    assert required_servers(pdu, V10) == {"x"}
    assert signing_key_ids(pdu, {"x", "y"}) == {("x", KEY.key_id)}
    assert signature_problem(pdu, version, known(x=key_of(KEY)), verify_signature) is None
    assert signature_problem(pdu, version, known(x=key_of(OTHER)), verify_signature)
    assert signature_problem(pdu, version, known(), verify_signature)
    assert signature_problem(pdu, version, known(y=key_of(KEY)), verify_signature)


@each_version
def test_k5_a_key_counts_up_to_its_validity(version: RoomVersion) -> None:
    pdu = hash_and_sign(MEMBER, version, "x", (KEY.key_id, KEY.sign))
    assert signature_problem(pdu, version, known(x=key_of(KEY, 1000)), verify_signature) is None
    assert (
        signature_problem(pdu, version, known(x=key_of(KEY, 999)), verify_signature) is None
    ) is not version.key_validity
    # Mistake 9: a key that has expired since is good for what it signed before.
    assert signature_problem(pdu, version, known(x=key_of(KEY, 1001)), verify_signature) is None


@each_version
def test_k6_all_known_signatures_must_verify_and_one_must_be(version: RoomVersion) -> None:
    pdu = hash_and_sign(MEMBER, version, "x", (KEY.key_id, KEY.sign))
    two = add_signature(pdu, version, "x", (OTHER.key_id, lambda _: KEY.sign(b"")))
    keys = {KEY.key_id: key_of(KEY), OTHER.key_id: key_of(OTHER)}
    assert signature_problem(two, version, lambda _, k: keys.get(k), verify_signature)
    good = add_signature(pdu, version, "x", (OTHER.key_id, OTHER.sign))
    assert signature_problem(good, version, lambda _, k: keys.get(k), verify_signature) is None
    # Unknown and expired keys are passed over, a policy server's too.
    assert (
        signature_problem(
            two, version, lambda _, k: keys.get(k) if k == KEY.key_id else None, verify_signature
        )
        is None
    )
    expired = {**keys, OTHER.key_id: key_of(OTHER, 999)}
    assert (
        signature_problem(two, version, lambda _, k: expired.get(k), verify_signature) is None
    ) is version.key_validity
    policy = add_signature(pdu, version, "x", ("ed25519:policy_server", lambda _: "AAAA"))
    assert signature_problem(policy, version, lambda _, k: keys.get(k), verify_signature) is None
    odd = add_signature(pdu, version, "x", ("rsa:1", lambda _: "AAAA"))
    assert signing_key_ids(odd, {"x"}) == {("x", KEY.key_id)}
    assert signature_problem(odd, version, lambda _, k: keys.get(k, key_of(OTHER)), verify_signature) is None


@each_version
def test_a_restricted_join_is_signed_by_both_servers(version: RoomVersion) -> None:
    content = {"membership": "join", "join_authorised_via_users_server": "@r:y"}
    pdu = hash_and_sign({**MEMBER, "content": content}, version, "x", (KEY.key_id, KEY.sign))
    keys = known(x=key_of(KEY), y=key_of(OTHER))
    if not version.restricted:
        assert required_servers(pdu, version) == {"x"}
        return
    assert required_servers(pdu, version) == {"x", "y"}
    assert signature_problem(pdu, version, keys, verify_signature)
    both = add_signature(pdu, version, "y", (OTHER.key_id, OTHER.sign))
    assert both.event_id == pdu.event_id
    assert signature_problem(both, version, keys, verify_signature) is None
    wrong = add_signature(pdu, version, "y", (OTHER.key_id, lambda _: KEY.sign(b"")))
    assert signature_problem(wrong, version, keys, verify_signature)


@each_version
def test_a_third_party_invite_needs_no_signature_of_the_senders_server(version: RoomVersion) -> None:
    content = {"membership": "invite", "third_party_invite": {"signed": {}}}
    invite = hash_and_sign(
        {**MEMBER, "content": content, "state_key": "@b:y"}, version, "z", (KEY.key_id, KEY.sign)
    )
    assert required_servers(invite, V10) == frozenset()
    assert signature_problem(invite, version, known(), verify_signature) is None
    plain = hash_and_sign(
        {**MEMBER, "content": {"membership": "invite"}}, version, "z", (KEY.key_id, KEY.sign)
    )
    assert required_servers(plain, V10) == {"x"}
    message = hash_and_sign(
        {**MEMBER, "type": "m.room.message", "content": content}, version, "z", ("ed25519:1", KEY.sign)
    )
    assert required_servers(message, V10) == {"x"}
    join = hash_and_sign(
        {**MEMBER, "content": {**content, "membership": "join"}}, version, "z", ("ed25519:1", KEY.sign)
    )
    assert required_servers(join, V10) == {"x"}


@each_version
def test_c8_the_signature_survives_redaction_and_covers_what_is_left(version: RoomVersion) -> None:
    pdu = hash_and_sign(
        {**MEMBER, "content": {"membership": "join", "displayname": "n"}},
        version,
        "x",
        ("ed25519:1", KEY.sign),
    )
    keys = known(x=key_of(KEY))
    bare = redact_event(pdu.raw, version)
    assert "displayname" not in bare["content"]
    signature = signatures_of(bare, "x")["ed25519:1"]
    assert verify_signature(KEY.public, signature, event_signable(bare, version))
    assert signature_problem(pdu, version, keys, verify_signature) is None
    for changed in ({"depth": 4}, {"sender": "@b:x"}, {"content": {"membership": "leave"}}, {"hashes": {}}):
        assert not verify_signature(KEY.public, signature, event_signable({**pdu.raw, **changed}, version))
    assert dumps_canonical(pdu.raw) == pdu.wire
