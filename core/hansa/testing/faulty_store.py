"""A store between Hansa and another one, which answers what real databases answer at bad moments."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import TypeVar

from hansa.store.base import Durability, Key, Row, Store, StoreError, Write
from hansa.store.faults import FaultKind, ResultUnknown, StoreFault, StoreLost
from hansa.store.wrapper import StoreWrapper

T = TypeVar("T")


class InjectedFault(StrEnum):
    """The fate of one commit."""

    #: It is kept, and what it answered is lost for good: the process has to end.
    UNKNOWN_KEPT = "unknown, kept"
    #: It is not kept, and nobody can say so.
    UNKNOWN_NOT_KEPT = "unknown, not kept"
    #: Nothing of it was begun.
    AWAY = "away"
    #: It is kept and acknowledged, but only when the database is back.
    LATE = "told late"
    #: It is kept only when the database is back, and then acknowledged: until then reads know nothing of it.
    HELD = "kept late"
    #: Another process has the database.
    LOST = "lost"


class FaultyStore(StoreWrapper):
    """See ``hansa.store.base.Store``. ``choose`` is asked at every commit what becomes of it, None for what
    should; ``away`` makes everything fail that is begun; ``stale`` is asked at every ``get`` whether it gives
    the row from before the last commit that changed it.
    """

    def __init__(
        self,
        store: Store,
        choose: Callable[[Sequence[Write]], InjectedFault | None] = lambda _: None,
        stale: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(store)
        self.inner = store
        self.choose = choose
        self.stale = stale
        self.away = False
        #: Set while commits that are ``LATE`` or ``HELD`` get their answer.
        self.back = asyncio.Event()
        self.back.set()
        #: Faults that were met, in order.
        self.met: list[InjectedFault] = []
        self._before: dict[tuple[str, str, Key], Row | None] = {}
        self._lost = asyncio.Event()

    async def _call_store(self, call: Callable[[], Awaitable[T]]) -> T:
        self._begin_call()
        return await call()

    async def commit(
        self, scope: str, writes: Sequence[Write], *, durability: Durability = "full"
    ) -> list[int]:
        """See ``Store.commit``."""
        self._begin_call()
        fault = self.choose(writes)
        if fault is not None:
            self.met.append(fault)
        match fault:
            case InjectedFault.AWAY:
                raise StoreFault(FaultKind.AWAY, "nothing was begun")
            case InjectedFault.LOST:
                self._lost.set()
                raise StoreLost
            case InjectedFault.UNKNOWN_NOT_KEPT:
                raise ResultUnknown("the answer was lost")
        if fault is InjectedFault.HELD:
            await self.back.wait()
        found = await self._commit_and_remember(scope, writes, durability)
        if fault is InjectedFault.UNKNOWN_KEPT:
            raise ResultUnknown("the answer was lost")
        if fault is InjectedFault.LATE:
            await self.back.wait()
        return found

    async def _commit_and_remember(
        self, scope: str, writes: Sequence[Write], durability: Durability
    ) -> list[int]:
        await self._remember_old(scope, writes)
        return await self.inner.commit(scope, writes, durability=durability)

    def _begin_call(self) -> None:
        if self._lost.is_set():
            raise StoreLost
        if self.away:
            raise StoreFault(FaultKind.AWAY, "nothing was begun")

    async def _remember_old(self, scope: str, writes: Sequence[Write]) -> None:
        for write in writes:
            key = getattr(write, "key", None)
            if key is not None and "/" not in write.collection:
                row = await self.inner.get(scope, write.collection, key)
                self._before[scope, write.collection, key] = row

    async def get(self, scope: str, collection: str, key: Key) -> Row | None:
        """See ``Store.get``."""
        self._begin_call()
        if (scope, collection, key) in self._before and self.stale():
            return self._before[scope, collection, key]
        return await super().get(scope, collection, key)

    async def lost(self) -> StoreError:
        """See ``Store.lost``."""
        await self._lost.wait()
        return StoreLost()
