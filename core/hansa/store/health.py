"""The health of the database: noticed at every call, tested by a probe, reported to its listeners."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from hansa.environment import Clock
from hansa.store import catalogue
from hansa.store.base import MAX_BODY, Delete, Durability, Put, Remove, Schema, Store, Write
from hansa.store.faults import FaultKind, ResultUnknown, StoreFault, StoreLost
from hansa.store.wrapper import StoreWrapper

T = TypeVar("T")
_log = logging.getLogger("hansa.store")
#: Seconds that a probe may take before the database counts as away, and for which a write proves it well.
PROBE_TIMEOUT_S, _FRESH_S = 3.0, 1.0
#: Seconds of a commit above which the database is slow, until one takes half as long.
_SLOW_S = 2.0
#: Bytes that a probe writes at least where the disk was full: that there is space for a lease's row says
#: little.
_MIN_PROBE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Degraded:
    """The database fails since ``since`` (ms); ``text`` is for the operator alone."""

    kind: FaultKind
    text: str
    since: int


class StoreHealth:
    """The state of the store. A write that succeeds ends every fault but damage, which a restart ends:
    damaged rows stay although other rows can be written. The fault ``FULL`` ends
    when a write as large as the refused one, or a probe, succeeds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.monotonic = clock.monotonic
        self._last_write = -_FRESH_S
        self._refused_bytes = 0
        self.degraded: Degraded | None = None
        #: True while this process waits for the database of another.
        self.standby = False
        #: Since when (ms) its commits take long, 0 if they do not.
        self.slow_since = 0
        #: The fault after which this process has no store any more, and ends.
        self.ended: StoreFault | None = None
        self.faults: dict[FaultKind, int] = dict.fromkeys(FaultKind, 0)

    def record_fault(self, fault: StoreFault, size: int = 0) -> None:
        """A call failed that had ``size`` bytes to write."""
        self.faults[fault.kind] += 1
        self._refused_bytes = max(self._refused_bytes, size)
        now = self.degraded
        if self.ended is not None:
            return
        if isinstance(fault, StoreLost | ResultUnknown):
            self.ended = fault
        elif now is not None and (now.kind is fault.kind or now.kind is FaultKind.DAMAGED):
            if now.kind is fault.kind is FaultKind.AWAY:  # the driver knows more than the first probe
                self.degraded = replace(now, text=str(fault))
            return
        since = now.since if now is not None else self._clock.now()
        self.degraded = Degraded(kind=fault.kind, text=str(fault), since=since)
        _log.error("%s", fault)

    def record_write(self, size: int | None = None) -> None:
        """A write is durable, of ``size`` bytes, or as many as a probe writes."""
        self._last_write = self._clock.monotonic()
        if self.degraded is None or self.degraded.kind is FaultKind.DAMAGED or self.ended is not None:
            return
        if self.degraded.kind is FaultKind.FULL and size is not None and size < self._refused_bytes:
            return
        _log.warning("the database works again; it was %s", self.degraded.kind.value)
        self.degraded, self._refused_bytes = None, 0

    def record_commit_time(self, seconds: float) -> None:
        """A commit took ``seconds``. Slow is a state and not a fault."""
        if seconds > _SLOW_S and not self.slow_since:
            self.slow_since = self._clock.now()
            _log.warning("the database is slow: a commit took %.1f s", seconds)
        elif seconds < _SLOW_S / 2 and self.slow_since:
            self.slow_since = 0
            _log.warning("the database is no longer slow")

    def begin_standby(self) -> None:
        """Record that another process has the database, and that this one waits for it."""
        self.standby = True

    def end_standby(self) -> None:
        """Record that this process has the database."""
        self.standby = False

    @property
    def bytes_to_probe(self) -> int:
        """Bytes that a disk has to take before it is no longer full; 0 where it is not full."""
        if self.degraded is None or self.degraded.kind is not FaultKind.FULL:
            return 0
        return min(max(self._refused_bytes, _MIN_PROBE_BYTES), MAX_BODY)

    @property
    def state(self) -> str:
        """``up``, ``slow``, or the kind of its fault; ``standby`` while another process has it."""
        if self.standby:
            return "standby"
        if self.degraded is not None:
            return self.degraded.kind.value
        return "slow" if self.slow_since else "up"

    def is_away(self) -> bool:
        """True if a caller of the database may have to wait for long."""
        return self.degraded is not None and self.degraded.kind in {FaultKind.AWAY, FaultKind.FAILING}

    @property
    def is_fresh(self) -> bool:
        """True if a write succeeded a moment ago."""
        return self.degraded is None and self._clock.monotonic() - self._last_write < _FRESH_S


def _ignore(_fault: StoreFault) -> None:
    """Nobody listens."""


