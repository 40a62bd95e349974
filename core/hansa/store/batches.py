"""Batches that wait for a database elsewhere: weighed, gathered into groups, and answered."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from hansa.store.base import Append, Collection, StoreError, Write
from hansa.store.bounds import bounded
from hansa.store.memory import checked

#: A group ends at so many batches, writes or bytes of bodies; a larger batch is a group of its own.
_BATCHES, _WRITES, _BYTES = 64, 1000, 16 * 1024 * 1024


class Step(Protocol):
    """One write, and the collection that it goes to."""

    @property
    def write(self) -> Write:
        """The write of the step."""
        ...

    @property
    def collection(self) -> Collection:
        """Where."""
        ...


S = TypeVar("S", bound=Step)


@dataclass(slots=True, eq=False)
class Batch(Generic[S]):
    """Writes that are committed whole or not at all. ``size`` is the bytes of its bodies; ``lazy``: a crash
    within a second may lose it.
    """

    steps: Sequence[S]
    done: asyncio.Future[list[int]]
    lazy: bool = False
    size: int = 0
    appends: int = 0
    positions: list[int] = field(default_factory=list)


def batch_of(
    steps: Sequence[S], done: asyncio.Future[list[int]], *, lazy: bool = False, whole: bool = False
) -> Batch[S]:
    """A batch, weighed; ``whole``: by the bounds of ``Whole``. Raises StoreError, TooLarge for what no store
    may take.
    """
    batch = Batch(steps, done, lazy)
    for step in steps:
        batch.size += checked(step.collection, step.write)
        batch.appends += isinstance(step.write, Append)
    bounded(len(steps), batch.size, whole=whole)
    return batch


def heartbeat(loop: asyncio.AbstractEventLoop) -> Batch[S]:
    """An empty batch, which keeps a lease. Nobody waits for what becomes of it."""
    done: asyncio.Future[list[int]] = loop.create_future()
    done.add_done_callback(lambda d: d.cancelled() or d.exception())
    return Batch((), done)


def next_group(waiting: deque[Batch[S]]) -> list[Batch[S]]:
    """Take the batches that one transaction holds."""
    group = [waiting.popleft()]
    writes, size = len(group[0].steps), group[0].size
    while waiting and len(group) < _BATCHES:
        writes += len(waiting[0].steps)
        size += waiting[0].size
        if writes > _WRITES or size > _BYTES:
            break
        group.append(waiting.popleft())
    return group


def place(group: Sequence[Batch[S]], last: int) -> None:
    """Give the appends of a group their positions, the last of which is ``last``."""
    at = last - sum(batch.appends for batch in group)
    for batch in group:
        batch.positions = list(range(at + 1, at + batch.appends + 1))
        at += batch.appends


def answer(group: Iterable[Batch[S]]) -> None:
    """Tells the waiting caller of each batch that it is kept."""
    for batch in group:
        if not batch.done.done():
            batch.done.set_result(batch.positions)


def fail(group: Iterable[Batch[S]], error: StoreError) -> None:
    """Tells the waiting caller of each batch that no part of it is kept, or the error that happened
    instead.
    """
    for batch in group:
        if not batch.done.done():
            batch.done.set_exception(error)
