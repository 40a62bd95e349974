"""From a peer's JSON to a ``Pdu`` (receipt check 1), its signatures (check 2), and our own events.

SPEC: server-server API, "PDUs" and "Checks performed on receipt of a PDU"; client-server API, size limits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from sys import intern
from typing import Any, NamedTuple

import orjson
from hansa.model.errors import RemoteProtocolError

from hansa_matrix.proto import ids
from hansa_matrix.proto.canonical_json import check_lax_values, check_values, copy_compact, encoder_for
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.hashing import content_hash, event_id, event_id_of, hash_matches, reference_hash
from hansa_matrix.proto.redact import redact_event
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.signing import event_signable, signatures_of, with_signature
from hansa_matrix.proto.state_content import authorising_user

MAX_PDU = 65_536
MAX_PREV = 20
MAX_AUTH = 10
_MAX_INT = 2**53 - 1
#: The fields of a peer's event that are not stored; ``event_id`` only where it is a hash.
STRIPPED_ON_RECEIPT = frozenset({"event_id", "unsigned"})


def _malformed_error(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(reason, code="M_BAD_JSON")


def _require_text(raw: Mapping[str, Any], name: str, version: RoomVersion) -> str:
    value = raw.get(name)
    if not isinstance(value, str):
        raise _malformed_error(f"{name} is not a string")
    size = len(value.encode(errors="surrogatepass")) if version.strict_byte_limits else len(value)
    if size > ids.MAX_BYTES:
        raise _malformed_error(f"{name} is longer than {ids.MAX_BYTES}")
    return value


def _check_references(raw: Mapping[str, Any], name: str, most: int | None, version: RoomVersion) -> None:
    value = raw.get(name)
    if not isinstance(value, list) or not is_reference_list(value, version):
        raise _malformed_error(f"{name} is not a list of event ids")
    if most is not None and len(value) > most:
        raise _malformed_error(f"event has {len(value)} {name}, at most {most}")


def is_reference_list(references: Sequence[object], version: RoomVersion) -> bool:
    """True if all are references to events as that version writes them."""
    return all(ids.is_valid_event_id(_reference_id(one, version)) for one in references)


def _reference_id(one: object, version: RoomVersion) -> object:
    """The event id of one reference: itself, or the first of a pair with hashes (versions 1 and 2)."""
    if not version.server_made_event_ids:
        return one
    return one[0] if isinstance(one, list) and one else None


def reference_to(pdu: Pdu, version: RoomVersion) -> Any:
    """How an event of that version cites ``pdu``."""
    if not version.server_made_event_ids:
        return pdu.event_id
    return [pdu.event_id, {"sha256": reference_hash(pdu.raw, version)}]


def _given_event_id(value: object) -> str:
    """An event id that an event gives itself. Raises RemoteProtocolError."""
    if not ids.is_valid_event_id(value) or not ids.is_valid_server_name(ids.domain_of(str(value))):
        raise _malformed_error("event_id is not an event id with a domain")
    return str(value)


def _require_integer(raw: Mapping[str, Any], name: str, least: int) -> int:
    value = raw.get(name)
    if type(value) is not int or not least <= value <= _MAX_INT:
        raise _malformed_error(f"{name} is not an integer in range")
    return value


def parse_pdu(obj: object, version: RoomVersion, *, bounded: bool = True) -> Pdu:
    """Receipt check 1 on one object out of a peer's answer or transaction. Raises RemoteProtocolError.

    ``unsigned`` of the peer is not kept, nor is ``event_id`` where it is a hash. ``bounded`` False lifts the
    limit on ``prev_events`` and ``auth_events``, as history that is paged back may exceed it.
    """
    if not isinstance(obj, dict):
        raise _malformed_error("an event is not an object")
    raw = {key: value for key, value in obj.items() if key not in STRIPPED_ON_RECEIPT}
    (check_values if version.strict_json else check_lax_values)(raw)
    if version.server_made_event_ids:
        raw["event_id"] = _given_event_id(obj.get("event_id"))
    type_ = _require_text(raw, "type", version)
    sender = _require_text(raw, "sender", version)
    if not ids.is_user_id_any_length(sender):
        raise _malformed_error("sender is not a user id")
    state_key = _require_text(raw, "state_key", version) if "state_key" in raw else None
    create = type_ == "m.room.create" and state_key == ""
    if not isinstance(raw.get("content"), dict):
        raise _malformed_error("content is not an object")
    if not isinstance(raw.get("hashes"), dict) or not isinstance(raw.get("signatures"), dict):
        raise _malformed_error("hashes or signatures are not objects")
    if version.room_id_is_create_hash and create:
        if "room_id" in raw:
            raise _malformed_error("a create event of this room version has no room_id")
    elif not ids.is_valid_room_id(_require_text(raw, "room_id", version)):
        raise _malformed_error("room_id is not a room id")
    _check_references(raw, "prev_events", MAX_PREV if bounded else None, version)
    _check_references(raw, "auth_events", MAX_AUTH if bounded else None, version)
    _require_integer(raw, "depth", 0)
    _require_integer(raw, "origin_server_ts", -_MAX_INT)
    wire = copy_compact(encoder_for(version)(raw))
    if len(wire) > MAX_PDU:
        raise _malformed_error(f"event has {len(wire)} bytes, at most {MAX_PDU}")
    if version.server_made_event_ids:
        return _make_pdu(event_id(raw, version), raw, wire, version)
    # The id is a hash of what the signatures cover: encoded once for both.
    signable = copy_compact(event_signable(raw, version))
    return _make_pdu(event_id_of(signable, version), raw, wire, version, signable)


def is_oversized(obj: object, version: RoomVersion) -> bool:
    """True if an object is too large for an event, and would be one otherwise."""
    if not isinstance(obj, dict):
        return False
    try:
        return (
            len(encoder_for(version)({k: v for k, v in obj.items() if k not in STRIPPED_ON_RECEIPT}))
            > MAX_PDU
        )
    except (RemoteProtocolError, TypeError, ValueError):
        return False


def pdu_from_wire(known_id: str, wire: bytes, version: RoomVersion) -> Pdu:
    """A ``Pdu`` out of our own store, where it went checked."""
    return _make_pdu(known_id, orjson.loads(wire), wire, version)


def pdu_from_raw(raw: Mapping[str, Any], version: RoomVersion) -> Pdu:
    """A ``Pdu`` of an event that we built ourselves."""
    return _make_pdu(event_id(raw, version), raw, copy_compact(encoder_for(version)(raw)), version)


def replace_signatures(pdu: Pdu, raw: Mapping[str, Any], wire: bytes) -> Pdu:
    """The same event with other signatures, which is what ``raw`` and ``wire`` may differ in."""
    return replace(pdu, raw=raw, wire=wire)


def _make_pdu(
    known_id: str, raw: Mapping[str, Any], wire: bytes, version: RoomVersion, signable: bytes = b""
) -> Pdu:
    room_id = raw.get("room_id")
    if room_id is None and version.room_id_is_create_hash:
        room_id = "!" + known_id[1:]
    return Pdu(
        event_id=known_id,
        room_id=room_id or "",
        type=intern(raw["type"]),  # of 100,000 members in memory it is one string
        sender=raw["sender"],
        state_key=raw.get("state_key"),
        content=raw["content"],
        prev_events=_referenced_ids(raw["prev_events"], version),
        auth_events=_referenced_ids(raw["auth_events"], version),
        depth=raw["depth"],
        origin_server_ts=raw["origin_server_ts"],
        raw=raw,
        wire=wire,
        signable=signable,
    )


def _referenced_ids(references: Sequence[Any], version: RoomVersion) -> tuple[str, ...]:
    return tuple(one[0] for one in references) if version.server_made_event_ids else tuple(references)


def check_content_hash(pdu: Pdu, version: RoomVersion) -> Pdu:
    """Receipt check 3: the event, or its redacted copy (of the same id) if the content hash is wrong."""
    return pdu if hash_matches(pdu.raw, version) else redact_pdu(pdu, version)


def redact_pdu(pdu: Pdu, version: RoomVersion) -> Pdu:
    """The redacted copy of an event, of the same id."""
    bare = redact_event(pdu.raw, version)
    return _make_pdu(pdu.event_id, bare, copy_compact(encoder_for(version)(bare)), version)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyKey:
    """A server's public key (base64) and until when (ms) it may have signed events."""

    public: str
    valid_until: int


