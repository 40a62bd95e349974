"""Who was in a room when, and who could read its history when. Each change is a row at the place of its event
in the log, written with that event's commit; what never changed has no row, and is as it is now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import orjson

from hansa.model.content import Membership
from hansa.model.history_visibility import Timeline
from hansa.model.ref import NativeId
from hansa.model.view import RoomView, ViewDelta
from hansa.store.base import Put, Row, ScopedStore, Write
from hansa.store.paging import scan_all

#: Members whose changes are logged in one commit. A state that was found to differ for more of them is taken
#: as if it had always been so.
MAX_AT_ONCE = 1000
_LOGS = ("membership_log", "visibility_log")


def membership_writes(view: RoomView, change: ViewDelta, position: int) -> list[Put]:
    """The rows of a change that is not applied to ``view`` yet, and takes place at ``position``
    (``position_of``).
    """
    writes: list[Put] = []
    if change.info is not None and change.info.history_visibility != view.facts.history_visibility:
        body = orjson.dumps([view.facts.history_visibility, change.info.history_visibility])
        writes.append(Put("visibility_log", (view.room, position), body))
    if len(change.upserts) + len(change.removed) > MAX_AT_ONCE:
        return writes
    after = dict.fromkeys(change.removed, "") | {p.user: p.membership.value for p in change.upserts}
    for user, membership in after.items():
        person = view.person(user)
        before = person.membership.value if person is not None else ""
        if before != membership:
            key = (view.room, user.network, user.id, position)
            writes.append(Put("membership_log", key, orjson.dumps([before, membership])))
    return writes


async def since_position(
    store: ScopedStore, writes: Sequence[Put], earlier: Sequence[Write] = ()
) -> list[Put]:
    """The same rows, for changes at a place at which there may be others, in the store or in ``earlier``
    writes: what was before the first of them stays.
    """
    known = {
        (one.collection, one.key): one.body
        for one in earlier
        if isinstance(one, Put) and one.collection in _LOGS
    }
    for collection in _LOGS:
        keys = [write.key for write in writes if write.collection == collection]
        rows = await store.get_many(collection, keys) if keys else {}
        known = {(collection, key): row.body for key, row in rows.items()} | known
    merged = list[Put]()
    for write in writes:
        body = known.get((write.collection, write.key))
        if body is None:
            merged.append(write)
        else:
            both = [orjson.loads(body)[0], orjson.loads(write.body)[1]]
            merged.append(replace(write, body=orjson.dumps(both)))
    return merged


class MembershipLog:
    """Reads the rows."""

    def __init__(self, store: ScopedStore) -> None:
        self._store = store

    async def memberships(self, view: RoomView, user: NativeId) -> Timeline:
        """The memberships of a person, as values of ``Membership``; empty where they were a stranger."""
        person = view.person(user)
        rows = scan_all(self._store, "membership_log", equal=(view.room, user.network, user.id))
        changes = tuple([_change_of(row) async for row in rows])
        return Timeline(changes, person.membership.value if person is not None else "")

    async def visibilities(self, view: RoomView) -> Timeline:
        """The history visibilities of a room."""
        rows = scan_all(self._store, "visibility_log", equal=(view.room,))
        return Timeline(tuple([_change_of(row) async for row in rows]), view.facts.history_visibility)

    async def was_joined(self, view: RoomView, user: NativeId, seq: int) -> bool:
        """True if a person was joined after the event of ``seq``."""
        return (await self.memberships(view, user)).value_at(seq) == Membership.JOIN.value


def _change_of(row: Row) -> tuple[int, str, str]:
    before, after = orjson.loads(row.body)
    return int(row.key[-1]), str(before), str(after)
