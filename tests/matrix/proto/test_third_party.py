"""The check of a third-party invite's signature. Signatures are strings here: the key that made them."""

from __future__ import annotations

from typing import Any

import pytest
from hansa_matrix.proto.auth_rules.third_party import third_party_verifier
from hansa_matrix.proto.signing import signable_bytes

BODY = {"mxid": "@d:w", "token": "tok"}


def verify(public: str, signature: str, message: bytes) -> bool:
    return public == signature and message == signable_bytes(BODY)


def ok(signatures: Any, *keys: str) -> bool:
    return third_party_verifier(verify)({**BODY, "signatures": signatures}, keys)


def test_any_signature_by_any_key() -> None:
    assert ok({"id": {"ed25519:0": "k1"}}, "k1")
    assert ok({"id": {"ed25519:0": "k2"}}, "k1", "k2")
    assert ok({"id": {"ed25519:0": "no", "ed25519:1": "k1"}, "other": {}}, "k1")
    assert ok({"other": {"ed25519:0": "no"}, "id": {"ed25519:1": "k1"}}, "k1")
    assert not ok({"id": {"ed25519:0": "k1"}}, "k2")
    assert not ok({"id": {"ed25519:0": "k1"}})
    assert not ok({}, "k1")


def test_only_ed25519_counts() -> None:
    assert not ok({"id": {"rsa:0": "k1"}}, "k1")


@pytest.mark.parametrize(
    "odd", [None, 7, "x", [], [1], {"id": None}, {"id": ["k1"]}, {"id": {"ed25519:0": ["k1"]}}]
)
def test_malformed_signatures_are_none(odd: object) -> None:
    assert not ok(odd, "k1")


def test_what_is_signed_is_everything_else() -> None:
    signed = {**BODY, "more": 1, "signatures": {"id": {"ed25519:0": "k1"}}}
    assert not third_party_verifier(verify)(signed, ["k1"])


def test_the_tries_are_bounded() -> None:
    tries = []

    def counting(public: str, signature: str, message: bytes) -> bool:
        tries.append(public)
        return False

    many = {"id": {f"ed25519:{number}": "s" for number in range(1000)}}
    assert not third_party_verifier(counting)({**BODY, "signatures": many}, [f"k{n}" for n in range(1000)])
    assert len(tries) == 100
