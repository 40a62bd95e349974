"""The view of a room for the core, made of its state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from sys import intern

from hansa import Membership, NativeId, NetworkContext, Role, RoomInfo, RoomMember, ViewDelta

from hansa_matrix.conversion.from_matrix import truncated_text
from hansa_matrix.conversion.native_ids import NativeIds
from hansa_matrix.proto.auth_rules.levels import PowerLevels
from hansa_matrix.proto.auth_rules.state_keys import (
    CREATE_KEY,
    HISTORY_VISIBILITY_KEY,
    JOIN_RULES_KEY,
    MEMBER,
    POWER_LEVELS_KEY,
)
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.ids import domain_of
from hansa_matrix.proto.state_content import Content as Said
from hansa_matrix.proto.state_content import (
    avatar_url,
    display_name,
    history_visibility,
    replacement_room,
    room_avatar,
    room_name,
    room_topic,
    shared_join_rule,
)

_NAME_KEY, _TOPIC_KEY, _AVATAR_KEY = ("m.room.name", ""), ("m.room.topic", ""), ("m.room.avatar", "")
_TOMBSTONE_KEY = ("m.room.tombstone", "")
_ENCRYPTION_KEY = ("m.room.encryption", "")
_FACT_KEYS = frozenset(
    {
        CREATE_KEY,
        JOIN_RULES_KEY,
        _NAME_KEY,
        _TOPIC_KEY,
        _AVATAR_KEY,
        HISTORY_VISIBILITY_KEY,
        _TOMBSTONE_KEY,
        _ENCRYPTION_KEY,
    }
)
_MEMBERSHIPS = {m.value: m for m in Membership}
_NAME, _FACT = 255, 4096


def role_of_level(levels: PowerLevels, user: str) -> Role:
    """A user's rank, from the room's own numbers."""
    level = levels.user_level(user)
    if level >= levels.required_level("m.room.power_levels", True):  # state event
        return Role.OWNER
    if level >= max(levels.ban, levels.kick, levels.redact):
        return Role.MODERATOR
    return Role.MEMBER if has_voice(levels, user) else Role.VISITOR


def has_voice(levels: PowerLevels, user: str) -> bool:
    """True if a user may speak, from the room's own numbers."""
    return levels.user_level(user) >= levels.required_level("m.room.message", False)  # timeline event


def room_info(state: Mapping[StateKey, Pdu], version: str, levels: PowerLevels, ids: NativeIds) -> RoomInfo:
    """The small part of a view, from the events that matter to it."""

    def said(key: StateKey) -> Said:
        event = state.get(key)
        return event.content if event is not None else None

    return RoomInfo(
        name=truncated_text(room_name(said(_NAME_KEY)), _FACT),
        topic=truncated_text(room_topic(said(_TOPIC_KEY)), _FACT),
        join_rule=shared_join_rule(said(JOIN_RULES_KEY)),
        encrypted=_ENCRYPTION_KEY in state,
        version=version,
        avatar=ids.file_of(room_avatar(said(_AVATAR_KEY))),
        history_visibility=history_visibility(said(HISTORY_VISIBILITY_KEY)),
        moderated=levels.required_level("m.room.message", False) > levels.default_level,
        successor=ids.room_of(replacement_room(said(_TOMBSTONE_KEY))),
    )


async def member_from_pdu(pdu: Pdu, levels: PowerLevels, ids: NativeIds) -> RoomMember:
    """The row of a member event's target. A ghost is counted at its person's home, not at our server."""
    user_id = pdu.state_key or ""
    home = await ids.home_of(user_id)
    server = domain_of(user_id)
    if home.id != user_id:
        server = home.id.partition("@")[2].partition("/")[0] if "@" in home.id else home.network
    is_ = _MEMBERSHIPS.get(pdu.membership or "", Membership.LEAVE)
    return RoomMember(
        user=home,
        membership=is_,
        server=intern(server),
        name=truncated_text(display_name(pdu.content), _NAME) or None,
        role=role_of_level(levels, user_id),
        voice=has_voice(levels, user_id),
        avatar=ids.file_of(avatar_url(pdu.content)),
    )


class RoomViewBuilder:
    """Makes view changes out of state changes."""

    def __init__(self, ctx: NetworkContext, server: str) -> None:
        self._ctx = ctx
        #: The ids of what is in the views.
        self.ids = NativeIds(ctx, server)

    async def whole(
        self, state: AsyncIterator[Mapping[StateKey, Pdu]], version: str, levels: PowerLevels
    ) -> ViewDelta:
        """The view of a whole state, some keys of it at a time: people, and ``_FACT_KEYS``."""
        people: list[RoomMember] = []
        facts: dict[StateKey, Pdu] = {}
        async for some in state:
            for key, pdu in some.items():
                if key[0] == MEMBER:
                    people.append(await member_from_pdu(pdu, levels, self.ids))
                elif key in _FACT_KEYS:
                    facts[key] = pdu
            await asyncio.sleep(0)
        return ViewDelta(upserts=tuple(people), info=await self._room_info(facts, version, levels))

    async def _room_info(self, state: Mapping[StateKey, Pdu], version: str, levels: PowerLevels) -> RoomInfo:
        """The small part of a view, with who said what it says."""
        name, topic = state.get(_NAME_KEY), state.get(_TOPIC_KEY)
        return replace(
            room_info(state, version, levels, self.ids),
            name_by=await self.ids.home_of(name.sender) if name is not None else None,
            topic_by=await self.ids.home_of(topic.sender) if topic is not None else None,
        )

    async def changed(
        self,
        room_id: str,
        changed: Mapping[StateKey, Pdu | None],
        around: Mapping[StateKey, Pdu],
        version: str,
        levels: PowerLevels,
    ) -> ViewDelta:
        """Returns the change of the view for a changed set of state keys. ``around`` holds the events of
        ``_FACT_KEYS``.
        """
        people: dict[NativeId, RoomMember] = {}
        gone: list[NativeId] = []
        view = self._ctx.get_view(room_id)
        if POWER_LEVELS_KEY in changed and view is not None:
            for person in view.people.values():
                user = person.user.id
                if person.user.network != self._ctx.id:
                    user = await self._ctx.get_ghost_id(person.user)
                role, voice = role_of_level(levels, user), has_voice(levels, user)
                if role is not person.role or voice is not person.voice:
                    people[person.user] = replace(person, role=role, voice=voice)
        for key, pdu in changed.items():
            if key[0] != MEMBER:
                continue
            if pdu is None:
                home = await self.ids.home_of(key[1])
                people.pop(home, None)  # a change of power levels in the same step had counted them in
                gone.append(home)
            else:
                person = await member_from_pdu(pdu, levels, self.ids)
                people[person.user] = person
        facts = None
        if POWER_LEVELS_KEY in changed or any(key in _FACT_KEYS for key in changed):
            facts = await self._room_info(around, version, levels)
        return ViewDelta(upserts=tuple(people.values()), removed=tuple(gone), info=facts)


def view_state_keys() -> frozenset[StateKey]:
    """The state keys behind the small part of a view."""
    return _FACT_KEYS
