"""All rows of a search, however many: a page at a time, so that memory holds one page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from hansa.store.base import Collection, Key, Row, ScopedStore, Store, StoreError, Value
from hansa.store.memory import key_names

#: Rows of a page, and of the largest answer of a store.
PAGE_SIZE, MAX_EQUAL_ROWS = 1000, 10_000


@dataclass(frozen=True, slots=True)
class _Search:
    """The arguments of a search: see ``Store.scan``."""

    store: ScopedStore
    collection: str
    index: tuple[str, ...]
    equal: tuple[Value, ...]
    reverse: bool

    async def scan(self, *, after: Value = None, upto: Value = None, limit: int) -> list[Row]:
        return await self.store.scan(
            self.collection,
            index=self.index,
            equal=self.equal,
            after=after,
            upto=upto,
            limit=limit,
            reverse=self.reverse,
        )


def pages(
    store: ScopedStore,
    collection: str,
    *,
    index: tuple[str, ...] = (),
    equal: Sequence[Value] = (),
    after: Value = None,
    upto: Value = None,
    reverse: bool = False,
    size: int = PAGE_SIZE,
) -> AsyncIterator[list[Row]]:
    """Every row that ``scan`` would give without a limit, in its order, about ``size`` at a time: a page is
    done with before the next is read. Rows that others add or remove meanwhile may be missing or not; those
    that stay come once.

    The field behind ``equal`` is a declared one, a stream's position, or in the order of the key any part of
    it; no row lacks it. Raises StoreError where that does not hold, and where 10,000 rows are equal in the
    whole index, which nothing tells apart.
    """
    return _iterate_pages(_Search(store, collection, index, tuple(equal), reverse), after, upto, size)


async def first_page(
    store: ScopedStore,
    collection: str,
    *,
    index: tuple[str, ...] = (),
    equal: Sequence[Value] = (),
    after: Value = None,
    upto: Value = None,
    reverse: bool = False,
    size: int = PAGE_SIZE,
) -> list[Row]:
    """The first of ``pages``: of each value in the field behind ``equal`` it has all rows or none."""
    found = _iterate_pages(_Search(store, collection, index, tuple(equal), reverse), after, upto, size)
    async with aclosing(found):
        async for page in found:
            return page
    return []


async def scan_all(
    store: ScopedStore,
    collection: str,
    *,
    index: tuple[str, ...] = (),
    equal: Sequence[Value] = (),
    after: Value = None,
    upto: Value = None,
    reverse: bool = False,
) -> AsyncIterator[Row]:
    """As ``pages``, row by row."""
    search = _Search(store, collection, index, tuple(equal), reverse)
    async for page in _iterate_pages(search, after, upto, PAGE_SIZE):
        for row in page:
            yield row


async def every_page(
    store: Store, scope: str, collection: Collection, after: Key = (), limit: int = 100
) -> AsyncIterator[list[Row]]:
    """The rows of a whole collection in the order of their keys, beginning behind the key ``after``, in pages
    of at most ``limit``: 100 rows of ``MAX_BODY`` are a hundred MiB. A row that is written while the pages
    are read is among them if its key comes later.
    """
    parts = len(key_names(collection))
    key = after
    while True:
        page: list[Row] = []
        # The rows that share the most parts of the key come first.
        for shared in reversed(range(parts)) if key else (0,):
            page = await store.scan(
                scope,
                collection.name,
                equal=key[:shared],
                after=key[shared] if key else None,
                limit=limit,
            )
            if page:
                break
        if not page:
            return
        yield page
        key = page[-1].key


async def _iterate_pages(
    search: _Search, after: Value, upto: Value, size: int
) -> AsyncGenerator[list[Row], None]:
    if search.index and len(search.equal) >= len(search.index):
        rows = await search.scan(limit=MAX_EQUAL_ROWS)
        if len(rows) == MAX_EQUAL_ROWS:
            raise StoreError(
                f"{MAX_EQUAL_ROWS} rows of {search.collection} are equal in {', '.join(search.index)}"
            )
        if rows:
            yield rows
        return
    while True:
        rows = await search.scan(after=after, upto=upto, limit=size)
        if len(rows) < size:
            if rows:
                yield rows
            return
        if not search.index and len(search.equal) >= len(rows[-1].key):  # there is one row of a key
            yield rows
            return
        last = _next_value(search, rows[-1])
        whole = [row for row in rows if _next_value(search, row) != last]
        if whole:  # rows equal to the last one may go on behind the page
            yield whole
            after = _next_value(search, whole[-1])
            continue
        alike = replace(search, equal=(*search.equal, last))
        async for page in _iterate_pages(alike, None, None, size):
            yield page
        if last is None:
            return
        after = last


def _next_value(search: _Search, row: Row) -> Value:
    """Returns the value of a row in the field behind ``equal``."""
    at = len(search.equal)
    if not search.index:
        return row.key[at]
    name, value = search.index[at], None
    if name in row.fields:
        value = row.fields[name]
    elif name == "position":
        value = row.position
    else:
        raise StoreError(f"{search.collection}: {name} is a part of the key, by which no index is paged")
    if value is None and not search.reverse:
        raise StoreError(f"{search.collection} has rows without {name}, which cannot be paged")
    return value
