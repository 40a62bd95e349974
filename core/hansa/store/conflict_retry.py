"""Read, change, commit: repeated if another writer came between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from hansa.store.base import CompareAndSwap, Conflict, Key, Remove, Row, ScopedStore, Value, Write

T = TypeVar("T")

#: Times that a change is tried while others change the same.
TRIES = 8


async def again_on_conflict(
    turn: Callable[[], Awaitable[T]], *, collections: Container[str] | None = None
) -> T:
    """The result of ``turn``, which reads, decides and commits what it decided with ``Insert``,
    ``CompareAndSwap`` or ``Remove``. It is called again, from its reads, where that is a ``Conflict`` (of one
    of ``collections``, if they are given), ``TRIES`` times in all; the last one is raised.
    """
    for _ in range(TRIES - 1):
        try:
            return await turn()
        except Conflict as lost:
            if collections is not None and lost.collection not in collections:
                raise
    return await turn()


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The new value of a row: its body (None: the row is removed), its fields, and the writes that are
    committed with it.
    """

    body: bytes | None
    fields: Mapping[str, Value] = field(default_factory=dict)
    beside: tuple[Write, ...] = ()


async def change_row(
    store: ScopedStore, collection: str, key: Key, change: Callable[[Row | None], Changed | None]
) -> Row | None:
    """Replaces a row by the result of ``change`` on its present value (None: it does not exist), whatever
    else changes it at the same time. ``change`` is called again for each race that was lost; None from it
    leaves the row as it is. Returns the row that the decision was made by. Raises ``Conflict`` after
    ``TRIES``.
    """

    async def turn() -> Row | None:
        row = await store.get(collection, key)
        made = change(row)
        if made is None:
            return row
        before = row.body if row is not None else None
        if made.body is not None:
            write: tuple[Write, ...] = (CompareAndSwap(collection, key, before, made.body, made.fields),)
        else:
            write = (Remove(collection, key, before),) if row is not None else ()
        await store.commit([*write, *made.beside])
        return row

    return await again_on_conflict(turn)
