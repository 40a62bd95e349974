"""The device part of a sync answer. SPEC: client-server API, "End-to-End Encryption"."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from hansa import NetworkContext

from hansa_matrix.client_api.sync.request import MAX_ITEMS, SyncRequest
from hansa_matrix.local.client_stream import DEVICES, StreamItem
from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.users.user_services import Users

_MAX_TO_DEVICE = 100


@dataclass(frozen=True, slots=True)
class DeviceSyncResult:
    """The device part of a sync answer: ``fields`` are always there, ``changes`` only when something changed;
    and the position up to which messages to the device are included. ``met`` are users whose keys changed,
    and users that now share a first room with the caller.
    """

    fields: dict[str, Any]
    changes: dict[str, Any]
    upto: int
    met: Collection[str] = ()


class DeviceSync:
    """Messages to the device that asks, its keys that are left, and whose devices changed."""

    def __init__(self, own: LocalServer, users: Users) -> None:
        self._ctx: NetworkContext = own.ctx
        self._attendance = own.memberships
        self._known = users
        self._rooms = own.rooms

    async def build_device_part(self, asked: SyncRequest) -> DeviceSyncResult:
        """Messages to the device, keys that are left, and whose devices have changed."""
        user, device = asked.caller.user, asked.caller.device
        always: dict[str, Any] = {
            "device_one_time_keys_count": await self._known.devices.one_time_key_counts(user, device),
            "device_unused_fallback_key_types": await self._known.devices.unused_fallback(user, device),
        }
        news: dict[str, Any] = {}
        waiting = await self._known.messages.queued_messages(user, device, asked.since.device, _MAX_TO_DEVICE)
        waiting = [one for one in waiting if one.position <= asked.upto]
        messages = self._known.messages
        events = [one.event for one in waiting if await messages.can_deliver(user, one)]
        if events:
            news["to_device"] = {"events": events}
        met: Collection[str] = ()
        if asked.since.position >= 0:
            lists = await self.device_lists(asked)
            if any(lists.values()):
                news["device_lists"] = lists
            met = frozenset(lists["changed"])
        upto = waiting[-1].position if len(waiting) == _MAX_TO_DEVICE else asked.upto
        return DeviceSyncResult(always, news, upto, met)

    async def device_lists(self, asked: SyncRequest) -> dict[str, list[str]]:
        """Returns users in common rooms whose keys changed or who share a first room with the caller now, and
        users who share none any more.
        """
        user, moved = asked.caller.user, asked.membership_changes
        items = asked.items.get(DEVICES, ())
        named = {item.ref for item in items}
        if len(items) >= MAX_ITEMS:  # there were more: a user who is met now may be among those
            named |= await self._users_sharing_rooms(user)
        changed = {other for other in named if other == user or self._attendance.share_a_room(user, other)}
        left: set[str] = set()
        for room_id in moved:
            stay = self._attendance.membership_of(user, room_id)
            room = self._rooms.get(room_id)
            if stay is None or room is None:
                continue
            people = await self._joined_users(room)
            if stay.membership == "join":
                if await self._has_joined(asked, room):
                    changed |= people - {user}
            else:  # and who left before
                last = await self._attendance.news.last_items(room_id, asked.upto + 1, 1)
                people |= (await self._membership_delta(room, asked, last[-1]))[1] if last else set()
                left |= {other for other in people if not self._attendance.share_a_room(user, other)}
        for room_id, items in asked.items.items():
            room = self._rooms.get(room_id)
            stay = self._attendance.membership_of(user, room_id)
            if room is None or stay is None or stay.membership != "join":
                continue
            if len(items) >= MAX_ITEMS:
                came, went = await self._membership_delta(room, asked, items[-1])
                changed |= came - {user}
                left |= {other for other in went if not self._attendance.share_a_room(user, other)}
                continue
            loaded = await room.events.load([item.ref for item in items], room.version)
            for one in loaded.values():
                other = one.pdu.state_key
                if one.pdu.type != MEMBER or not other or other == user:
                    continue
                if one.pdu.membership == "join":
                    if not await self._was_in(room, one):
                        changed.add(other)
                elif one.pdu.membership in {"leave", "ban"} and not self._attendance.share_a_room(
                    user, other
                ):
                    left.add(other)
        return {"changed": sorted(changed - left), "left": sorted(left - {user})}

    async def _users_sharing_rooms(self, user: str) -> set[str]:
        """Returns every user that shares a room with a user, and the user."""
        stays = self._attendance.memberships_of(user).values()
        rooms = [self._rooms.get(stay.room_id) for stay in stays if stay.membership == "join"]
        found = {user}
        for room in rooms:
            found |= await self._joined_users(room) if room is not None else set()
        return found

    async def _membership_delta(
        self, room: MatrixRoom, asked: SyncRequest, last: StreamItem
    ) -> tuple[set[str], set[str]]:
        """Returns the users that joined and that left a room between two places with very many events between
        them.
        """
        before = await self._attendance.news.last_items(room.room_id, asked.since.position + 1, 1)
        first = before[0] if before else None
        was = await room.groups.load(first.state) if first is not None else {}
        now = await room.groups.load(last.state)
        keys = [key for key in was.keys() | now.keys() if key[0] == MEMBER and was.get(key) != now.get(key)]
        people = [key[1] for key in keys]
        then = {one async for one in room.joined_of(was, people)} if first is not None else set()
        here = {one async for one in room.joined_of(now, people)}
        return here - then, then - here

    async def _has_joined(self, asked: SyncRequest, room: MatrixRoom) -> bool:
        """True if the caller joined a room since the last sync; a changed name is not a join."""
        items = asked.items.get(room.room_id, ())
        loaded = await room.events.load([item.ref for item in items], room.version)
        user = asked.caller.user
        own = [one for one in loaded.values() if one.pdu.type == MEMBER and one.pdu.state_key == user]
        joins = [one for one in own if one.pdu.membership == "join"]
        return not own or any([not await self._was_in(room, one) for one in joins])

    @staticmethod
    async def _was_in(room: MatrixRoom, one: StoredEvent) -> bool:
        """True if the user of a member event was in the room before it: then only the profile changed."""
        key = (MEMBER, one.pdu.state_key or "")
        before = (await room.events_of(await room.groups.load(one.before), [key])).get(key)
        return before is not None and before.membership == "join"

    async def _joined_users(self, room: MatrixRoom) -> set[str]:
        """Returns the users that are joined in a room."""
        view = self._ctx.get_view(room.room_id)
        if view is None:
            return set()
        return {p.user.id for p in view.joined() if p.user.network == self._ctx.id}
