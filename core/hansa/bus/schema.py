"""The collections of the core, and how their rows are written and read."""

from __future__ import annotations

from dataclasses import dataclass, fields
from hashlib import sha256
from sys import intern
from typing import Any

import orjson

from hansa.model.codec import event_from_bytes, event_to_bytes
from hansa.model.content import Membership
from hansa.model.events import Direction, Event, Link
from hansa.model.ref import NativeId
from hansa.model.role import Role
from hansa.model.view import RoomInfo, RoomMember, ViewDelta
from hansa.store.base import Collection, CompareAndSwap, Conflict, Delete, Insert, Put, Row, Schema, Value

SCHEMA = Schema(
    owner="core",
    version=1,
    collections=(
        Collection(name="room", key={"room": str}, indexes=(("room",),)),
        Collection(
            name="link",
            key={"network": str, "native": str},
            fields={"room": str},
            indexes=(("room",),),
        ),
        Collection(name="person", key={"room": str, "network": str, "user": str}),
        Collection(name="membership_log", key={"room": str, "network": str, "user": str, "position": int}),
        Collection(name="visibility_log", key={"room": str, "position": int}),
        Collection(
            name="people_change", key={"name": str, "part": int}, fields={"at": int}, indexes=(("at",),)
        ),
        Collection(
            name="event",
            key={"room": str, "seq": int},
            fields={"id": str, "received": int},
            indexes=(("id",),),
        ),
        Collection(
            name="alias",
            key={"network": str, "native": str},
            fields={"room": str, "seq": int},
            indexes=(("room", "seq"),),
        ),
        #: Events by what they concern. ``sender`` is that of ``sender_mark``.
        Collection(
            name="relation",
            key={"room": str, "target": int, "kind": str, "sender": str, "seq": int},
        ),
        #: Drafts of rooms that a late authority decides, by ``Delivery.key``. Without a body: in the log.
        Collection(name="draft", key={"room": str, "key": str}, fields={"ts": int}, indexes=(("ts",),)),
        Collection(
            name="chosen", key={"room": str, "name": str}, fields={"seq": int, "at": int}, indexes=(("at",),)
        ),
        Collection(name="told", key={"room": str, "name": str}),
        Collection(name="command", key={"name": str}, fields={"at": int}, indexes=(("at",),)),
        Collection(name="unshown", key={"link": str}),
        Collection(name="entering", key={"link": str, "name": str, "part": int}),
        Collection(name="cursor", key={"link": str}, fields={"seq": int}),
        Collection(name="observed", key={"observer": str, "room": str}, fields={"seq": int}),
        Collection(name="dead", key={"link": str, "seq": int}, fields={"room": str, "ts": int}),
        Collection(name="decision", key={"id": str}, fields={"ts": int}, indexes=(("ts",),)),
        Collection(name="stranger", key={"id": str}, fields={"ts": int}, indexes=(("ts",),)),
        Collection(name="generation", key={"name": str}),
        #: Accounts that belong to a person of another network. The body is the encrypted secret.
        Collection(
            name="login",
            key={"network": str, "account": str},
            fields={"person_network": str, "person": str},
        ),
        #: The account that a person has on a network, in the body.
        Collection(name="logged_in", key={"person_network": str, "person": str, "network": str}),
        Collection(
            name="ghost",
            key={"network": str, "native": str},
            fields={"home_network": str, "home_id": str},
        ),
    ),
)


_FACTS = frozenset(field.name for field in fields(RoomInfo))
_NATIVE_FACTS = ("name_by", "topic_by", "avatar", "successor")


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a room's members that is not in their rows yet, but in ``parts`` rows of its own."""

    name: str
    parts: int


@dataclass(frozen=True, slots=True)
class RoomRow:
    """A room's row as it was read or committed last; its ``commits`` make each another one. ``confined``
    events of its log are of one network alone.
    """

    body: bytes | None = None
    commits: int = 0
    change: Change | None = None
    confined: int = 0

    def by(self, row: CompareAndSwap, change: Change | None = None, confined: int = 0) -> RoomRow:
        """Once a row in its place is committed, which names a ``change`` and ``confined`` more events."""
        return RoomRow(row.body, self.commits + 1, change, self.confined + confined)


def room_cas(
    room: str,
    kept: RoomRow,
    facts: RoomInfo,
    *,
    head: int,
    received: int,
    generation: int = 0,
    change: Change | None = None,
    confined: int = 0,
) -> CompareAndSwap:
    """The row of a room, in place of ``kept``: its facts, where its log ends, how many ``confined`` events it
    has more, and the policies that judged its view. Whatever belongs to the room is committed with it, so
    that of two writers one meets a ``Conflict``; ``change`` is what many of its people are from then on.
    Raises ``Conflict`` for a room whose last such change is not done yet: it is read again, which ends that.
    """
    if kept.change is not None:
        raise Conflict("room", (room,))
    body: dict[str, Any] = {
        "name": facts.name,
        "topic": facts.topic,
        "join_rule": facts.join_rule,
        "encrypted": facts.encrypted,
        "version": facts.version,
        "head": head,
        "received": received,
        "commits": kept.commits + 1,
    }
    if generation:
        body["generation"] = generation
    if kept.confined + confined:
        body["confined"] = kept.confined + confined
    if change is not None:
        body["change"] = [change.name, change.parts]
    body |= {name: [by.network, by.id] for name in _NATIVE_FACTS if (by := getattr(facts, name)) is not None}
    if facts.history_visibility != "shared":
        body["history_visibility"] = facts.history_visibility
    body |= {name: True for name in ("moderated", "direct") if getattr(facts, name)}
    return CompareAndSwap("room", (room,), kept.body, orjson.dumps(body))


