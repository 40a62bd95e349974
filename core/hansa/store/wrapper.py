"""A store around another one: every call goes through, and one place sees them all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from hansa.store.base import Durability, Key, Row, Schema, Store, StoreError, Value, Write

T = TypeVar("T")


class StoreWrapper:
    """See ``hansa.store.base.Store``: what is asked of it, ``inner`` is asked. A subclass overrides
    ``_call_store``, which makes every call but ``close`` and ``lost``, and what it does otherwise.
    """

    def __init__(self, store: Store) -> None:
        self.inner = store

    async def _call_store(self, call: Callable[[], Awaitable[T]]) -> T:
        return await call()

    async def open(self) -> None:
        """See ``Store.open``."""
        await self._call_store(self.inner.open)

    async def close(self) -> None:
        """See ``Store.close``."""
        await self.inner.close()

    async def declare(self, scope: str, schema: Schema) -> None:
        """See ``Store.declare``."""
        await self._call_store(partial(self.inner.declare, scope, schema))

    async def commit(
        self, scope: str, writes: Sequence[Write], *, durability: Durability = "full"
    ) -> list[int]:
        """See ``Store.commit``."""
        return await self._call_store(partial(self.inner.commit, scope, writes, durability=durability))

    async def get(self, scope: str, collection: str, key: Key) -> Row | None:
        """See ``Store.get``."""
        return await self._call_store(partial(self.inner.get, scope, collection, key))

    async def get_many(self, scope: str, collection: str, keys: Sequence[Key]) -> dict[Key, Row]:
        """See ``Store.get_many``."""
        return await self._call_store(partial(self.inner.get_many, scope, collection, keys))

    async def scan(
        self,
        scope: str,
        collection: str,
        *,
        index: tuple[str, ...] = (),
        equal: Sequence[Value] = (),
        after: Value = None,
        upto: Value = None,
        limit: int = 1000,
        reverse: bool = False,
    ) -> list[Row]:
        """See ``Store.scan``."""
        return await self._call_store(
            partial(
                self.inner.scan,
                scope,
                collection,
                index=index,
                equal=equal,
                after=after,
                upto=upto,
                limit=limit,
                reverse=reverse,
            )
        )

    async def count(self, scope: str, collection: str, *, equal: Mapping[str, Value] | None = None) -> int:
        """See ``Store.count``."""
        return await self._call_store(partial(self.inner.count, scope, collection, equal=equal))

    async def position(self) -> int:
        """See ``Store.position``."""
        return await self._call_store(self.inner.position)

    async def advance(self, position: int) -> None:
        """See ``Store.advance``."""
        await self._call_store(partial(self.inner.advance, position))

    async def probe(self) -> None:
        """See ``Store.probe``."""
        await self._call_store(self.inner.probe)

    async def lost(self) -> StoreError:
        """See ``Store.lost``."""
        return await self.inner.lost()
