"""Reads who was in a room when, and who could read its history when: see ``bus/membership_log.py``."""

from __future__ import annotations

import orjson

from hansa.bus.large_changes import staged_memberships
from hansa.bus.rooms import Room
from hansa.model.content import Membership
from hansa.model.history_visibility import Timeline
from hansa.model.ref import NativeId
from hansa.model.view import RoomView
from hansa.store.base import Put, Row, ScopedStore
from hansa.store.paging import scan_all


class MembershipLog:
    """Reads the rows."""

    def __init__(self, store: ScopedStore) -> None:
        self._store = store

    async def memberships(self, room: Room, user: NativeId) -> Timeline:
        """The memberships of a person, as values of ``Membership``; empty where they were a stranger."""
        rows: list[Row | Put] = []
        person, change = room.view.person(user), room.kept.change
        if change is not None:  # it holds, and its rows are not all in their places yet
            rows += await staged_memberships(self._store, room.id, change, user)
        kept = scan_all(self._store, "membership_log", equal=(room.id, user.network, user.id))
        rows += [row async for row in kept]
        changes = sorted({_change_of(row) for row in rows})
        return Timeline(tuple(changes), person.membership.value if person is not None else "")

    async def visibilities(self, view: RoomView) -> Timeline:
        """The history visibilities of a room."""
        rows = scan_all(self._store, "visibility_log", equal=(view.room,))
        return Timeline(tuple([_change_of(row) async for row in rows]), view.facts.history_visibility)

    async def was_joined(self, room: Room, user: NativeId, seq: int) -> bool:
        """True if a person was joined after the event of ``seq``."""
        return (await self.memberships(room, user)).value_at(seq) == Membership.JOIN.value


def _change_of(row: Row | Put) -> tuple[int, str, str]:
    before, after = orjson.loads(row.body)
    return int(row.key[-1]), str(before), str(after)
