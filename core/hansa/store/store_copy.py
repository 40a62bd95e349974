"""All rows of one store into another, of whatever kind: read back after they are written. A copy that was
broken off is compared from its first row, since its source may have changed or may be another, and goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hansa.store import catalogue
from hansa.store.base import Collection, Delete, Put, Row, Schema, Store, StoreError, Write
from hansa.store.paging import every_page

#: Bytes of bodies in one commit of a copy.
_BYTES = 8 * 1024 * 1024
_MARK = "mark"
#: That a copy is under way: in the store that is copied to, until it is whole.
_SCHEMA = Schema(
    owner=catalogue.COPY,
    version=1,
    collections=(Collection(name=_MARK, key={"holder": str, "collection": str}),),
)
#: ``(scope, collection)`` of the mark that stays until a copy is whole.
_WHOLE = ("", "")

#: Told after each page: ``(rows until now, rows in all)``.
Told = Callable[[int, int], None]


class NotTheSame(StoreError):
    """A row that was written reads otherwise: the copy is not to be used."""


@dataclass(frozen=True, slots=True)
class Copied:
    """The result of a copy. ``resumed``: it continued a copy that was interrupted."""

    rows: int
    collections: int
    position: int
    resumed: bool


async def copy_store(source: Store, target: Store, told: Told) -> Copied:
    """Copy everything. Both stores are open, and nobody else's. Raises StoreError where the target has rows
    of its own or the source has no catalogue, ``NotTheSame`` where a row reads otherwise.
    """
    await catalogue.check_whole(source)
    schemas = await catalogue.recorded(source)
    if not any(schema.owner == "core" for _, schema in schemas):
        raise StoreError("the database to copy has no catalogue: start this Hansa on it once, and stop it")
    resumed = await _begin_copy(target)
    copy = _Copy(source, target, told, resumed=resumed)
    every: list[tuple[str, Collection]] = []
    for scope, schema in schemas:
        await source.declare(scope, schema)
        await target.declare(scope, schema)
        every += [(scope, collection) for collection in schema.collections]
    for scope, collection in every:
        copy.total += await source.count(scope, collection.name)
    for scope, collection in every:
        await copy.collection(scope, collection)
    for scope, schema in schemas:
        await catalogue.record(target, scope, schema)
    position = await source.position()
    await target.advance(position)
    await _end_copy(target)
    return Copied(copy.done, len(every), position, resumed)


async def _begin_copy(target: Store) -> bool:
    """True if a copy is resumed. Raises StoreError if the target is not empty."""
    for own in (catalogue.SCHEMA, _SCHEMA):
        await target.declare("", own)
    if await target.get("", _MARK, _WHOLE) is not None:
        return True
    if await catalogue.recorded(target) or await target.position():
        raise StoreError("the database to copy to is not empty: name another, or remove it")
    await target.commit("", [Put(_MARK, _WHOLE), catalogue.row("", _SCHEMA)])
    return False


async def _end_copy(target: Store) -> None:
    marks = await target.scan("", _MARK, limit=10_000)
    noted = Delete(catalogue.NAME, ("", catalogue.COPY))
    await target.commit("", [noted, *(Delete(_MARK, mark.key) for mark in marks)])


class _Copy:
    """One copy under way. ``done`` of ``total`` rows are in the target."""

    def __init__(self, source: Store, target: Store, told: Told, *, resumed: bool) -> None:
        self._source = source
        self._target = target
        self._told = told
        self._resumed = resumed
        self.done = self.total = 0

    async def collection(self, scope: str, collection: Collection) -> None:
        """Copy one collection. Raises ``NotTheSame``."""
        copied, name = 0, f"{scope}/{collection.name}"
        async for page in every_page(self._source, scope, collection):
            for part in _split_page(page):
                rows = await self._missing_rows(scope, collection, part) if self._resumed else part
                if rows:
                    writes: list[Write] = [Put(name, row.key, row.body, row.fields) for row in rows]
                    await self._target.commit("", writes)
                    await self._compare_rows(scope, collection, rows)
                copied += len(part)
                self.done += len(part)
                if rows:
                    self._told(self.done, self.total)
        if self._resumed:
            await self._prune_collection(scope, collection)
        if await self._target.count(scope, collection.name) != copied:
            raise NotTheSame(f"{scope or 'core'}/{collection.name} has another number of rows in the copy")

    async def _missing_rows(self, scope: str, collection: Collection, rows: list[Row]) -> list[Row]:
        """The rows that the target has otherwise, or not at all."""
        found = await self._target.get_many(scope, collection.name, [row.key for row in rows])
        return [row for row in rows if found.get(row.key) != row]

    async def _prune_collection(self, scope: str, collection: Collection) -> None:
        """Remove what the source has no more."""
        name = f"{scope}/{collection.name}"
        async for page in every_page(self._target, scope, collection):
            kept = await self._source.get_many(scope, collection.name, [row.key for row in page])
            gone = [Delete(name, row.key) for row in page if row.key not in kept]
            if gone:
                await self._target.commit("", gone)

    async def _compare_rows(self, scope: str, collection: Collection, rows: list[Row]) -> None:
        found = await self._target.get_many(scope, collection.name, [row.key for row in rows])
        for row in rows:
            if found.get(row.key) != row:
                where = f"row {row.key!r} of {scope or 'core'}/{collection.name}"
                raise NotTheSame(f"{where} reads otherwise in the copy")


def _split_page(page: list[Row]) -> list[list[Row]]:
    """A page in parts of few bytes each."""
    parts: list[list[Row]] = [[]]
    size = 0
    for row in page:
        if size + len(row.body) > _BYTES and parts[-1]:
            parts.append([])
            size = 0
        parts[-1].append(row)
        size += len(row.body)
    return parts
