"""Rooms of our own: the first events, in the order every server expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hansa import (
    CannotOpenRoom,
    DirectoryPublish,
    Invite,
    LocalProtocolError,
    NativeId,
    NetworkContext,
    Refusal,
    RefusalCode,
    RemoteProtocolError,
    RoomCreate,
    RoomMember,
    RoomView,
    ViewDelta,
    Write,
)
from hansa import Membership as Standing

from hansa_matrix.local.client_stream import stream_write
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.rules import check_auth_events
from hansa_matrix.proto.auth_rules.state_keys import CREATE, MEMBER, POWER_LEVELS
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import hash_and_sign
from hansa_matrix.proto.room_versions import VERSIONS
from hansa_matrix.proto.state_content import is_federated, room_version
from hansa_matrix.rooms.directory.aliases import insert_alias_write
from hansa_matrix.rooms.directory.public_rooms import MAX_PUBLISHED, is_list_full, publish_write
from hansa_matrix.rooms.event_builder import EventBuilder
from hansa_matrix.rooms.event_store import EventStore, Status, StoredEvent
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.policy.policy_checks import CheckedEvent, PolicyChecks
from hansa_matrix.rooms.room import MatrixRoom, RoomHead
from hansa_matrix.rooms.room_draft import RoomDraft
from hansa_matrix.rooms.upgrade.unfinished_upgrades import UnfinishedUpgrade

#: ``(type, state key, content)`` of a state event.
InitialEvent = tuple[str, str, dict[str, Any]]

#: The state of a room that every user may join, and whose past every member may read.
PUBLIC: tuple[InitialEvent, ...] = (
    ("m.room.join_rules", "", {"join_rule": "public"}),
    ("m.room.history_visibility", "", {"history_visibility": "shared"}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomTemplate:
    """The beginning of a room: further content of its create event, the creator's own member content, power
    levels (None: the usual ones), and the state events that follow.

    ``invited`` are the users that it is made for, with the content of their invites: policies are asked about
    them before it exists, and its creator invites them once it exists. ``published`` puts it into the list of
    rooms. ``replaces`` is the room whose place it takes, if any.
    """

    create: Mapping[str, Any] = field(default_factory=dict)
    member: Mapping[str, Any] = field(default_factory=dict)
    levels: Mapping[str, Any] | None = None
    then: Sequence[InitialEvent] = PUBLIC
    invited: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    published: bool = False
    replaces: str = ""


_USUAL = RoomTemplate()


def _create_event(
    own: LocalServer, creator: str, version_id: str, room_id: str, founding: RoomTemplate
) -> Pdu:
    version = VERSIONS[version_id]
    content: dict[str, Any] = {**founding.create, "room_version": version_id}
    if version.creator_in_content:
        content["creator"] = creator
    if version.room_id_is_create_hash:
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
    if version.server_made_event_ids:
        event["event_id"] = own.event_id()
    if not version.room_id_is_create_hash:
        event["room_id"] = room_id
    return hash_and_sign(event, version, own.server, (own.key.key_id, own.key.sign))


def default_power_levels(creator: str, version_id: str, *, naming: int, operator: str = "") -> dict[str, Any]:
    """The levels of a room that bridges. ``naming`` is the level that it takes to name it and to say what it
    is about; ``operator``, if any, is its first administrator.
    """
    version = VERSIONS[version_id]
    users = {} if version.privileged_creators else {creator: 100}
    if operator and operator != creator:
        users[operator] = 100
    return {
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.name": naming,
            "m.room.topic": naming,
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


class RoomCreator:
    """Creates rooms. Each is in the registry before any user hears of it."""

    def __init__(self, own: LocalServer, events: EventStore, judging: PolicyChecks) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._events = events
        self._judging = judging
        self._rooms = own.rooms

    async def create(
        self, creator: str, version_id: str, alias: str, founding: RoomTemplate = _USUAL
    ) -> MatrixRoom:
        """A room with an alias (none if it is empty), all its first events in one commit, after every policy
        was asked about each of them.

        Raises ``CannotOpenRoom`` where a policy denies the room or an event is too large, LocalProtocolError
        for events that its rules forbid, ``Conflict`` for an alias that there is, or a room that is being
        replaced already. Nothing is left behind then.
        """
        if founding.published and await is_list_full(self._ctx.store):
            raise CannotOpenRoom(
                Refusal(code=RefusalCode.BUSY, text=f"{MAX_PUBLISHED} rooms are published already")
            )
        version, generation = VERSIONS[version_id], self._ctx.policy_generation
        made_up = "!" + self._ctx.random.bytes(12).hex() + ":" + self._own.server
        try:
            create = _create_event(self._own, creator, version_id, made_up, founding)
            steps = _initial_events(
                creator, self._power_levels(creator, version_id, founding), alias, founding
            )
            await self._require_allowed(create, alias, founding, steps)
            room = MatrixRoom(create.room_id, version, self._ctx.store, self._events)
            draft, writes = await self._draft_events(room, create, steps, generation)
        except RemoteProtocolError as problem:  # of a size that nobody may send
            raise CannotOpenRoom(Refusal(code=RefusalCode.TOO_LARGE, text=problem.reason)) from problem
        if alias:
            writes.append(insert_alias_write(alias, room.room_id, creator))
        if founding.replaces:
            writes.append(UnfinishedUpgrade(old=founding.replaces, new=room.room_id).begin())
        if founding.published:
            writes.append(publish_write(room.room_id, creator))
        self._rooms.add(room)
        try:
            await draft.commit(writes)
        except BaseException:
            self._rooms.remove(room.room_id)
            raise
        return room

    def _power_levels(self, creator: str, version_id: str, founding: RoomTemplate) -> Mapping[str, Any]:
        config = self._ctx.config
        if founding.levels is not None:
            return founding.levels
        return default_power_levels(creator, version_id, naming=config.naming_level, operator=config.operator)

    async def _draft_events(
        self, room: MatrixRoom, create: Pdu, steps: Sequence[InitialEvent], generation: int
    ) -> tuple[RoomDraft, list[Write]]:
        """The first events of a room, judged by the policies of ``generation``, and the writes that keep
        them.
        """
        creator = create.sender
        room.attended = creator in self._own.memberships.accounts
        group = room.groups.grow(0, {}, {create.key: create.event_id})
        stored = StoredEvent(
            create, Status.ACCEPTED, 0, group, live=room.attended, generation=generation, depth=1
        )
        room.head = RoomHead(extremities={create.event_id: group}, group=group, depth=1, last=1)
        draft = RoomDraft(room, self._own)
        draft.generation = generation
        draft.stored[create.event_id] = stored
        reject = check_auth_events(create, [], room.version)
        if reject is not None:
            raise LocalProtocolError(f"{CREATE}: {reject.reason}")
        writes: list[Write] = [stored.put()]
        if room.attended:
            writes.append(stream_write(create.room_id, create.event_id, group))
        speech = EventBuilder(draft)
        for type_, state_key, content in steps:
            writes += await speech.local_event(creator, type_, state_key, content)
        return draft, writes

    async def _require_allowed(
        self, create: Pdu, alias: str, founding: RoomTemplate, steps: Sequence[InitialEvent]
    ) -> None:
        """Ask about the room as a whole, everybody it is made for, its address, and each first event."""
        ctx, judging, room_id, creator = self._ctx, self._judging, create.room_id, create.sender
        who = NativeId(ctx.id, creator)
        drafts: list[InitialEvent] = [(CREATE, "", dict(create.content)), *steps]
        drafts += [(MEMBER, user, {**c, "membership": "invite"}) for user, c in founding.invited.items()]
        said = [CheckedEvent(who, self._own.server, draft) for draft in drafts]
        people = [user for user in _begun_with(founding) if user != creator]
        servers = frozenset(ids.domain_of(user) for user in people)
        texts = await judging.texts(room_id, said)
        if not founding.replaces:
            await judging.check(
                RoomCreate(
                    network=ctx.id,
                    user=who,
                    user_server=self._own.server,
                    version=room_version(create.content),
                    invited=tuple([await self._own.views.ids.home_of(user) for user in people]),
                    servers=servers,
                    federated=is_federated(founding.create),
                    texts=(*texts, alias) if alias else texts,
                )
            )
        for user in people:
            await judging.check(
                Invite(
                    network=ctx.id,
                    room=room_id,
                    sender=who,
                    sender_server=self._own.server,
                    user=await self._own.views.ids.home_of(user),
                    outbound=ids.domain_of(user) != self._own.server,
                    servers=servers,
                    texts=texts,
                    again=True,
                )
            )
        for address in [*([alias] if alias else []), *([""] if founding.published else [])]:
            await judging.check(
                DirectoryPublish(
                    network=ctx.id,
                    user=who,
                    user_server=self._own.server,
                    room=room_id,
                    address=address,
                    texts=texts,
                    again=True,
                )
            )
        view = RoomView("")
        view.apply(
            ViewDelta(upserts=(RoomMember(user=who, membership=Standing.JOIN, server=self._own.server),))
        )
        await judging.drafts(room_id, view, said)


def _begun_with(founding: RoomTemplate) -> list[str]:
    """Returns the users that a room is created for: the invited ones and the additional creators."""
    more = founding.create.get("additional_creators")
    creators = [user for user in more if isinstance(user, str)] if isinstance(more, list) else []
    return list(dict.fromkeys([*founding.invited, *creators]))


def _initial_events(
    creator: str, levels: Mapping[str, Any], alias: str, founding: RoomTemplate
) -> list[InitialEvent]:
    """The events of a room after its first. SPEC: client-server API, "Creation", has their order."""
    called: list[InitialEvent] = [("m.room.canonical_alias", "", {"alias": alias})] if alias else []
    return [
        (MEMBER, creator, {**founding.member, "membership": "join"}),
        (POWER_LEVELS, "", dict(levels)),
        *called,
        *founding.then,
    ]
