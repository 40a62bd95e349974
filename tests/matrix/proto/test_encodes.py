"""The canonical encodes of a received event: itself, its signed form, its hashed form, each once."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hansa_matrix.crypto import SigningKey, verify_signature
from hansa_matrix.proto import canonical_json
from hansa_matrix.proto.pdu import VerifyKey, check_content_hash, hash_and_sign, parse_pdu, signature_problem
from hansa_matrix.proto.room_versions import VERSIONS, RoomVersion
from hansa_matrix.proto.signing import event_signable

KEY = SigningKey.from_seed("ed25519:1", b"e" * 32)
DRAFT: dict[str, Any] = {
    "type": "m.room.message",
    "room_id": "!r:x",
    "sender": "@a:x",
    "content": {"msgtype": "m.text", "body": "b"},
    "prev_events": ["$p"],
    "auth_events": ["$a"],
    "depth": 7,
    "origin_server_ts": 9,
}
HASHED = [version for version in VERSIONS.values() if not version.server_made_event_ids]


class Counting:
    """orjson, counting what is encoded."""

    def __init__(self) -> None:
        self.encodes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(orjson, name)

    def dumps(self, value: Any, option: int = 0) -> bytes:
        self.encodes += 1
        return orjson.dumps(value, option=option)


def key_of(server: str, key_id: str) -> VerifyKey | None:
    return VerifyKey(public=KEY.public, valid_until=2**53) if (server, key_id) == ("x", KEY.key_id) else None


@pytest.mark.parametrize("version", [v for v in HASHED if v.strict_json], ids=lambda v: f"v{v.id}")
def test_an_arriving_event_is_encoded_three_times(
    version: RoomVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = hash_and_sign(DRAFT, version, "x", (KEY.key_id, KEY.sign)).raw
    counting = Counting()
    monkeypatch.setattr(canonical_json, "orjson", counting)
    pdu = parse_pdu(dict(raw), version)
    assert signature_problem(pdu, version, key_of, verify_signature) is None
    assert check_content_hash(pdu, version) is pdu
    assert counting.encodes == 3


@pytest.mark.parametrize("version", HASHED, ids=lambda v: f"v{v.id}")
def test_what_parsing_keeps_for_the_signatures_is_what_they_cover(version: RoomVersion) -> None:
    made = hash_and_sign(DRAFT, version, "x", (KEY.key_id, KEY.sign))
    pdu = parse_pdu({**made.raw, "unsigned": {"age": 1}, "event_id": "$z", "extra": 1}, version)
    assert pdu.signable == event_signable(pdu.raw, version)
    assert pdu.event_id == parse_pdu(dict(made.raw), version).event_id
