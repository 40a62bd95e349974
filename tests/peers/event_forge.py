"""A homeserver's key in the wrong hands: events and requests that are signed whatever they say. No I/O."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

import orjson
from hansa_matrix.crypto import SigningKey
from hansa_matrix.proto.auth_rules.state_keys import auth_event_keys
from hansa_matrix.proto.canonical_json import dumps_canonical
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.hashing import content_hash
from hansa_matrix.proto.pdu import hash_and_sign, pdu_from_raw
from hansa_matrix.proto.room_versions import VERSIONS, RoomVersion
from hansa_matrix.proto.servers.key_document import DAY, key_document
from hansa_matrix.proto.servers.xmatrix import format_header
from hansa_matrix.proto.signing import event_signable, signable_bytes, with_signature


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def cited(event_ids: list[str], version: RoomVersion) -> list[Any]:
    """References as a version writes them; what is none stays as it is."""
    if not version.server_made_event_ids or not isinstance(event_ids, list):
        return event_ids
    return [[one, {"sha256": "x"}] if isinstance(one, str) else one for one in event_ids]


class JoinedRoom:
    """The knowledge of a foreign server about a room that it joined; ``user`` is its user there."""

    def __init__(self, room_id: str, version: str, user: str) -> None:
        self.room_id, self.user = room_id, user
        self.version = VERSIONS[version]
        self.state: dict[tuple[str, str], str] = {}
        self.tips: dict[str, int] = {}

    def keep(self, pdu: Pdu) -> None:
        """An event that both sides have."""
        for before in pdu.prev_events:
            self.tips.pop(before, None)
        self.tips[pdu.event_id] = pdu.depth
        if pdu.state_key is not None:
            self.state[pdu.key] = pdu.event_id


class EventForge:
    """``key`` is published, ``retired`` has expired, nobody else knows ``secret``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = SigningKey.from_seed("ed25519:now", secrets.token_bytes(32))
        self.retired = SigningKey.from_seed("ed25519:old", secrets.token_bytes(32))
        self.secret = SigningKey.from_seed("ed25519:unpublished", secrets.token_bytes(32))
        self.created: dict[str, dict[str, Any]] = {}

    def keys(self) -> dict[str, Any]:
        """Returns the answer of ``/_matrix/key/v2/server``."""
        doc = key_document(self.name, {self.key.key_id: self.key.public}, now() + DAY)
        expired = {"key": self.retired.public, "expired_ts": 1_500_000_000_000}
        doc = {**doc, "old_verify_keys": {self.retired.key_id: expired}}
        return with_signature(doc, self.name, self.key.key_id, self.key.sign(signable_bytes(doc)))

    def signed(
        self,
        method: str,
        destination: str,
        target: str,
        content: bytes | None = None,
        *,
        origin: str | None = None,
        key: SigningKey | None = None,
    ) -> str:
        """The Authorization header of a request with that JSON, which is signed as it stands."""
        origin, key = origin or self.name, key or self.key
        message = {"method": method, "uri": target, "origin": origin, "destination": destination}
        whole = message if content is None else {**message, "content": orjson.Fragment(content)}
        return format_header(origin, destination, key.key_id, key.sign(dumps_canonical(whole)))

    def draft(
        self, room: JoinedRoom, kind: str, content: dict[str, Any], state_key: str | None = None, **over: Any
    ) -> dict[str, Any]:
        """An event that is neither hashed nor signed; ``over`` replaces fields."""
        keys = auth_event_keys(kind, room.user, state_key, content, room.version)
        event = {
            "type": kind,
            "room_id": room.room_id,
            "sender": room.user,
            "content": content,
            "prev_events": cited(list(room.tips)[:20], room.version),
            "auth_events": cited(sorted(room.state[key] for key in keys if key in room.state), room.version),
            "depth": max(room.tips.values(), default=0) + 1,
            "origin_server_ts": now(),
        }
        if state_key is not None:
            event["state_key"] = state_key
        if room.version.server_made_event_ids:
            event["event_id"] = f"${secrets.token_hex(8)}:{self.name}"
            over = {k: cited(v, room.version) if k.endswith("_events") else v for k, v in over.items()}
        return {**event, **over}

    def finish(
        self,
        room: JoinedRoom,
        draft: Mapping[str, Any],
        *,
        key: SigningKey | None = None,
        server: str = "",
        hashes: Any = None,
    ) -> dict[str, Any]:
        """Hash and sign, unchecked."""
        key = key or self.key
        hashes = hashes or {"sha256": content_hash(draft, room.version)}
        hashed = {**draft, "hashes": hashes, "signatures": {}}
        signature = key.sign(event_signable(hashed, room.version))
        return with_signature(hashed, server or self.name, key.key_id, signature)

    def message(self, room: JoinedRoom, text: str, **over: Any) -> dict[str, Any]:
        """A whole message; ``over`` replaces fields before it is signed."""
        return self.finish(
            room, self.draft(room, "m.room.message", {"msgtype": "m.text", "body": text}, **over)
        )

    def joining(self, template: Mapping[str, Any], localpart: str) -> Pdu:
        """The event of a make_join answer, completed."""
        draft = {**template["event"], "content": {"membership": "join", "displayname": localpart}}
        draft |= {"origin_server_ts": now()}
        draft.pop("origin")
        if VERSIONS[template["room_version"]].server_made_event_ids:
            draft["event_id"] = f"${secrets.token_hex(8)}:{self.name}"
        version = VERSIONS[template["room_version"]]
        return hash_and_sign(draft, version, self.name, (self.key.key_id, self.key.sign))

    def entered(self, join: Pdu, version: str, state: list[dict[str, Any]]) -> JoinedRoom:
        """The room that a send_join answer tells of."""
        room = JoinedRoom(join.room_id, version, join.sender)
        for raw in state:
            pdu = pdu_from_raw(raw, room.version)
            room.state[pdu.key] = pdu.event_id
            if pdu.type == "m.room.create":
                self.created[room.room_id] = raw
        room.keep(join)
        return room