class WatchedStore(StoreWrapper):
    """See ``hansa.store.base.Store``: another store, whose faults and successes become ``health``. The fault
    that ends its use is given to ``on_lost``, once, before anything else happens in this process.

    After ``StoreLost`` and ``ResultUnknown`` it neither reads nor writes, whatever is asked of it: what the
    process has in memory may be other than what is kept, until the process ends.
    """

    def __init__(
        self, store: Store, health: StoreHealth, on_lost: Callable[[StoreFault], object] = _ignore
    ) -> None:
        super().__init__(store)
        self.health = health
        self._probing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._on_lost = on_lost

    async def _call_store(self, call: Callable[[], Awaitable[T]]) -> T:
        self._in_use()
        try:
            return await call()
        except StoreFault as fault:
            self._record_fault(fault)
            raise

    def _in_use(self) -> None:
        ended = self.health.ended
        if isinstance(ended, StoreLost):
            raise StoreLost
        if ended is not None:
            raise ResultUnknown("it was not known whether a batch was kept, therefore this process ends")

    def _record_fault(self, fault: StoreFault, size: int = 0) -> None:
        self.health.record_fault(fault, size)
        ended = self.health.ended
        if ended is not None and not self._over.is_set():
            self._over.set()
            self._on_lost(ended)

    async def lost(self) -> StoreFault:
        """Wait for the fault after which this process has no store any more: ``StoreLost``, or
        ``ResultUnknown`` of a store that cannot find out.
        """
        await self._over.wait()
        assert self.health.ended is not None
        return self.health.ended

    async def open(self) -> None:
        """See ``Store.open``; once it is open, nothing."""
        if self._watching is not None:
            return
        await self._call_store(self.inner.open)
        try:
            await self._call_store(partial(self.inner.declare, "", catalogue.SCHEMA))
        except BaseException:
            await self.inner.close()
            raise
        self._watching = asyncio.get_running_loop().create_task(self._watch_lost())

    async def _watch_lost(self) -> None:
        fault = await self.inner.lost()
        self._record_fault(fault if isinstance(fault, StoreFault) else StoreLost(str(fault)))

    async def close(self) -> None:
        """See ``Store.close``."""
        watching = [task for task in (self._probing, self._watching) if task is not None]
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        await self.inner.close()

    async def declare(self, scope: str, schema: Schema) -> None:
        """See ``Store.declare``."""
        await super().declare(scope, schema)
        await self._call_store(partial(catalogue.record, self.inner, scope, schema))

    async def commit(
        self, scope: str, writes: Sequence[Write], *, durability: Durability = "full"
    ) -> list[int]:
        """See ``Store.commit``."""
        if self.health.ended is not None:
            self._in_use()
        began = self.health.monotonic()
        try:
            found = await self.inner.commit(scope, writes, durability=durability)
        except StoreFault as fault:
            self._record_fault(fault, _body_bytes(writes))
            raise
        self.health.record_commit_time(self.health.monotonic() - began)
        self.health.record_write(_body_bytes(writes) if self.health.degraded is not None else 0)
        return found

    async def probe(self) -> None:
        """See ``Store.probe``. Where the disk is full the probe writes as many bytes as were refused."""
        size = self.health.bytes_to_probe
        await super().probe()
        if size:
            await self._call_store(partial(self.inner.commit, "", _probe_writes(size)))
        if size or not self.health.bytes_to_probe:
            self.health.record_write()

    async def check(self) -> Degraded | None:
        """How the store is now: the result of a fresh probe, unless something was written a moment ago. Never
        raises, and takes at most ``PROBE_TIMEOUT_S`` seconds.
        """
        if not self.health.is_fresh:
            if self._probing is None or self._probing.done():
                self._probing = asyncio.get_running_loop().create_task(self._run_probe())
            done, _ = await asyncio.wait({self._probing}, timeout=PROBE_TIMEOUT_S)
            if not done:
                text = f"it has not answered for {PROBE_TIMEOUT_S:.0f} s"
                if self.health.degraded is None:
                    self._record_fault(StoreFault(FaultKind.AWAY, text))
        return self.health.degraded

    async def _run_probe(self) -> None:
        try:
            await self.probe()
        except StoreFault:
            pass  # it is noted
        except Exception as error:  # noqa: BLE001  # a probe that fails in whatever way says how the store is
            self._record_fault(StoreFault(FaultKind.FAILING, f"{type(error).__name__}: {error}"))


def _probe_writes(size: int) -> list[Write]:
    """A row that comes and goes in one transaction, of bytes that no database compresses."""
    key = ("", "probe")
    body = hashlib.shake_256(b"probe").digest(size)
    return [Put(catalogue.NAME, key, body), Delete(catalogue.NAME, key)]


def _body_bytes(writes: Sequence[Write]) -> int:
    """Bytes of bodies."""
    return sum(len(write.body) for write in writes if not isinstance(write, Delete | Remove))
