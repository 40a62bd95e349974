"""The store contract in plain dictionaries, on a disk that can lose what was not synced.

For the simulation and for fast tests: no threads, no time, and a crash that is an operation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hansa.store.base import (
    MAX_BODY,
    Append,
    Collection,
    CompareAndSwap,
    Conflict,
    Delete,
    Durability,
    Insert,
    Key,
    NewerSchema,
    NotDeclared,
    Remove,
    Row,
    Schema,
    StoreError,
    TooLarge,
    Value,
    Write,
)
from hansa.store.bounds import Whole, bounded

_Table = dict[Key, Row]


def checked(collection: Collection, write: Write) -> int:
    """The bytes of a write's body. Raises StoreError, TooLarge for what no store may take."""
    if not isinstance(write, Append):
        if len(write.key) != (1 if collection.stream else len(collection.key)):
            raise StoreError(f"{write.key!r} is not a key of {collection.name}")
        _require_storable_values(collection, write.key)
    if isinstance(write, Delete | Remove):
        return 0
    size = len(write.body)
    if size > MAX_BODY:
        raise TooLarge(f"a body of {size} bytes, at most {MAX_BODY}")
    if not write.fields.keys() <= collection.fields.keys():
        unknown = set(write.fields) - set(collection.fields)
        raise StoreError(f"{collection.name} has no fields {sorted(unknown)}")
    _require_storable_values(collection, write.fields.values())
    return size


def _require_storable_values(collection: Collection, values: Iterable[Value]) -> None:
    """Integers have 64 bits and strings are Unicode: a surrogate alone has no UTF-8."""
    for value in values:
        if type(value) is str and value.isascii():  # most are
            continue
        if isinstance(value, int):
            if not -(1 << 63) <= value < 1 << 63:
                raise StoreError(f"an integer for {collection.name} is over 64 bits")
        elif isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise StoreError(f"a string for {collection.name} is not valid Unicode: {value!r}") from None


def split(scope: str, name: str) -> tuple[str, str]:
    """``(scope, collection)`` of a write's collection, which may name another scope."""
    other, slash, collection = name.rpartition("/")
    return (other, collection) if slash else (scope, name)


@dataclass(slots=True)
class MemoryDisk:
    """The data that survives the process. ``unsynced`` batches may be lost at a crash, the last ones
    first.
    """

    tables: dict[tuple[str, str], _Table] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    position: int = 0
    unsynced: list[list[tuple[str, Key, Row | None, str]]] = field(default_factory=list)
    commits: int = 0

    def crash(self, lose: int) -> None:
        """Undo the last ``lose`` batches that were not synced."""
        for _ in range(min(lose, len(self.unsynced))):
            for scope, key, before, name in reversed(self.unsynced.pop()):
                table = self.tables[scope, name]
                if before is None:
                    table.pop(key, None)
                else:
                    table[key] = before
        self.unsynced.clear()


