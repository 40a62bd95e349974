"""For any bytes, a parser gives a value or the protocol's own error. For ``scripts/fuzz``: atheris follows
the branches of ``hansa_matrix.proto``, where hypothesis draws values of a known shape.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris
import orjson
from hansa.model.errors import RemoteProtocolError

with atheris.instrument_imports(include=["hansa_matrix.proto"]):
    from hansa.model import media_types
    from hansa_matrix.proto import canonical_json, devices, edus, media, pdu, send_join
    from hansa_matrix.proto.auth_rules import rules
    from hansa_matrix.proto.room_versions import VERSIONS
    from hansa_matrix.proto.servers import discovery, key_document, policy_server, server_acl, xmatrix

_VERSIONS = tuple(VERSIONS.values())
_TEXT, _WELL_KNOWN = 0, 1
_SEEDS: tuple[tuple[int, Any], ...] = (
    (_TEXT, 'X-Matrix origin="x",destination="y",key="ed25519:1",sig="AA"'),
    (_TEXT, "mxc://x/abc"),
    (_TEXT, "attachment; filename*=UTF-8''a%20b"),
    (_WELL_KNOWN, {"m.server": "x:1"}),
    (
        13,
        {
            "type": "m.room.member",
            "sender": "@a:x",
            "state_key": "@a:x",
            "room_id": "!r:x",
            "content": {
                "membership": "join",
                "join_authorised_via_users_server": "@r:x",
                "third_party_invite": {"signed": {"mxid": "@a:x", "token": "t", "signatures": {}}},
            },
            "prev_events": ["$p"],
            "auth_events": [],
            "depth": 1,
            "origin_server_ts": 1,
            "hashes": {"sha256": "AA"},
            "signatures": {"x": {"ed25519:1": "AA"}},
        },
    ),
    (
        2,
        {
            "server_name": "x",
            "verify_keys": {"ed25519:1": {"key": "AA"}},
            "old_verify_keys": {"ed25519:0": {"key": "AA", "expired_ts": 1}},
            "valid_until_ts": 1,
            "signatures": {"x": {"ed25519:1": "AA"}},
        },
    ),
    (2, {"state": [], "auth_chain": [], "servers_in_room": ["x"], "event": {}}),
    (2, {"room_id": "!r:x", "user_id": "@a:x", "typing": True}),
    (2, {"!r:x": {"m.read": {"@a:x": {"event_ids": ["$e"], "data": {"ts": 1, "thread_id": "main"}}}}}),
    (2, {"push": [{"user_id": "@a:x", "presence": "online", "last_active_ago": 1}]}),
    (2, {"user_id": "@a:x", "device_id": "D", "stream_id": 1, "prev_id": [], "keys": {}}),
    (2, {"sender": "@a:x", "type": "m.x", "message_id": "1", "messages": {"@b:y": {"*": {}}}}),
    (2, {"allow": ["*"], "deny": ["*.x", "1.2.3.?"], "allow_ip_literals": False}),
    (2, {"via": "x", "public_keys": {"ed25519": "AA"}}),
)


def _never(*_: object) -> bool:
    return False


def _tried(parse: Callable[..., Any], *arguments: Any) -> Any:
    try:
        found = parse(*arguments)
        return list(found) if hasattr(found, "__next__") else found
    except RemoteProtocolError:
        return None


def _event(value: Any, version: Any) -> None:
    event = _tried(pdu.parse_pdu, value, version)
    if event is None:
        return
    servers = pdu.required_servers(event, version)
    pdu.signing_key_ids(event, servers)
    key = pdu.VerifyKey(public="A" * 43, valid_until=2**60)
    _tried(pdu.signature_problem, event, version, lambda *_: key, _never)
    _tried(pdu.check_content_hash, event, version)
    rules.check_event_auth(event, {}, version)
    if not event.auth_events:
        rules.check_auth_events(event, [], version)


def one(data: bytes) -> None:
    """The first byte says what the others are."""
    kind, data = (data[0], data[1:]) if data else (_TEXT, b"")
    if kind == _TEXT:
        text = data.decode(errors="surrogateescape")
        for parse in (
            xmatrix.parse_header,
            media.parse_mxc,
            media_types.parse_file_name,
            media_types.parse_media_type,
        ):
            _tried(parse, text)
        return
    if kind == _WELL_KNOWN:
        _tried(discovery.parse_well_known, data)
        return
    value, version = _tried(canonical_json.loads_lenient, data), _VERSIONS[kind % len(_VERSIONS)]
    _event(value, version)
    _tried(key_document.check_key_document, value, "x", _never, 0)
    _tried(send_join.parse_send_join, value, "!r:x", version)
    _tried(send_join.parse_make_join, value, "!r:x", "@a:x", "join", version)
    _tried(devices.parse_user_devices, value, "@a:x")
    if not isinstance(value, dict):
        return
    for reads in (
        edus.parse_typing,
        edus.parse_receipts,
        edus.parse_presence,
        devices.parse_device_list,
        devices.parse_to_device,
        devices.parse_signing_keys,
    ):
        _tried(reads, value, "x")
    _tried(server_acl.parse_acl, value)
    _tried(policy_server.policy_server, value)


if __name__ == "__main__":
    for number, (kind, seed) in enumerate(_SEEDS):
        body = seed.encode() if isinstance(seed, str) else orjson.dumps(seed)
        Path(sys.argv[1], f"seed-{number}").write_bytes(bytes([kind]) + body)
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