#: ``(server, key id) -> key``; None where it is not known.
KeyOf = Callable[[str, str], VerifyKey | None]
Verifier = Callable[[str, str, bytes], bool]


def required_servers(pdu: Pdu, version: RoomVersion) -> frozenset[str]:
    """The servers whose signatures an event needs."""
    if pdu.type != "m.room.member" and not version.server_made_event_ids:
        return frozenset((ids.domain_of(pdu.sender),))
    servers = set()
    invite = pdu.type == "m.room.member" and pdu.membership == "invite"
    if not (invite and "third_party_invite" in pdu.content):
        servers.add(ids.domain_of(pdu.sender))
    if version.server_made_event_ids:
        servers.add(ids.domain_of(pdu.event_id))
    if version.restricted and pdu.type == "m.room.member" and pdu.membership == "join":
        authoriser = authorising_user(pdu.content)
        if authoriser is not None:
            servers.add(ids.domain_of(authoriser))
    return frozenset(servers)


def signing_key_ids(pdu: Pdu, servers: Iterable[str]) -> set[tuple[str, str]]:
    """``(server, key id)`` of every signature that matters."""
    return {
        (server, key)
        for server in servers
        for key in signatures_of(pdu.raw, server)
        if _is_server_key_id(key)
    }


@lru_cache(maxsize=1024)
def _is_server_key_id(key_id: str) -> bool:
    """True if a server may publish such a key. The key of a policy server stands in the room's state
    (K-6).
    """
    return ids.is_valid_key_id(key_id) and key_id != "ed25519:policy_server"


