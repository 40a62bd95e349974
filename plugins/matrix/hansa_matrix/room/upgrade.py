"""From a room to the one that replaces it. SPEC: client-server API, "Room Upgrades".

The new room gets what the old one had that outlives it, its alias and the people of other networks; the old
one says where it went. What is linked to the old room is linked to the new one afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import Custom, LocalProtocolError, Membership, NetworkContext, Write

from hansa_matrix.bridge import Views
from hansa_matrix.proto import ids
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.state_keys import CREATE_KEY, MEMBER, POWER_LEVELS_KEY
from hansa_matrix.proto.versions import VERSIONS
from hansa_matrix.room.administration import Administration
from hansa_matrix.room.create import PUBLIC, Founding, create_room, inherited
from hansa_matrix.room.events import Events
from hansa_matrix.room.native import Own
from hansa_matrix.room.room import MatrixRoom
from hansa_matrix.room.speech import Speech
from hansa_matrix.room.uncommitted import Uncommitted

TOMBSTONE = "m.room.tombstone"
_COPIED = frozenset(
    [
        "m.room.server_acl",
        "m.room.encryption",
        "m.room.name",
        "m.room.avatar",
        "m.room.topic",
        "m.room.guest_access",
        "m.room.history_visibility",
        "m.room.join_rules",
    ]
)
_ALIAS_KEY: StateKey = ("m.room.canonical_alias", "")


class Upgrades:
    """Of our rooms by command, and of others' by their word."""

    def __init__(
        self,
        own: Own,
        events: Events,
        administration: Administration,
        user: str,
        rooms: dict[str, MatrixRoom],
    ) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._events = events
        self._administration = administration
        self._user = user
        self._rooms = rooms

    async def upgrade(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """``hansa matrix rooms upgrade``. Raises LocalProtocolError."""
        old, version = self._administration.room(str(arguments["room"])), str(arguments["version"])
        if version not in VERSIONS:
            raise LocalProtocolError(f"there is no room version {version!r}: {', '.join(VERSIONS)}")
        new = await self.replace(old, version, self._user)
        return {"room": new, "version": version, "replaces": old.room_id}

    async def replace(self, old: MatrixRoom, version: str, user: str) -> str:
        """Put a new room in an old one's place, in the name of somebody of ours; its id. Raises
        LocalProtocolError.
        """
        state = {p.key: p for p in await old.state_events(await old.state()) if p.state_key is not None}
        if (TOMBSTONE, "") in state:
            raise LocalProtocolError(f"{old.room_id} has been replaced already")
        levels = old.levels(state[CREATE_KEY], state.get(POWER_LEVELS_KEY), old.version)
        if levels.user(user) < levels.required(TOMBSTONE, True):  # a state event
            raise LocalProtocolError(f"{user} may not replace {old.room_id}: give it a higher level")
        alias = _alias(state, self._own.server)
        founding = self._founding(old, state, version, user)
        new = await create_room(
            self._own, self._events, user, version, alias, rooms=self._rooms, founding=founding
        )
        await self._bring(new, old.room_id, frozenset())
        body = {"body": "This room has been replaced", "replacement_room": new.room_id}
        refusal = await self._administration.say(
            user, old.room_id, Custom(type=TOMBSTONE), (TOMBSTONE, "", body)
        )
        if refusal is not None:
            raise LocalProtocolError(f"{TOMBSTONE} was refused: {refusal.text}")
        await self._moved(old, new)
        return new.room_id

    @staticmethod
    def _founding(old: MatrixRoom, state: Mapping[StateKey, Pdu], version: str, user: str) -> Founding:
        copied = [
            (p.type, p.state_key or "", dict(p.content))
            for p in state.values()
            if (p.type in _COPIED and not p.state_key) or (p.type == MEMBER and p.membership == "ban")
        ]
        present = state.get(POWER_LEVELS_KEY)
        predecessor = {"room_id": old.room_id}
        if not VERSIONS[version].hashed_room_id:
            predecessor["event_id"] = next(iter(old.head.extremities))
        levels = inherited(present.content, user, version) if present is not None else None
        create = {"predecessor": predecessor}
        return Founding(create=create, levels=levels, then=(*PUBLIC, *copied), moved=True)

    async def follow(self, old: MatrixRoom, new: MatrixRoom, server: str) -> None:
        """Somebody replaced a room that we are in, and we have entered the new one. Raises LocalProtocolError
        if that does not say that it replaces the old one.
        """
        state = await new.state()
        create = (await new.events_of(state, [])).get(CREATE_KEY)
        predecessor = create.content.get("predecessor") if create is not None else None
        if not isinstance(predecessor, dict) or predecessor.get("room_id") != old.room_id:
            raise LocalProtocolError(f"{new.room_id} does not say that it replaces {old.room_id}")
        members = [key for key in state if key[0] == MEMBER]
        joined = await new.events_of(state, members)
        servers = {
            ids.domain_of(k[1]) for k, p in joined.items() if k[0] == MEMBER and p.membership == "join"
        }
        await self._bring(new, old.room_id, frozenset({*servers, server}) - {self._own.server})
        await self._moved(old, new)

    async def _bring(self, new: MatrixRoom, old_id: str, servers: frozenset[str]) -> None:
        """The people of other networks enter the new room, as far as it lets them."""
        view = self._ctx.view(old_id)
        people = [p for p in view.people.values() if p.user.network != self._ctx.id] if view else []
        draft, writes = Uncommitted(new, self._own, servers), list[Write]()
        speech = Speech(draft)
        for person in people:
            if person.membership is not Membership.JOIN:
                continue
            ghost = await self._ctx.ghost(person.user)
            content = {"membership": "join"} | ({"displayname": person.name} if person.name else {})
            try:
                writes += await speech.own_event(ghost, MEMBER, ghost, content)
            except LocalProtocolError as error:
                self._ctx.count("matrix_upgrade_left_behind")
                self._ctx.log.info("%s stays behind: %s", ghost, error)
        if writes:
            await self._ctx.store.commit([*writes, new.put(draft.head)])
            draft.committed()

    async def _moved(self, old: MatrixRoom, new: MatrixRoom) -> None:
        state = {p.key: p for p in await new.state_events(await new.state()) if p.state_key is not None}
        levels = new.levels(state[CREATE_KEY], state.get(POWER_LEVELS_KEY), new.version)
        views: Views = self._own.views
        view = await views.whole(state, new.version.id, levels)
        await self._ctx.supersede(old.room_id, new.room_id, view)
        self._ctx.log.info("%s is replaced by %s", old.room_id, new.room_id)


def _alias(state: Mapping[StateKey, Pdu], server: str) -> str:
    """The alias of ours that the room is known by, empty if there is none."""
    event = state.get(_ALIAS_KEY)
    alias = event.content.get("alias") if event is not None else None
    return (
        alias if isinstance(alias, str) and ids.valid_alias(alias) and ids.domain_of(alias) == server else ""
    )
