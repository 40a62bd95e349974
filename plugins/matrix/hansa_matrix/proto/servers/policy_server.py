"""Rooms whose events a policy server has to sign.

SPEC: server-server API, "Policy Servers" (v1.18); P-1 to P-6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hansa_matrix.proto import ids
from hansa_matrix.proto.canonical_json import copy_compact, encoder_for
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.pdu import replace_signatures
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.signing import decode_base64, event_signable, signatures_of, with_signature

POLICY_KEY: Final[StateKey] = ("m.room.policy", "")
#: Always the same, and never a key that the server publishes (K-6).
KEY_ID: Final = "ed25519:policy_server"
_KEY_BYTES = 32

#: ``verify(public key, signature, message)``, both in base64.
Verifier = Callable[[str, str, bytes], bool]


@dataclass(frozen=True, slots=True)
class PolicyServer:
    """A room's policy server by its name, with the public key (base64) that the room's state gives."""

    via: str
    key: str


def policy_server(content: Mapping[str, Any]) -> PolicyServer | None:
    """Reads the policy server from ``m.room.policy``; None if the content is not valid (P-1)."""
    via, keys = content.get("via"), content.get("public_keys")
    key = keys.get("ed25519") if isinstance(keys, dict) else None
    if not isinstance(key, str) or not ids.is_valid_server_name(via):
        return None
    return PolicyServer(str(via), key)


def is_exempt(type_: str, state_key: str | None) -> bool:
    """True if the policy server is not asked about such an event: the one that names it."""
    return (type_, state_key) == POLICY_KEY


def is_signed(pdu: Pdu, version: RoomVersion, server: PolicyServer, verify: Verifier) -> bool:
    """True if an event bears the policy server's signature, by the key of the room's state (P-3)."""
    signature = signatures_of(pdu.raw, server.via).get(KEY_ID)
    key = decode_base64(server.key)
    if signature is None or key is None or len(key) != _KEY_BYTES:
        return False
    return verify(server.key, signature, pdu.signable or event_signable(pdu.raw, version))


def add_policy_signature(pdu: Pdu, version: RoomVersion, server: PolicyServer, answer: object) -> Pdu | None:
    """The event with the signature that the policy server answered, and all that it had (P-2); None if the
    answer has none.
    """
    signature = signatures_of({"signatures": answer}, server.via).get(KEY_ID)
    if signature is None:
        return None
    raw = with_signature(pdu.raw, server.via, KEY_ID, signature)
    return replace_signatures(pdu, raw, copy_compact(encoder_for(version)(raw)))
