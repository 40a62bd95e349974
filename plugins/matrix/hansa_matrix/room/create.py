"""Rooms of our own: the first events, in the order every server expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hansa import NetworkContext, Put, Write

from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import finish
from hansa_matrix.proto.versions import VERSIONS
from hansa_matrix.room.events import Events, Status, Stored
from hansa_matrix.room.native import Own
from hansa_matrix.room.room import Head, MatrixRoom
from hansa_matrix.room.speech import Speech
from hansa_matrix.room.uncommitted import Uncommitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Founding:
    """What a new room has from another: the ``predecessor`` of its create event, power levels, and state
    events, ``(type, state key, content)``, that follow the first ones.
    """

    predecessor: Mapping[str, str]
    levels: Mapping[str, Any] | None
    then: Sequence[tuple[str, str, dict[str, Any]]]


def _create_event(own: Own, creator: str, version_id: str, room_id: str, founding: Founding | None) -> Pdu:
    version = VERSIONS[version_id]
    content: dict[str, Any] = {"room_version": version_id}
    if founding is not None:
        content["predecessor"] = dict(founding.predecessor)
    if version.creator_in_content:
        content["creator"] = creator
    if version.hashed_room_id:
        # Two rooms made in one millisecond would have one id.
        content["dev.hansa.salt"] = own.ctx.random.bytes(8).hex()
    event: dict[str, Any] = {
        "type": "m.room.create",
        "state_key": "",
        "sender": creator,
        "content": content,
        "prev_events": [],
        "auth_events": [],
        "depth": 1,
        "origin_server_ts": own.ctx.clock.now(),
    }
    if version.named_event_ids:
        event["event_id"] = own.event_id()
    if not version.hashed_room_id:
        event["room_id"] = room_id
    return finish(event, version, own.server, (own.key.key_id, own.key.sign))


def _levels(creator: str, version_id: str) -> dict[str, Any]:
    version = VERSIONS[version_id]
    users = {} if version.privileged_creators else {creator: 100}
    return {
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.name": 0,
            "m.room.topic": 0,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.encryption": 150 if version.privileged_creators else 100,
            "m.room.tombstone": 150 if version.privileged_creators else 100,
            "m.room.server_acl": 100,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": 0,
    }


def _inherited(levels: Mapping[str, Any], creator: str, version_id: str) -> dict[str, Any]:
    """Another room's levels, in which the creator of this one has what its version gives creators."""
    users = levels.get("users")
    named = {u: v for u, v in users.items() if u != creator} if isinstance(users, Mapping) else {}
    if not VERSIONS[version_id].privileged_creators:
        named[creator] = max([100, *(v for v in named.values() if type(v) is int)])
    return {**levels, "users": named}


async def create_room(
    own: Own,
    events: Events,
    creator: str,
    version_id: str,
    alias: str,
    *,
    founding: Founding | None = None,
) -> MatrixRoom:
    """A public room with an alias (none if it is empty), all its first events in one commit."""
    ctx: NetworkContext = own.ctx
    version = VERSIONS[version_id]
    made_up = "!" + ctx.random.bytes(12).hex() + ":" + own.server
    create = _create_event(own, creator, version_id, made_up, founding)
    room = MatrixRoom(create.room_id, version, ctx.store, events)
    group, puts = room.groups.grow(0, {}, {create.key: create.event_id})
    stored = Stored(create, Status.ACCEPTED, 0, group)
    events.keep([stored])
    room.head = Head(extremities={create.event_id: group}, group=group, depth=1)
    writes: list[Write] = [*puts, stored.put()]
    draft = Uncommitted(room, own)
    speech = Speech(draft)
    levels = _levels(creator, version_id)
    if founding is not None and founding.levels is not None:
        levels = _inherited(founding.levels, creator, version_id)
    steps: list[tuple[str, str, dict[str, Any]]] = [
        ("m.room.member", creator, {"membership": "join"}),
        ("m.room.power_levels", "", levels),
        ("m.room.join_rules", "", {"join_rule": "public"}),
        ("m.room.history_visibility", "", {"history_visibility": "shared"}),
        *(founding.then if founding is not None else ()),
    ]
    if alias:
        steps.append(("m.room.canonical_alias", "", {"alias": alias}))
    for type_, state_key, content in steps:
        writes += await speech.own_event(creator, type_, state_key, content)
    writes.append(room.put(draft.head))
    if alias:
        writes.append(Put("room_alias", (alias,), b"", {"room_id": room.room_id}))
    await ctx.store.commit(writes)
    draft.committed()
    return room
