"""Checks that the rows of a database are consistent. Every row is read once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hansa.bus import schema as tables
from hansa.model.commands import counted
from hansa.store import catalogue
from hansa.store.base import Collection, Indexed, Store, StoreError
from hansa.store.paging import every_page

#: Told after each page: ``(rows until now, rows in all)``.
Told = Callable[[int, int], None]


@dataclass(slots=True)
class Findings:
    """The result of a check: the rows read, the bytes of their bodies, and one sentence for each fault."""

    rows: int = 0
    size: int = 0
    wrong: list[str] = field(default_factory=list)
    #: The faults that were found and repaired.
    notes: list[str] = field(default_factory=list)


async def check_rows(store: Store, told: Told) -> Findings:
    """Read every row of an open store. Faults are collected and not raised. Raises StoreError where the store
    fails, or has no catalogue.
    """
    found = Findings()
    await catalogue.check_whole(store)
    schemas = await catalogue.recorded(store)
    if not any(schema.owner == "core" for _, schema in schemas):
        raise StoreError("the database has no catalogue: start this Hansa on it once, and stop it")
    total = 0
    for scope, schema in schemas:
        if isinstance(store, Indexed):
            for name in await store.undeclared(scope, schema):
                found.notes.append(
                    f"index {name} is not declared any more: it cost every write, and is dropped"
                )
        await store.declare(scope, schema)
        for collection in schema.collections:
            total += await store.count(scope, collection.name)
    for scope, schema in schemas:
        for collection in schema.collections:
            await _check_collection(store, scope, collection, found, lambda: told(found.rows, total))
    await _check_logs(store, found)
    return found


async def _check_collection(
    store: Store, scope: str, collection: Collection, found: Findings, told: Callable[[], None]
) -> None:
    position = await store.position()
    async for page in every_page(store, scope, collection):
        found.rows += len(page)
        found.size += sum(len(row.body) for row in page)
        told()
        if collection.stream and page[-1].position > position:
            found.wrong.append(
                f"{scope or 'core'}/{collection.name} has a row at position {page[-1].position}, "
                f"and the store ends at {position}"
            )
            return


async def _check_logs(store: Store, found: Findings) -> None:
    """Every room's log has each number from 1 to its end."""
    rooms = next(one for one in tables.SCHEMA.collections if one.name == "room")
    async for page in every_page(store, "", rooms):
        for row in page:
            _, head, *_ = tables.room_of(row)
            count = await store.count("", "event", equal={"room": str(row.key[0])})
            if count != head:
                found.wrong.append(
                    f"the log of room {row.key[0]} ends at {head} and has {counted(count, 'event')}"
                )
