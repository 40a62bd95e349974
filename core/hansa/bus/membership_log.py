"""Who was in a room when, and who could read its history when. Each change is a row at the place of its event
in the log, written with that event's commit; what never changed has no row, and is as it is now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import orjson

from hansa.model.view import RoomView, ViewDelta
from hansa.store.base import Put, ScopedStore, Write

_LOGS = ("membership_log", "visibility_log")


def membership_writes(view: RoomView, change: ViewDelta, position: int) -> list[Put]:
    """The rows of who came and went by a change that is not applied to ``view`` yet, and takes place at
    ``position`` (``position_of``). They are as many as its people, and go where the rows of these go.
    """
    writes: list[Put] = []
    after = dict.fromkeys(change.removed, "") | {p.user: p.membership.value for p in change.upserts}
    for user, membership in after.items():
        person = view.person(user)
        before = person.membership.value if person is not None else ""
        if before != membership:
            key = (view.room, user.network, user.id, position)
            writes.append(Put("membership_log", key, orjson.dumps([before, membership])))
    return writes


def visibility_writes(view: RoomView, change: ViewDelta, position: int) -> list[Put]:
    """The same for who may read the history."""
    if change.info is None or change.info.history_visibility == view.facts.history_visibility:
        return []
    body = orjson.dumps([view.facts.history_visibility, change.info.history_visibility])
    return [Put("visibility_log", (view.room, position), body)]


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
