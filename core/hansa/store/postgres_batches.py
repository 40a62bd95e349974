"""Batches for PostgreSQL: what they write, as the function takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hansa.store.base import Append, Cas, Delete, Put, Remove, StoreError, Write
from hansa.store.memory import checked
from hansa.store.postgres_function import Kind, code
from hansa.store.postgres_tables import Table, Values


@dataclass(frozen=True, slots=True)
class Step:
    """One write and where it goes."""

    table: Table
    scope: str
    write: Write

    def into(self, values: Values) -> None:
        """What the function takes of it."""
        table, scope, write = self.table, self.scope, self.write
        if isinstance(write, Append):
            kind = Kind.APPEND
            table.row_values(values, scope, (), write.fields, write.body)
        elif isinstance(write, Delete | Remove):
            kind = Kind.DELETE if isinstance(write, Delete) else Kind.REMOVE
            table.key_values(values, scope, write.key)
            if isinstance(write, Remove) and write.expect is not None:
                kind = Kind.REMOVE_IF
                values.bodies.append(bytes(write.expect))
        else:
            kind = Kind.PUT if isinstance(write, Put) else Kind.INSERT
            table.row_values(values, scope, write.key, write.fields, write.body)
            if isinstance(write, Cas) and write.expect is not None:
                kind = Kind.CAS
                values.bodies.append(bytes(write.expect))
        values.codes.append(code(table, kind))


@dataclass(slots=True, eq=False)
class Batch:
    """What is written whole or not at all. ``size`` is the bytes of its bodies."""

    steps: Sequence[Step]
    done: asyncio.Future[list[int]]
    lazy: bool = False
    size: int = 0
    appends: int = 0
    positions: list[int] = field(default_factory=list)


def batch_of(steps: Sequence[Step], done: asyncio.Future[list[int]], *, lazy: bool = False) -> Batch:
    """A batch, weighed. Raises StoreError, TooLarge for what no store may take."""
    batch = Batch(steps, done, lazy)
    for step in steps:
        checked(step.table.collection, step.write)
        if not isinstance(step.write, Delete | Remove):
            batch.size += len(step.write.body)
        batch.appends += isinstance(step.write, Append)
    return batch


def values_of(group: Iterable[Batch]) -> Values:
    """What the function takes of a group."""
    values = Values()
    for batch in group:
        for step in batch.steps:
            step.into(values)
    return values


def place(group: Iterable[Batch], last: int) -> None:
    """Give the appends of a group their positions, the last of which is ``last``."""
    at = last - sum(batch.appends for batch in group)
    for batch in group:
        batch.positions = list(range(at + 1, at + batch.appends + 1))
        at += batch.appends


def fail(group: Iterable[Batch], error: StoreError) -> None:
    """Tell whoever waits for a batch."""
    for batch in group:
        if not batch.done.done():
            batch.done.set_exception(error)
