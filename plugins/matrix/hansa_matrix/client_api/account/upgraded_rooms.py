"""Copies a user's settings of a room to the room that replaces it: tags, direct chats, push rules. SPEC:
client-server API, "Room Upgrades", "Room Tagging", "Direct Messaging", "Push Rules".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import NetworkContext, RemoteProtocolError

from hansa_matrix.client_api.account.account_data import AccountData
from hansa_matrix.client_api.account.push_rules import PushRuleEndpoints
from hansa_matrix.proto.auth_rules.state_keys import CREATE_KEY
from hansa_matrix.proto.state_content import predecessor_room, replacement_room
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.upgrade.upgrade_room import TOMBSTONE

TAGS, DIRECT = "m.tag", "m.direct"


class UpgradedRooms:
    """Called when a user joins a room."""

    def __init__(self, own: LocalServer, data: AccountData, push: PushRuleEndpoints) -> None:
        self._ctx: NetworkContext = own.ctx
        self._attendance = own.memberships
        self._rooms = own.rooms
        self._data = data
        self._push = push

    async def copy_account_data(self, user: str, room_id: str) -> None:
        """Copies a user's settings of the previous room, where both rooms say that one replaces the other and
        the user was in it. A failure for too much data does not prevent the join.
        """
        old = await self._predecessor_of(room_id)
        if old is None or self._attendance.membership_of(user, old) is None:
            return
        try:
            await self._copy_tags(user, old, room_id)
            await self._copy_direct(user, old, room_id)
            await self._push.copy_room_rules(user, old, room_id)
        except RemoteProtocolError as problem:
            self._ctx.log.info("%s keeps less of %s than of %s: %s", user, room_id, old, problem.reason)

    async def _predecessor_of(self, room_id: str) -> str | None:
        """The room that a room replaces."""
        new = self._rooms.get(room_id)
        create = (await new.events_of(await new.state(), [])).get(CREATE_KEY) if new is not None else None
        old_id = predecessor_room(create.content) if create is not None else None
        old = self._rooms.get(old_id) if old_id is not None else None
        if old is None:
            return None
        key = (TOMBSTONE, "")
        closed = (await old.events_of(await old.state(), [key])).get(key)
        return old.room_id if closed and replacement_room(closed.content) == room_id else None

    async def _copy_tags(self, user: str, old: str, new: str) -> None:
        before = _tags_of(await self._data.get(user, old, TAGS))
        if before and not before.keys() <= _tags_of(await self._data.get(user, new, TAGS)).keys():
            await self._data.change_value(
                user, new, TAGS, lambda kept: {"tags": {**before, **_tags_of(kept)}}
            )

    async def _copy_direct(self, user: str, old: str, new: str) -> None:
        def add_room(kept: Any) -> dict[str, Any]:
            return {
                who: [*rooms, new] if isinstance(rooms, list) and old in rooms and new not in rooms else rooms
                for who, rooms in (kept.items() if isinstance(kept, Mapping) else ())
            }

        kept = await self._data.get(user, "", DIRECT)
        if isinstance(kept, dict) and add_room(kept) != kept:
            await self._data.change_value(user, "", DIRECT, add_room)


def _tags_of(kept: Any) -> dict[str, Any]:
    tags = kept.get("tags") if isinstance(kept, dict) else None
    return tags if isinstance(tags, dict) else {}
