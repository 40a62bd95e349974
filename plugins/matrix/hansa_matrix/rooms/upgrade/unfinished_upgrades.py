"""Unfinished upgrades: their stored state, so that each is finished after a crash."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from hansa import Delete, Insert, Row, ScopedStore, scan_all


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedUpgrade:
    """The room ``old`` is to be replaced by ``new``: by ours, or, if it is ``followed``, as another server
    says.
    """

    old: str
    new: str
    followed: bool = False

    def begin(self) -> Insert:
        """The write that begins it; a ``Conflict`` if the room is being replaced already."""
        body = {"new": self.new, "followed": self.followed}
        return Insert("upgrade", (self.old,), orjson.dumps(body))

    def end(self) -> Delete:
        """The write that says that it is done, or undone."""
        return Delete("upgrade", (self.old,))


def _upgrade_from_row(row: Row) -> UnfinishedUpgrade:
    return UnfinishedUpgrade(old=str(row.key[0]), **orjson.loads(row.body))


async def unfinished_of(store: ScopedStore, room_id: str) -> UnfinishedUpgrade | None:
    """Returns the unfinished upgrade of one room."""
    row = await store.get("upgrade", (room_id,))
    return _upgrade_from_row(row) if row is not None else None


async def replacement_rooms(store: ScopedStore) -> frozenset[str]:
    """The rooms that take the place of another and have no link of their own meanwhile."""
    return frozenset(one.new for one in await all_unfinished(store))


async def all_unfinished(store: ScopedStore) -> list[UnfinishedUpgrade]:
    """Everything that was begun."""
    return [_upgrade_from_row(row) async for row in scan_all(store, "upgrade")]
