"""Published keys, by the documents of tests/vectors/key_documents.json."""

from __future__ import annotations

from typing import Any

import pytest
from hansa.model.errors import RemoteProtocolError
from hansa_matrix.crypto import SigningKey, verify_signature
from hansa_matrix.proto.servers.key_document import DAY, check_key_document, key_document
from hansa_matrix.proto.signing import signable_bytes, with_signature
from hypothesis import given
from matrix.proto.json_values import json_values
from matrix.proto.vectors import each, vectors

V = vectors("key_documents.json")
SERVER, NOW = V["server"], V["now"]


@each(V["cases"])
def test_documents(case: dict[str, Any]) -> None:
    found = check_key_document(case["document"], SERVER, verify_signature, NOW)
    assert {k: [key.public, key.valid_until] for k, key in found.items()} == case["keys"]


@each(V["refused"])
def test_documents_that_do_not_do(case: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        check_key_document(case["document"], SERVER, verify_signature, NOW)


def test_our_own_document_does() -> None:
    key = SigningKey.from_seed("ed25519:1", b"\x07" * 32)
    doc = key_document(SERVER, {key.key_id: key.public}, NOW + DAY)
    signed = with_signature(doc, SERVER, key.key_id, key.sign(signable_bytes(doc)))
    found = check_key_document(signed, SERVER, verify_signature, NOW)
    assert found[key.key_id].public == key.public
    assert found[key.key_id].valid_until == NOW + DAY


@given(json_values)
def test_any_document_is_judged(value: Any) -> None:
    for doc in (value, {"server_name": SERVER, "valid_until_ts": 1, "verify_keys": value}):
        with pytest.raises(RemoteProtocolError):
            check_key_document(doc, SERVER, verify_signature, NOW)


@given(json_values)
def test_any_old_keys_are_judged(value: Any) -> None:
    key = SigningKey.from_seed("ed25519:1", b"\x07" * 32)
    doc = {**key_document(SERVER, {key.key_id: key.public}, NOW), "old_verify_keys": value}
    signed = with_signature(doc, SERVER, key.key_id, key.sign(signable_bytes(doc)))
    assert key.key_id in check_key_document(signed, SERVER, verify_signature, NOW)
