"""The content of events that only their room explains: redactions, and the change of one person's rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hansa import Content, Standing

from hansa_matrix.conversion.from_matrix import (
    Draft,
    content_from_event,
    content_from_pdu,
    plain_message,
)
from hansa_matrix.conversion.native_ids import NativeIds
from hansa_matrix.conversion.room_views import has_voice, role_of_level
from hansa_matrix.proto.auth_rules.levels import PowerLevels, changed_users
from hansa_matrix.proto.auth_rules.state_keys import CREATE_KEY, POWER_LEVELS, POWER_LEVELS_KEY
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.ids import is_valid_user_id
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.redactions import REDACTION, target_of
from hansa_matrix.rooms.room import MatrixRoom


async def content_of_pdu(own: LocalServer, pdu: Pdu) -> Content:
    """The content of a received event."""
    if (plain := plain_message(pdu)) is not None:
        return plain
    if pdu.type in {REDACTION, POWER_LEVELS} and (room := own.rooms.get(pdu.room_id)) is not None:
        if pdu.type == REDACTION:
            return await content_from_pdu(pdu, own.views.ids, target_of(pdu, room.version) or "")
        standing = await _standing(room, pdu.state_key, pdu.content, own.views.ids)
        if standing is not None:
            return standing
    return await content_from_pdu(pdu, own.views.ids)


async def content_of_draft(own: LocalServer, room_id: str, draft: Draft) -> Content:
    """The content of an event that a user of this server is about to send."""
    type_, state_key, content = draft
    if type_ == POWER_LEVELS and (room := own.rooms.get(room_id)) is not None:
        standing = await _standing(room, state_key, content, own.views.ids)
        if standing is not None:
            return standing
    return await content_from_event(draft, own.views.ids)


async def _standing(
    room: MatrixRoom, state_key: str | None, content: Mapping[str, Any], ids: NativeIds
) -> Standing | None:
    """The new rank of a person, by the state of now. None where power levels change the rank of nobody or of
    several people, or more than ranks: the view says what becomes of them.
    """
    if state_key:
        return None
    state = await room.events_of(await room.state(), [POWER_LEVELS_KEY])
    create, before = state.get(CREATE_KEY), state.get(POWER_LEVELS_KEY)
    if create is None or before is None:
        return None
    users = changed_users(before.content, content)
    if users is None:
        return None
    old = PowerLevels(create, before, room.version)
    new = PowerLevels(create, replace(before, content=content), room.version)
    ranks = {
        user: (role_of_level(new, user), has_voice(new, user))
        for user in users
        if is_valid_user_id(user)
        and (role_of_level(new, user), has_voice(new, user))
        != (role_of_level(old, user), has_voice(old, user))
    }
    if len(ranks) != 1:
        return None
    ((user, (role, voice)),) = ranks.items()
    return Standing(user=await ids.home_of(user), role=role, voice=voice)