class MemoryStore:
    """See ``hansa.store.base.Store``."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self.disk = disk or MemoryDisk()
        self._collections: dict[tuple[str, str], Collection] = {}
        self._open = False

    async def open(self) -> None:
        """See ``Store.open``."""
        self._open = True

    async def close(self) -> None:
        """See ``Store.close``."""
        self._open = False
        self.disk.unsynced.clear()

    async def declare(self, scope: str, schema: Schema) -> None:
        """See ``Store.declare``."""
        name = f"{scope}/{schema.owner}"
        version = self.disk.versions.get(name, schema.version)
        if version > schema.version:
            raise NewerSchema(scope, schema, version)
        for collection in schema.collections:
            self._collections[scope, collection.name] = collection
            table = self.disk.tables.setdefault((scope, collection.name), {})
            for key, row in table.items():
                table[key] = replace(row, fields={f: row.fields.get(f) for f in collection.fields})
        while version < schema.version:
            migrate = schema.migrations[version]
            for collection in schema.collections:
                for row in list(self.disk.tables[scope, collection.name].values()):
                    await self.commit(scope, list(migrate(collection.name, row)))
            version += 1
        self.disk.versions[name] = schema.version

    def _get_table(self, scope: str, name: str) -> tuple[Collection, _Table]:
        collection = self._collections.get((scope, name))
        if collection is None:
            raise NotDeclared(scope, name)
        return collection, self.disk.tables[scope, name]

    async def commit(
        self, scope: str, writes: Sequence[Write], *, durability: Durability = "full"
    ) -> list[int]:
        """See ``Store.commit``."""
        if not self._open:
            raise StoreError("the store is closed")
        await asyncio.sleep(0)
        undo: list[tuple[str, Key, Row | None, str]] = []
        positions: list[int] = []
        size = 0
        try:
            for write in writes:
                size += self._apply_write(scope, write, undo, positions)
            bounded(len(writes), size, whole=isinstance(writes, Whole))
        except StoreError:
            for owner, key, before, name in reversed(undo):
                table = self.disk.tables[owner, name]
                if before is None:
                    table.pop(key, None)
                else:
                    table[key] = before
            self.disk.position -= len(positions)
            raise
        self.disk.commits += 1
        if durability == "full":
            self.disk.unsynced.clear()
        else:
            self.disk.unsynced.append(undo)
        return positions

    def _apply_write(
        self,
        scope: str,
        write: Write,
        undo: list[tuple[str, Key, Row | None, str]],
        positions: list[int],
    ) -> int:
        owner, name = split(scope, write.collection)
        collection, table = self._get_table(owner, name)
        size = checked(collection, write)
        if isinstance(write, Append):
            self.disk.position += 1
            positions.append(self.disk.position)
            key: Key = (self.disk.position,)
        else:
            key = write.key
        before = table.get(key)
        if isinstance(write, Delete | Remove):
            if isinstance(write, Remove) and (before is None or write.expect not in (None, before.body)):
                raise Conflict(name, key)
            undo.append((owner, key, before, name))
            table.pop(key, None)
            return size
        if isinstance(write, Insert) and before is not None:
            raise Conflict(name, key)
        if isinstance(write, CompareAndSwap) and (before.body if before else None) != write.expect:
            raise Conflict(name, key)
        undo.append((owner, key, before, name))
        fields = {f: write.fields.get(f) for f in collection.fields}
        table[key] = Row(key=key, fields=fields, body=bytes(write.body))
        return size

    async def get(self, scope: str, collection: str, key: Key) -> Row | None:
        """See ``Store.get``."""
        return self._get_table(scope, collection)[1].get(tuple(key))

    async def get_many(self, scope: str, collection: str, keys: Sequence[Key]) -> dict[Key, Row]:
        """See ``Store.get_many``."""
        table = self._get_table(scope, collection)[1]
        return {tuple(k): table[tuple(k)] for k in keys if tuple(k) in table}

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
        declared, table = self._get_table(scope, collection)
        names = key_names(declared)
        order = index or names

        def value(row: Row, name: str) -> Value:
            return row.key[names.index(name)] if name in names else row.fields[name]

        found = []
        for row in table.values():
            if any(value(row, n) != e for n, e in zip(order, equal, strict=False)):
                continue
            if len(equal) < len(order):
                here = value(row, order[len(equal)])
                if (after is not None or upto is not None) and here is None:
                    continue
                low, high = (upto, after) if reverse else (after, upto)
                if reverse:
                    if (low is not None and _is_less(here, low)) or (
                        high is not None and not _is_less(here, high)
                    ):
                        continue
                elif (low is not None and not _is_less(low, here)) or (
                    high is not None and _is_less(high, here)
                ):
                    continue
            found.append(row)
        found.sort(key=lambda r: ([_sort_key(value(r, n)) for n in order], r.key), reverse=reverse)
        return found[: min(limit, 10_000)]

    async def count(self, scope: str, collection: str, *, equal: Mapping[str, Value] | None = None) -> int:
        """See ``Store.count``."""
        declared, table = self._get_table(scope, collection)
        names, wanted = key_names(declared), equal or {}
        return sum(
            all((r.key[names.index(n)] if n in names else r.fields[n]) == v for n, v in wanted.items())
            for r in table.values()
        )

    async def position(self) -> int:
        """See ``Store.position``."""
        return self.disk.position

    async def lost(self) -> StoreError:
        """See ``Store.lost``: nobody takes it."""
        never: asyncio.Future[StoreError] = asyncio.get_running_loop().create_future()
        return await never

    async def advance(self, position: int) -> None:
        """See ``Store.advance``."""
        self.disk.position = max(self.disk.position, position)

    async def probe(self) -> None:
        """See ``Store.probe``: memory does not fail."""
        if not self._open:
            raise StoreError("the store is closed")


def key_names(collection: Collection) -> tuple[str, ...]:
    """The names of a collection's key parts."""
    return ("position",) if collection.stream else tuple(collection.key)


def _sort_key(value: Value) -> tuple[int, int, str]:
    if value is None:
        return (0, 0, "")
    return (1, value, "") if isinstance(value, int) else (2, 0, value)


def _is_less(left: Value, right: Value) -> bool:
    return _sort_key(left) < _sort_key(right)
