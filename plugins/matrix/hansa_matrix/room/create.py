"""Rooms of our own: the first events, in the order every server expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hansa import Insert, NetworkContext, Put, Write

from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import finish
from hansa_matrix.proto.versions import VERSIONS
from hansa_matrix.room.events import Events, Status, Stored
from hansa_matrix.room.native import Own
from hansa_matrix.room.news import told
from hansa_matrix.room.room import Head, MatrixRoom
from hansa_matrix.room.speech import Speech
from hansa_matrix.room.uncommitted import Uncommitted

#: ``(type, state key, content)`` of a state event.
Step = tuple[str, str, dict[str, Any]]

#: What makes a room that everybody may enter, and whose past everybody in it may read.
PUBLIC: tuple[Step, ...] = (
    ("m.room.join_rules", "", {"join_rule": "public"}),
    ("m.room.history_visibility", "", {"history_visibility": "shared"}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Founding:
    """How a room begins: further content of its create event, what its creator says of themselves, power
    levels (None: the usual ones), and the state events that follow. ``moved``: its alias was another room's.
    """

    create: Mapping[str, Any] = field(default_factory=dict)
    member: Mapping[str, Any] = field(default_factory=dict)
    levels: Mapping[str, Any] | None = None
    then: Sequence[Step] = PUBLIC
    moved: bool = False


_USUAL = Founding()


def _create_event(own: Own, creator: str, version_id: str, room_id: str, founding: Founding) -> Pdu:
    version = VERSIONS[version_id]
    content: dict[str, Any] = {**founding.create, "room_version": version_id}
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


def usual_levels(creator: str, version_id: str) -> dict[str, Any]:
    """The levels of a room that bridges: everybody in it may name it and say what it is about."""
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


def inherited(levels: Mapping[str, Any], creator: str, version_id: str) -> dict[str, Any]:
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
    rooms: dict[str, MatrixRoom],
    founding: Founding = _USUAL,
) -> MatrixRoom:
    """A room with an alias (none if it is empty), all its first events in one commit. It is among ``rooms``
    before anybody hears of it. Raises LocalProtocolError for events that its rules forbid, ``Conflict`` for
    an alias that there is.
    """
    ctx: NetworkContext = own.ctx
    version = VERSIONS[version_id]
    made_up = "!" + ctx.random.bytes(12).hex() + ":" + own.server
    create = _create_event(own, creator, version_id, made_up, founding)
    room = MatrixRoom(create.room_id, version, ctx.store, events)
    room.attended = creator in own.attendance.accounts
    group, puts = room.groups.grow(0, {}, {create.key: create.event_id})
    stored = Stored(create, Status.ACCEPTED, 0, group, live=room.attended)
    events.keep([stored])
    room.head = Head(extremities={create.event_id: group}, group=group, depth=1)
    writes: list[Write] = [*puts, stored.put()]
    if room.attended:
        writes.append(told(create.room_id, create.event_id, group))
    draft = Uncommitted(room, own)
    speech = Speech(draft)
    levels = founding.levels if founding.levels is not None else usual_levels(creator, version_id)
    steps: list[Step] = [
        ("m.room.member", creator, {**founding.member, "membership": "join"}),
        ("m.room.power_levels", "", dict(levels)),
        *founding.then,
    ]
    if alias:
        steps.append(("m.room.canonical_alias", "", {"alias": alias}))
    for type_, state_key, content in steps:
        writes += await speech.own_event(creator, type_, state_key, content)
    writes.append(room.put(draft.head))
    if alias:
        kept = Put if founding.moved else Insert
        writes.append(kept("room_alias", (alias,), b"", {"room_id": room.room_id}))
    rooms[room.room_id] = room
    try:
        await ctx.store.commit(writes)
    except BaseException:
        del rooms[room.room_id]
        raise
    draft.committed()
    return room
