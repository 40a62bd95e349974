"""Every row of a collection, page by page, whatever the store."""

from __future__ import annotations

from collections.abc import AsyncIterator

from hansa.store.base import Collection, Key, Row, Store
from hansa.store.memory import key_names

#: Rows of a page: with bodies of ``MAX_BODY`` each, a page is a hundred MiB.
PAGE = 100


async def every_page(
    store: Store, scope: str, collection: Collection, after: Key = (), limit: int = PAGE
) -> AsyncIterator[list[Row]]:
    """The rows in the order of their keys, beginning behind the key ``after``, in pages of at most ``limit``.

    A row that is written while the pages are read is among them if its key comes later.
    """
    parts = len(key_names(collection))
    key = after
    while True:
        page: list[Row] = []
        # What shares most parts of the key comes first.
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