def room_of(row: Row) -> tuple[RoomInfo, int, int, int, RoomRow]:
    """``(facts, head, received, generation, kept)`` of a room's row."""
    data: dict[str, Any] = orjson.loads(row.body)
    head, received, generation = data.pop("head"), data.pop("received"), data.pop("generation", 0)
    change = data.pop("change", None)
    staged = Change(*change) if change is not None else None
    kept = RoomRow(row.body, data.pop("commits", 0), staged, data.pop("confined", 0))
    said = {name: NativeId(*data[name]) for name in _NATIVE_FACTS if name in data}
    known = {name: value for name, value in data.items() if name in _FACTS}
    return RoomInfo(**{**known, **said}), head, received, generation, kept


def room_settled(row: Row) -> CompareAndSwap:
    """The write by which a room's row names no change any more."""
    data: dict[str, Any] = orjson.loads(row.body)
    del data["change"]
    data["commits"] += 1
    return CompareAndSwap("room", row.key, row.body, orjson.dumps(data))


def link_insert(link: Link) -> Insert:
    """The row of a native room's link: a ``Conflict`` if it has one."""
    return Insert("link", (link.native.network, link.native.id), _link_body(link), {"room": link.room})


def link_cas(before: Link, link: Link) -> CompareAndSwap:
    """The row of a link that becomes another: a ``Conflict`` if it was closed meanwhile."""
    key = (link.native.network, link.native.id)
    return CompareAndSwap("link", key, _link_body(before), _link_body(link), {"room": link.room})


def _link_body(link: Link) -> bytes:
    body: dict[str, Any] = {
        "direction": link.direction.value,
        "hosted": link.hosted,
        "authority": link.authority,
    }
    if link.judged_from:
        body["judged_from"] = link.judged_from
    return orjson.dumps(body)


def link_of(row: Row) -> Link:
    """The link in a row."""
    data = orjson.loads(row.body)
    network, native = row.key
    return Link(
        room=str(row.fields["room"]),
        native=NativeId(str(network), str(native)),
        direction=Direction(data["direction"]),
        hosted=data["hosted"],
        authority=data["authority"],
        judged_from=data.get("judged_from", 0),
    )


def cursor_put(link: Link, seq: int) -> Put:
    """The row of a link's consumer: the last event that needs no more sending."""
    return Put("cursor", (link.id,), b"", {"seq": seq})


def person_put(room: str, person: RoomMember) -> Put:
    """The row of one person of a room."""
    body: list[Any] = [person.membership.value, person.server, person.name, int(person.role)]
    if not person.voice or person.avatar is not None:
        avatar = person.avatar
        body += [person.voice, [avatar.network, avatar.id] if avatar is not None else None]
    return Put("person", (room, person.user.network, person.user.id), orjson.dumps(body))


def people_writes(room: str, change: ViewDelta) -> list[Put | Delete]:
    """The writes of who came and went, for a commit that has the room's row too, or names them."""
    gone = [Delete("person", (room, user.network, user.id)) for user in change.removed]
    return [*(person_put(room, person) for person in change.upserts), *gone]


def person_of(row: Row) -> RoomMember:
    """The person in a row."""
    membership, server, name, role, *more = orjson.loads(row.body)
    voice, avatar = more or (True, None)
    return RoomMember(
        user=NativeId(intern(str(row.key[1])), str(row.key[2])),
        membership=Membership(membership),
        server=intern(server),
        name=name,
        role=Role(role),
        voice=voice,
        avatar=NativeId(*avatar) if avatar else None,
    )


def event_insert(event: Event) -> Insert:
    """The log row of an event: a second event with this room and seq is a Conflict."""
    fields: dict[str, Value] = {"id": event.id, "received": event.received}
    return Insert("event", (event.room, event.seq), event_to_bytes(event), fields)


def event_put(event: Event) -> Put:
    """The same for an event that stands in the log already."""
    fields: dict[str, Value] = {"id": event.id, "received": event.received}
    return Put("event", (event.room, event.seq), event_to_bytes(event), fields)


def event_of(row: Row) -> Event:
    """The event in a log row."""
    return event_from_bytes(str(row.key[0]), int(row.key[1]), row.body)


def hashed_key(*parts: str) -> str:
    """The key of a row that is named by parts of any length: the same for the same parts."""
    return sha256(orjson.dumps(parts)).hexdigest()


def alias_insert(ref: NativeId, room: str, seq: int, part: int = 0) -> Insert:
    """One more name of an event, or of a further ``part`` where a network has it in several."""
    return Insert("alias", (ref.network, ref.id), _part_body(part), {"room": room, "seq": seq})


def alias_put(ref: NativeId, room: str, seq: int, part: int = 0) -> Put:
    """The same, where the name may be written again."""
    return Put("alias", (ref.network, ref.id), _part_body(part), {"room": room, "seq": seq})


def part_of(row: Row) -> int:
    """The part of an event that a name is of."""
    return int(row.body or 0)


def _part_body(part: int) -> bytes:
    return b"%d" % part if part else b""