def key_valid_at(pdu: Pdu, version: RoomVersion) -> int:
    """When (ms) a key must have been valid to have signed an event; 0 where any time does."""
    return pdu.origin_server_ts if version.key_validity else 0


class Signers(NamedTuple):
    """The required signatures of an event: the servers, their keys by ``(server, key id)``, and the time (ms)
    at which the keys must have been valid.
    """

    servers: frozenset[str]
    keys: set[tuple[str, str]]
    at: int


def signers_of(pdu: Pdu, version: RoomVersion) -> Signers:
    """Returns the required signatures of an event, for receipt check 2."""
    servers = required_servers(pdu, version)
    return Signers(servers, signing_key_ids(pdu, servers), key_valid_at(pdu, version))


def signature_problem(
    pdu: Pdu, version: RoomVersion, keys: KeyOf, verify: Verifier, servers: Collection[str] | None = None
) -> str | None:
    """Receipt check 2: returns the fault of the signatures, or None if they are valid.

    All signatures by known keys that were valid at ``origin_server_ts`` (at any time up to version 4) must
    verify, and every required server needs one; unknown and expired keys are passed over.
    """
    message = pdu.signable or event_signable(pdu.raw, version)
    for server in required_servers(pdu, version) if servers is None else servers:
        good = 0
        for key_id, signature in signatures_of(pdu.raw, server).items():
            key = keys(server, key_id) if _is_server_key_id(key_id) else None
            if key is None or (version.key_validity and key.valid_until < pdu.origin_server_ts):
                continue
            if not verify(key.public, signature, message):
                return f"the signature of {server} by {key_id} does not match"
            good += 1
        if not good:
            return f"no signature of {server} by a known key that was valid then"
    return None


def hash_and_sign(
    draft: Mapping[str, Any], version: RoomVersion, server: str, sign: tuple[str, Callable[[bytes], str]]
) -> Pdu:
    """Hash and sign an event of our own. ``sign`` is ``(key id, function)``. Raises RemoteProtocolError
    (M_TOO_LARGE) if it is over the limit, headroom for a second server's signature included.
    """
    hashed = {**draft, "hashes": {"sha256": content_hash(draft, version)}, "signatures": {}}
    key_id, signer = sign
    signable = event_signable(hashed, version)
    raw = with_signature(hashed, server, key_id, signer(signable))
    # As in ``parse_pdu``: the id is a hash of what the signature covers.
    known_id = event_id(raw, version) if version.server_made_event_ids else event_id_of(signable, version)
    pdu = _make_pdu(known_id, raw, copy_compact(encoder_for(version)(raw)), version)
    if len(pdu.wire) > MAX_PDU - 1024:
        raise RemoteProtocolError("the event is too large", hint=413, code="M_TOO_LARGE")
    return pdu


def add_signature(
    pdu: Pdu, version: RoomVersion, server: str, sign: tuple[str, Callable[[bytes], str]]
) -> Pdu:
    """The same event with our signature added."""
    key_id, signer = sign
    raw = with_signature(pdu.raw, server, key_id, signer(event_signable(pdu.raw, version)))
    return _make_pdu(pdu.event_id, raw, copy_compact(encoder_for(version)(raw)), version)
