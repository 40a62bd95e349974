"""A store that takes time, and that can lose power before or after any commit."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Mapping, Sequence

from hansa.store.base import Durability, Key, Row, Value, Write
from hansa.store.memory import MemoryDisk, MemoryStore
from hansa.testing.sim.seeded import SeededRandom
from hansa.testing.sim.trace import Trace

#: A read or a commit takes up to this long (s), and the caller hears of it up to as much later.
_SLOWEST = 0.002


class CrashableStore(MemoryStore):
    """A ``MemoryStore`` that stops in the middle of its process's life: what is asked of it after
    ``power_off`` is never answered, just as a dead process never sees its commit return.

    Commits are applied in the order of their calls, as one writer does; their callers are told in any
    order, and others read a batch before its own caller knows of it.

    ``fail_at(n, after=...)`` makes the n-th commit from now the last thing that happens: the batch is not on
    the disk (``after`` False), or it is and nobody was told (``after`` True).
    """

    def __init__(self, disk: MemoryDisk, trace: Trace, name: str, chance: SeededRandom) -> None:
        super().__init__(disk)
        self.died: Callable[[], None] = lambda: None
        self._trace = trace
        self._name = name
        self._chance = chance
        self._writer = asyncio.Lock()
        self._dead = False
        self._left = 0
        self._after = False

    def fail_at(self, commits: int, *, after: bool) -> None:
        """Lose power at the ``commits``-th commit from now (from 1)."""
        self._left, self._after = commits, after

    def power_off(self) -> None:
        """From now on nothing is written and nothing returns."""
        self._dead = True

    async def commit(
        self, scope: str, writes: Sequence[Write], *, durability: Durability = "full"
    ) -> list[int]:
        """See ``Store.commit``."""
        async with self._writer:
            await self._wait_turn()
            last = self._left == 1
            self._left = max(0, self._left - 1)
            if last and not self._after:
                await self._crash_now("before", scope, writes)
            positions = await super().commit(scope, writes, durability=durability)
            shown = f"commit {scope or 'core'} {durability}: {_describe_writes(writes)}"
            self._trace.note(self._name, shown, repr(writes).encode())
            if last:
                await self._crash_now("after", scope, writes)
        await self._wait_turn()
        return positions

    async def get(self, scope: str, collection: str, key: Key) -> Row | None:
        """See ``Store.get``."""
        await self._wait_turn()
        return await super().get(scope, collection, key)

    async def get_many(self, scope: str, collection: str, keys: Sequence[Key]) -> dict[Key, Row]:
        """See ``Store.get_many``."""
        await self._wait_turn()
        return await super().get_many(scope, collection, keys)

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
        await self._wait_turn()
        found = await super().scan(
            scope, collection, index=index, equal=equal, after=after, upto=upto, limit=limit, reverse=reverse
        )
        await self._wait_turn()
        return found

    async def count(self, scope: str, collection: str, *, equal: Mapping[str, Value] | None = None) -> int:
        """See ``Store.count``."""
        await self._wait_turn()
        return await super().count(scope, collection, equal=equal)

    async def position(self) -> int:
        """See ``Store.position``."""
        await self._wait_turn()
        return await super().position()

    async def _wait_turn(self) -> None:
        await asyncio.sleep(self._chance.between(0.0, _SLOWEST))
        await self._require_alive()

    async def _crash_now(self, when: str, scope: str, writes: Sequence[Write]) -> None:
        self._dead = True
        self._trace.note(
            self._name, f"power fails {when} commit {scope or 'core'}: {_describe_writes(writes)}"
        )
        self.died()
        await self._require_alive()

    async def _require_alive(self) -> None:
        if self._dead:
            never: Future[None] = asyncio.get_running_loop().create_future()
            await never


def _describe_writes(writes: Sequence[Write]) -> str:
    names: dict[str, int] = {}
    for write in writes:
        name = f"{type(write).__name__} {write.collection}"
        names[name] = names.get(name, 0) + 1
    return ", ".join(f"{count} {name}" for name, count in names.items())
