"""Batches for PostgreSQL: what they write, as the function takes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hansa.store.base import Append, Collection, CompareAndSwap, Delete, Put, Remove, Write
from hansa.store.batches import Batch
from hansa.store.postgres_function import _WriteKind, code
from hansa.store.postgres_tables import PostgresTable, Values


@dataclass(frozen=True, slots=True)
class PostgresStep:
    """One write and where it goes."""

    table: PostgresTable
    scope: str
    write: Write

    @property
    def collection(self) -> Collection:
        """See ``batches.Step``."""
        return self.table.collection

    def into(self, values: Values) -> None:
        """Adds the step to the arguments of the writing function."""
        table, scope, write = self.table, self.scope, self.write
        if isinstance(write, Append):
            kind = _WriteKind.APPEND
            table.row_values(values, scope, (), write.fields, write.body)
        elif isinstance(write, Delete | Remove):
            kind = _WriteKind.DELETE if isinstance(write, Delete) else _WriteKind.REMOVE
            table.key_values(values, scope, write.key)
            if isinstance(write, Remove) and write.expect is not None:
                kind = _WriteKind.REMOVE_IF
                values.bodies.append(bytes(write.expect))
        else:
            kind = _WriteKind.PUT if isinstance(write, Put) else _WriteKind.INSERT
            table.row_values(values, scope, write.key, write.fields, write.body)
            if isinstance(write, CompareAndSwap) and write.expect is not None:
                kind = _WriteKind.CAS
                values.bodies.append(bytes(write.expect))
        values.codes.append(code(table, kind))


def values_of(group: Iterable[Batch[PostgresStep]]) -> Values:
    """Returns the arguments of the writing function for a group."""
    values = Values()
    for batch in group:
        for step in batch.steps:
            step.into(values)
    return values
