"""Collections as SQLite tables: their SQL, and how they are made."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hansa.store.base import Collection, Key, Row, StoreError, Value
from hansa.store.memory import key_names

_NAME = re.compile(r"[a-z][a-z_]*")
_TYPES = {str: "TEXT", int: "INTEGER"}


@dataclass(frozen=True, slots=True)
class Table:
    """One collection as SQL."""

    collection: Collection
    name: str
    keys: tuple[str, ...]
    fields: tuple[str, ...]
    columns: str
    upsert: str
    insert: str
    where: str

    def values(self, scope: str, key: Key, fields: Mapping[str, Value], body: bytes) -> tuple[object, ...]:
        """What ``upsert`` and ``insert`` take."""
        return (scope, *key, *map(fields.get, self.fields), body)

    def row(self, got: Sequence[object]) -> Row:
        """A row out of ``columns``."""
        keys = len(self.keys)
        key: Key = tuple(got[:keys])  # type: ignore[arg-type]  # the columns' declared types
        fields: dict[str, Value] = dict(zip(self.fields, got[keys:-1], strict=True))  # type: ignore[arg-type]
        return Row(key=key, fields=fields, body=bytes(got[-1]))  # type: ignore[call-overload]


def table(owner: str, collection: Collection) -> Table:
    """The table of a collection. Raises StoreError for a name that is none."""
    keys = key_names(collection)
    fields = tuple(collection.fields)
    for name in (owner, collection.name, *keys, *fields):
        if not _NAME.fullmatch(name):
            raise StoreError(f"{name!r} is no name for a collection or field: [a-z_]+")
    name = f"{owner}_{collection.name}"
    columns = ", ".join(f'"{c}"' for c in (*keys, *fields, "body"))
    marks = ", ".join("?" for _ in range(len(keys) + len(fields) + 2))
    where = " AND ".join(f'"{k}" = ?' for k in keys)
    into = f'INTO "{name}" (scope, {columns}) VALUES ({marks})'
    return Table(
        collection,
        name,
        keys,
        fields,
        columns,
        f"INSERT OR REPLACE {into}",
        f"INSERT {into}",
        f"scope = ? AND {where}",
    )


def make(db: sqlite3.Connection, tables: Sequence[Table]) -> None:
    """Create what is missing: tables, columns of fields that came later, indexes."""
    for one in tables:
        collection = one.collection
        keys = {"position": int} if collection.stream else collection.key
        parts = [f'"{k}" {_TYPES[t]} NOT NULL' for k, t in keys.items()]
        parts += [f'"{f}" {_TYPES[t]}' for f, t in collection.fields.items()]
        primary = ", ".join(["scope", *(f'"{k}"' for k in one.keys)])
        db.execute(
            f'CREATE TABLE IF NOT EXISTS "{one.name}" (scope TEXT NOT NULL, {", ".join(parts)}, '
            f"body BLOB NOT NULL, PRIMARY KEY ({primary})) WITHOUT ROWID"
        )
        present = {row[1] for row in db.execute(f'PRAGMA table_info("{one.name}")')}
        for name, type_ in collection.fields.items():
            if name not in present:
                db.execute(f'ALTER TABLE "{one.name}" ADD COLUMN "{name}" {_TYPES[type_]}')
        for index in collection.indexes:
            if index == one.keys[: len(index)]:
                continue
            named = f"{one.name}_by_{'_'.join(index)}"
            columns = ", ".join(["scope", *(f'"{c}"' for c in index)])
            db.execute(f'CREATE INDEX IF NOT EXISTS "{named}" ON "{one.name}" ({columns})')
