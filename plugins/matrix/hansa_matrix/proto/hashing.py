"""Content hashes, reference hashes, event ids. SPEC: server-server API, "Signing Events"."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from hansa_matrix.proto.canonical_json import encoder_for
from hansa_matrix.proto.redact import redact_event
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.signing import decode_base64

_NOT_HASHED = frozenset({"unsigned", "signatures", "hashes"})


def content_hash(event: Mapping[str, Any], version: RoomVersion) -> str:
    """Unpadded base64 of the SHA-256 over the whole event without hashes, signatures, unsigned."""
    return b64encode(_content_digest(event, version)).decode().rstrip("=")


def hash_matches(event: Mapping[str, Any], version: RoomVersion) -> bool:
    """True if ``hashes.sha256``, decoded, is the event's content hash."""
    hashes = event.get("hashes")
    return isinstance(hashes, dict) and decode_base64(hashes.get("sha256")) == _content_digest(event, version)


def _content_digest(event: Mapping[str, Any], version: RoomVersion) -> bytes:
    hashed = {key: value for key, value in event.items() if key not in _NOT_HASHED}
    return sha256(encoder_for(version)(hashed)).digest()


def _reference_digest(event: Mapping[str, Any], version: RoomVersion) -> bytes:
    bare = redact_event(event, version)
    bare.pop("signatures", None)
    if not version.server_made_event_ids:
        bare.pop("event_id", None)
    return sha256(encoder_for(version)(bare)).digest()


def reference_hash(event: Mapping[str, Any], version: RoomVersion) -> str:
    """Unpadded base64 (URL-safe in version 4+) of the SHA-256 over the redacted event without signatures."""
    return _encode_digest(_reference_digest(event, version), version)


def _encode_digest(digest: bytes, version: RoomVersion) -> str:
    encode = urlsafe_b64encode if version.url_safe_event_ids else b64encode
    return encode(digest).decode().rstrip("=")


def event_id_of(signable: bytes, version: RoomVersion) -> str:
    """The id, where it is a hash (version 3+), of the event whose signatures cover ``signable``: the redacted
    event without signatures.
    """
    return "$" + _encode_digest(sha256(signable).digest(), version)


def event_id(event: Mapping[str, Any], version: RoomVersion) -> str:
    """The id of an event: what it says (versions 1 and 2), or its reference hash."""
    return str(event["event_id"]) if version.server_made_event_ids else "$" + reference_hash(event, version)


def room_id_of_create(event: Mapping[str, Any], version: RoomVersion) -> str:
    """The room id that a version 12 create event makes."""
    return "!" + reference_hash(event, version)
