"""The catalogue of a database, kept in the database itself: the owner and version of each declared
collection.

A database can be checked and copied without the plugins that wrote it, and the rows of a network that was
removed from the configuration are not forgotten.
"""

from __future__ import annotations

from typing import Any

import orjson

from hansa.store.base import Collection, Put, Row, Schema, Store, StoreError

_TYPES: dict[str, type[str | int]] = {"str": str, "int": int}
NAME = "catalogue"
#: ``holder`` is the scope.
SCHEMA = Schema(
    owner="store",
    version=1,
    collections=(Collection(name=NAME, key={"holder": str, "owner": str}),),
)


#: The owner of what a copy notes in the store that it copies to, until it is whole.
COPY = "copy"


async def check_whole(store: Store) -> None:
    """Raises StoreError for a database that a copy was broken off in: it lacks rows."""
    await store.declare("", SCHEMA)
    if await store.get("", NAME, ("", COPY)) is not None:
        text = "this database is half a copy: call `hansa store copy` again with the same FROM and TO"
        raise StoreError(text)


def row(scope: str, schema: Schema) -> Put:
    """Returns the row that records a schema."""
    return Put(NAME, (scope, schema.owner), _schema_to_json(schema))


async def record(store: Store, scope: str, schema: Schema) -> None:
    """Note what was declared, unless it is noted already. The catalogue is not in itself."""
    if schema.owner == SCHEMA.owner:
        return
    key = (scope, schema.owner)
    body = _schema_to_json(schema)
    kept = await store.get("", NAME, key)
    if kept is None or kept.body != body:
        await store.commit("", [Put(NAME, key, body)])


async def recorded(store: Store) -> list[tuple[str, Schema]]:
    """Returns ``(scope, schema)`` of all schemas that were ever declared, in the order of the scopes; the
    schemas have no migrations. Raises StoreError for a row that is not a schema.
    """
    await store.declare("", SCHEMA)
    rows = await store.scan("", NAME, limit=10_000)
    return [(str(row.key[0]), _schema_from_row(row)) for row in rows]


def _schema_to_json(schema: Schema) -> bytes:
    return orjson.dumps(
        {
            "version": schema.version,
            "collections": [
                {
                    "name": one.name,
                    "key": {name: kind.__name__ for name, kind in one.key.items()},
                    "fields": {name: kind.__name__ for name, kind in one.fields.items()},
                    "indexes": [list(index) for index in one.indexes],
                    "stream": one.stream,
                    "heap": one.heap,
                }
                for one in schema.collections
            ],
        }
    )


def _schema_from_row(row: Row) -> Schema:
    try:
        return _parse_schema(row)
    except (ValueError, TypeError, KeyError, AttributeError):
        text = f"the catalogue says nothing that can be read of {row.key[1]!r} in {row.key[0] or 'core'!r}"
        raise StoreError(
            f"{text}: its row was changed or damaged; start Hansa on it, which writes it again"
        ) from None


def _parse_schema(row: Row) -> Schema:
    """Reads a row. Raises ValueError, TypeError, KeyError, AttributeError if it is not a schema."""
    data: dict[str, Any] = orjson.loads(row.body)
    collections = tuple(
        Collection(
            name=one["name"],
            key={name: _TYPES[kind] for name, kind in one["key"].items()},
            fields={name: _TYPES[kind] for name, kind in one["fields"].items()},
            indexes=tuple(tuple(index) for index in one["indexes"]),
            stream=one["stream"],
            heap=one["heap"],
        )
        for one in data["collections"]
    )
    if not isinstance(data["version"], int) or not all(one.key or one.stream for one in collections):
        raise ValueError
    return Schema(owner=str(row.key[1]), version=data["version"], collections=collections)
