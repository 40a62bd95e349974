"""Collections as SQLite tables: their SQL, and how they are made."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hansa.store.base import Collection, Key, Row, Value
from hansa.store.names import checked_names

_TYPES = {str: "TEXT", int: "INTEGER"}
#: Keys in one statement.
_MAX_KEYS = 256


@dataclass(frozen=True, slots=True)
class SqliteTable:
    """One collection as SQL. ``update`` takes fields and body, the key, and the body that must be there;
    ``remove`` the key, and that body or None for any.
    """

    collection: Collection
    name: str
    keys: tuple[str, ...]
    fields: tuple[str, ...]
    columns: str
    upsert: str
    insert: str
    update: str
    remove: str
    where: str

    def values(self, scope: str, key: Key, fields: Mapping[str, Value], body: bytes) -> tuple[object, ...]:
        """Returns the parameters of ``upsert`` and ``insert``."""
        return (scope, *key, *map(fields.get, self.fields), body)

    def row(self, got: Sequence[object]) -> Row:
        """A row out of ``columns``."""
        keys = len(self.keys)
        key: Key = tuple(got[:keys])  # type: ignore[arg-type]  # the columns' declared types
        fields: dict[str, Value] = dict(zip(self.fields, got[keys:-1], strict=True))  # type: ignore[arg-type]
        return Row(key=key, fields=fields, body=bytes(got[-1]))  # type: ignore[call-overload]


def table(owner: str, collection: Collection) -> SqliteTable:
    """The table of a collection. Raises StoreError for a name that is none."""
    keys = checked_names(owner, collection)
    fields = tuple(collection.fields)
    name = f"{owner}_{collection.name}"
    columns = ", ".join(f'"{c}"' for c in (*keys, *fields, "body"))
    marks = ", ".join("?" for _ in range(len(keys) + len(fields) + 2))
    where = " AND ".join(f'"{k}" = ?' for k in keys)
    keyed = f"scope = ? AND {where}"
    set_ = ", ".join(f'"{c}" = ?' for c in (*fields, "body"))
    into = f'INTO "{name}" (scope, {columns}) VALUES ({marks})'
    return SqliteTable(
        collection,
        name,
        keys,
        fields,
        columns,
        f"INSERT OR REPLACE {into}",
        f"INSERT {into}",
        f'UPDATE "{name}" SET {set_} WHERE {keyed} AND body = ?',
        f'DELETE FROM "{name}" WHERE {keyed} AND body = ifnull(?, body)',
        keyed,
    )


def reads(table: SqliteTable, scope: str, keys: Sequence[Key]) -> Iterator[tuple[str, Sequence[object]]]:
    """Statements that read these keys, each with its values.

    Keys that differ in their last part alone are one list behind IN, which SQLite looks up one by one in the
    primary key. Whole keys joined by OR it takes for a reason to read the table from end to end.
    """
    alike: dict[Key, list[Value]] = {}
    for key in keys:
        alike.setdefault(tuple(key[:-1]), []).append(key[-1])
    for first, lasts in alike.items():
        for at in range(0, len(lasts), _MAX_KEYS):
            part = lasts[at : at + _MAX_KEYS]
            # A power of two, so that a connection's prepared statements are few and used again.
            count = 1 << (len(part) - 1).bit_length()
            part += part[:1] * (count - len(part))
            each = "".join(f' AND "{name}" = ?' for name in table.keys[:-1])
            marks = ", ".join("?" * count)
            where = f'scope = ?{each} AND "{table.keys[-1]}" IN ({marks})'
            yield f'SELECT {table.columns} FROM "{table.name}" WHERE {where}', (scope, *first, *part)


def make(db: sqlite3.Connection, tables: Sequence[SqliteTable]) -> None:
    """Create what is missing: tables, columns of fields that came later, indexes. An index that is declared
    no more is dropped: each costs every commit a page.
    """
    for one in tables:
        collection = one.collection
        keys = {"position": int} if collection.stream else collection.key
        parts = [f'"{k}" {_TYPES[t]} NOT NULL' for k, t in keys.items()]
        parts += [f'"{f}" {_TYPES[t]}' for f, t in collection.fields.items()]
        primary = ", ".join(["scope", *(f'"{k}"' for k in one.keys)])
        db.execute(
            f'CREATE TABLE IF NOT EXISTS "{one.name}" (scope TEXT NOT NULL, {", ".join(parts)}, '
            f"body BLOB NOT NULL, PRIMARY KEY ({primary})){'' if collection.heap else ' WITHOUT ROWID'}"
        )
        present = {row[1] for row in db.execute(f'PRAGMA table_info("{one.name}")')}
        for name, type_ in collection.fields.items():
            if name not in present:
                db.execute(f'ALTER TABLE "{one.name}" ADD COLUMN "{name}" {_TYPES[type_]}')
        for named, index in _declared_indexes(one).items():
            columns = ", ".join(["scope", *(f'"{c}"' for c in index)])
            db.execute(f'CREATE INDEX IF NOT EXISTS "{named}" ON "{one.name}" ({columns})')
        for name in surplus(db, [one]):
            db.execute(f'DROP INDEX "{name}"')


def _declared_indexes(one: SqliteTable) -> dict[str, tuple[str, ...]]:
    """Those that are declared, by name; what the key serves needs none."""
    return {
        f"{one.name}_by_{'_'.join(index)}": index
        for index in one.collection.indexes
        if index != one.keys[: len(index)]
    }


def surplus(db: sqlite3.Connection, tables: Sequence[SqliteTable]) -> list[str]:
    """Indexes that were made for these tables and are declared no more."""
    found = list[str]()
    for one in tables:
        made = [str(row[1]) for row in db.execute(f'PRAGMA index_list("{one.name}")') if row[3] == "c"]
        declared = _declared_indexes(one)
        found += [name for name in made if name.startswith(f"{one.name}_by_") and name not in declared]
    return found
