"""The signed part of a JSON object and the place of its signatures. SPEC: appendices, "Signing JSON". No
cryptography here.
"""

from __future__ import annotations

import binascii
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from hansa_matrix.proto.canonical_json import dumps_canonical, encoder_for
from hansa_matrix.proto.redact import redact_event
from hansa_matrix.proto.room_versions import RoomVersion

_MAX_SIGNATURES = 50
_PADDING = ("", "===", "==", "=")


def encode_base64(data: bytes) -> str:
    """Unpadded standard base64."""
    return b64encode(data).decode().rstrip("=")


def decode_base64(text: object) -> bytes | None:
    """Standard or URL-safe base64, padded or not; None if it is neither or not short text."""
    if not isinstance(text, str) or len(text) > 4096:
        return None
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return binascii.a2b_base64(plain + _PADDING[len(plain) % 4], strict_mode=True)
    except ValueError:
        return None


def signable_bytes(value: Mapping[str, Any]) -> bytes:
    """The bytes that a JSON signature covers."""
    return dumps_canonical({key: one for key, one in value.items() if key not in {"signatures", "unsigned"}})


def event_signable(event: Mapping[str, Any], version: RoomVersion) -> bytes:
    """The bytes that an event's signature covers: its redacted form."""
    bare = redact_event(event, version)
    if not version.server_made_event_ids:
        bare.pop("event_id", None)
    return encoder_for(version)({key: one for key, one in bare.items() if key != "signatures"})


def signatures_of(value: Mapping[str, Any], server: str) -> dict[str, str]:
    """Key id -> signature of one server; whatever is not of that shape is not there."""
    signatures = value.get("signatures")
    mine = signatures.get(server) if isinstance(signatures, dict) else None
    if not isinstance(mine, dict) or len(mine) > _MAX_SIGNATURES:
        return {}
    return {key: sig for key, sig in mine.items() if isinstance(sig, str)}


def with_signature(value: Mapping[str, Any], server: str, key_id: str, signature: str) -> dict[str, Any]:
    """A copy with one signature more; the others stay."""
    signatures = value.get("signatures")
    kept = dict(signatures) if isinstance(signatures, dict) else {}
    kept[server] = {**signatures_of(value, server), key_id: signature}
    return {**value, "signatures": kept}
