"""Batches for PostgreSQL: what they write, as the function takes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hansa.store.base import Append, Collection, CompareAndSwap, Delete, Put, Remove, Write
from hansa.store.batches import Batch
from hansa.store.postgres_function import Kind, code
from hansa.store.postgres_tables import Table, Values


@dataclass(frozen=True, slots=True)
class Step:
    """One write and where it goes."""

    table: Table
    scope: str
    write: Write

    @property
    def collection(self) -> Collection:
        """See ``batches.Step``."""
        return self.table.collection

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
            if isinstance(write, CompareAndSwap) and write.expect is not None:
                kind = Kind.CAS
                values.bodies.append(bytes(write.expect))
        values.codes.append(code(table, kind))


def values_of(group: Iterable[Batch[Step]]) -> Values:
    """What the function takes of a group."""
    values = Values()
    for batch in group:
        for step in batch.steps:
            step.into(values)
    return values
