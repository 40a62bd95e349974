"""Published keys. SPEC: server-server API, "Retrieving server keys"."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hansa.model.errors import RemoteProtocolError

from hansa_matrix.proto import ids
from hansa_matrix.proto.pdu import Verifier, VerifyKey
from hansa_matrix.proto.signing import decode_base64, signable_bytes, signatures_of

DAY = 86_400_000
MAX_KEYS = 50


def key_document(
    server: str,
    keys: Mapping[str, str],
    valid_until: int,
    old: Mapping[str, tuple[str, int]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Returns the unsigned answer of ``/_matrix/key/v2/server``. ``keys`` maps key id to public key, ``old``
    key id to public key and the time when it expired (ms).
    """
    return {
        "server_name": server,
        "verify_keys": {key_id: {"key": public} for key_id, public in keys.items()},
        "old_verify_keys": {k: {"key": public, "expired_ts": ts} for k, (public, ts) in old.items()},
        "valid_until_ts": valid_until,
    }


def check_key_document(doc: object, server: str, verify: Verifier, now: int) -> dict[str, VerifyKey]:
    """The keys of a document by their ids: current ones until ``valid_until_ts`` (at most 7 days ahead),
    old ones until they expired (at the latest now). Raises RemoteProtocolError unless a current key signed
    it.
    """
    if not isinstance(doc, dict) or doc.get("server_name") != server:
        raise RemoteProtocolError(f"the key document is not that of {server}")
    until = doc.get("valid_until_ts")
    current = _parse_verify_keys(doc.get("verify_keys"))
    if type(until) is not int or not current:
        raise RemoteProtocolError(f"the key document of {server} has no valid_until_ts or no keys")
    message, signatures = signable_bytes(doc), signatures_of(doc, server)
    for key_id, public in current.items():
        if key_id in signatures and not verify(public, signatures[key_id], message):
            raise RemoteProtocolError(f"the key document of {server} has a bad signature by {key_id}")
    if not any(key_id in signatures for key_id in current):
        raise RemoteProtocolError(f"the key document of {server} is not signed by its keys")
    found = {k: VerifyKey(public=p, valid_until=min(until, now + 7 * DAY)) for k, p in current.items()}
    old = doc.get("old_verify_keys")
    for key_id, public in _parse_verify_keys(old).items():
        expired = old[key_id].get("expired_ts") if isinstance(old, dict) else None
        if type(expired) is int and key_id not in found:
            found[key_id] = VerifyKey(public=public, valid_until=min(expired, now))
    return found


def key_ids_of(doc: Mapping[str, Any]) -> frozenset[str]:
    """The ids of the keys that a checked document has, those too that are not used any more. SPEC:
    server-server API, "Publishing Keys".
    """
    return frozenset(
        {**_parse_verify_keys(doc.get("verify_keys")), **_parse_verify_keys(doc.get("old_verify_keys"))}
    )


def notary_signatures(doc: Mapping[str, Any], notary: str) -> dict[str, str]:
    """Key id -> signature of a notary on a document that it passed on; empty if there is none."""
    return {k: sig for k, sig in signatures_of(doc, notary).items() if ids.is_valid_key_id(k)}


def _parse_verify_keys(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MAX_KEYS:
        return {}
    found = {}
    for key_id, entry in value.items():
        public = entry.get("key") if isinstance(entry, dict) else None
        raw = decode_base64(public)
        if ids.is_valid_key_id(key_id) and raw is not None and len(raw) == 32:
            found[key_id] = str(public)
    return found
