"""The contract of a store: declared collections, streams, one commit per batch.

A *collection* has rows: a key, a few declared fields that can be searched, and an opaque body. A *write* is
a value. A batch of writes is one commit, whole or not at all, durable when ``commit`` returns. A *stream* is
a collection whose key is a position that the store gives at commit, rising with every append and without
regard to the stream: positions of one store are one sequence, so a position is also a point in time.

Rows are scoped (one scope per network id, ``""`` for the core), so that two networks of one kind in one
process share nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from hansa.model.errors import HansaError
from hansa.model.fast_dataclass import quick

#: The values of a key part or a declared field.
Value = str | int | None
Key = tuple[str | int, ...]

#: No body may be larger, on either store (bytes).
MAX_BODY = 1024 * 1024


class StoreError(HansaError):
    """The store could not do what was asked."""


class NewerSchema(StoreError):
    """The database was written by a newer Hansa, or a newer plugin, than this one: ``version`` is that of its
    rows.
    """

    def __init__(self, scope: str, schema: Schema, version: int, place: str = "") -> None:
        where = f" in {place}" if place else ""
        super().__init__(
            f"the data of {schema.owner} ({scope or 'core'}){where} is of version {version}; "
            f"this program knows versions up to {schema.version}: use a newer one"
        )


class NotDeclared(StoreError):
    """A collection that nobody declared was asked for."""

    def __init__(self, scope: str, name: str) -> None:
        super().__init__(f"collection {name!r} of {scope or 'core'!r} was not declared")


class HeldElsewhere(StoreError):
    """Another process has the database."""


class InUse(HeldElsewhere):
    """Another process has a database that others may wait for: process ``pid`` of ``host``, whose lease ends
    ``seconds`` after its last sign of life. ``own``: it is this process, which has the database open already.
    """

    def __init__(self, host: str, pid: int, seconds: int, *, own: bool = False) -> None:
        super().__init__(
            f"the database is in use by process {pid} on {host}: stop that process first. One that is gone "
            f"is given up after {seconds} s"
        )
        self.host = host
        self.pid = pid
        self.own = own


class Conflict(StoreError):
    """The batch met another writer: an ``Insert`` of a key that exists, a ``CompareAndSwap`` or ``Remove``
    whose row changed or is gone.

    Nothing of the batch was written. ``collection`` and ``key`` name the row; the caller reads again and
    decides: a duplicate is answered as before, a lost race is done again.
    """

    def __init__(self, collection: str, key: Key) -> None:
        super().__init__(f"{collection} {key!r} exists or has changed")
        self.collection = collection
        self.key = key


class TooLarge(StoreError):
    """A body is over ``MAX_BODY``, or a batch over the bounds of ``store.bounds``: 5,000 writes and 16 MiB.
    Nothing of the batch was written.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """One declared collection.

    ``key`` and ``fields`` map names to their type; an ``indexes`` entry names fields (key parts allowed) in
    order. ``stream``: the key is ``("position", int)``, given by the store. ``heap``: rows are large and come
    in no order of their keys, so that a store had better keep them as they come and only the keys in order.
    Names are ``[a-z_]+``, and neither ``scope`` nor ``body``.
    """

    name: str
    key: Mapping[str, type[str | int]] = field(default_factory=dict)
    fields: Mapping[str, type[str | int]] = field(default_factory=dict)
    indexes: Sequence[tuple[str, ...]] = ()
    stream: bool = False
    heap: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row as read. ``fields`` holds the declared fields only; ``position`` is 0 outside streams."""

    key: Key
    fields: Mapping[str, Value]
    body: bytes

    @property
    def position(self) -> int:
        """The position of a row of a stream."""
        return int(self.key[0])


@quick
@dataclass(frozen=True, slots=True)
class Put:
    """Write a row, whether it exists or not."""

    collection: str
    key: Key
    body: bytes = b""
    fields: Mapping[str, Value] = field(default_factory=dict)


@quick
@dataclass(frozen=True, slots=True)
class Insert:
    """Write a row that must not exist yet, else ``Conflict``."""

    collection: str
    key: Key
    body: bytes = b""
    fields: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CompareAndSwap:
    """Write a row only if its body is still ``expect`` (None: it must not exist), else ``Conflict``."""

    collection: str
    key: Key
    expect: bytes | None
    body: bytes = b""
    fields: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a row; nothing happens if it is not there."""

    collection: str
    key: Key


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a row that must exist (and whose body is ``expect``, if that is given), else ``Conflict``."""

    collection: str
    key: Key
    expect: bytes | None = None


@quick
@dataclass(frozen=True, slots=True)
class Append:
    """Add a row at the end of a stream. Positions are in ``commit``'s answer, in the batch's order."""

    collection: str
    body: bytes = b""
    fields: Mapping[str, Value] = field(default_factory=dict)


Write = Put | Insert | CompareAndSwap | Delete | Remove | Append


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The collections of one owner (the core, a plugin's network), with the version of their shape.

    Adding a collection, a field or an index needs no new version: it is made on open. A new version means
    that rows changed their meaning; ``migrations[n]`` turns rows of version n into n + 1, one collection
    at a time: ``(collection name, row) -> writes``.
    """

    owner: str
    version: int
    collections: Sequence[Collection]
    migrations: Mapping[int, Migration] = field(default_factory=dict)


class Migration(Protocol):
    """One step forward. Runs before anything else may read or write."""

    def __call__(self, collection: str, row: Row) -> Iterable[Write]:
        """The writes that bring one row to the next version; no writes leave it as it is."""
        ...


Durability = Literal["full", "lazy"]


class Store(Protocol):
    """The whole database. ``scope`` is the first argument everywhere; ``ScopedStore`` binds it.

    A read sees every commit that returned before it was begun, also after a failover of the database. Of a
    commit that has not returned it sees all or nothing.
    """

    async def open(self) -> None:
        """Connect and lock. Raises StoreError with what to do if that cannot be."""
        ...

    async def close(self) -> None:
        """Let the writes under way end, then close. Safe to call twice."""
        ...

    async def declare(self, scope: str, schema: Schema) -> None:
        """Create and migrate; the same declaration twice is a no-op. Raises ``NewerSchema``."""
        ...

    async def commit(
        self, scope: str, writes: Sequence[Write], *, durability: Durability = "full"
    ) -> list[int]:
        """Write all or nothing. Returns the positions of the batch's ``Append``s. Raises ``Conflict``,
        ``TooLarge``, ``StoreFault``: nothing of the batch was written, but for ``ResultUnknown``, after which
        the process ends. Whether a batch was kept is found out before this returns, however long that takes;
        batches that were not begun by then fail. ``lazy`` may be lost by a crash within the second (cursors
        whose repeat is harmless). A write's collection may carry another scope as ``SCOPE/NAME``: how the
        core commits a plugin's writes in its own batch.
        """
        ...

    async def get(self, scope: str, collection: str, key: Key) -> Row | None:
        """One row by its key."""
        ...

    async def get_many(self, scope: str, collection: str, keys: Sequence[Key]) -> dict[Key, Row]:
        """Those of the keys that exist; one round trip for up to 1,000, more are split."""
        ...

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
        """Returns rows in the order of ``index`` (``()``: of the key) whose leading fields are ``equal`` and
        whose next field is ``> after`` and ``<= upto`` (each None: no bound; with ``reverse``: ``< after``,
        ``>= upto``). Rows equal in the index come in the order of their keys. ``limit`` is at most 10,000:
        ``store.paging`` reads all rows.
        """
        ...

    async def count(self, scope: str, collection: str, *, equal: Mapping[str, Value] | None = None) -> int:
        """How many rows; ``equal`` names declared fields or key parts."""
        ...

    async def position(self) -> int:
        """The position of the last append of the whole store, 0 if there is none. All up to it are there to
        be read, and none will come below it.
        """
        ...

    async def advance(self, position: int) -> None:
        """Give positions above this one from now on, if that is not so already: in a copy of another store
        what is appended later must come later.
        """
        ...

    async def probe(self) -> None:
        """Write something of no meaning, durably. Raises ``StoreFault`` if that cannot be."""
        ...

    async def lost(self) -> StoreError:
        """Wait until another process has taken the database over, and return the ``StoreLost`` that every
        call raises from then on. A store that no other process can take waits for ever.
        """
        ...


@runtime_checkable
class Shared(Protocol):
    """A store whose database one process has while others wait for it: its ``open`` raises ``InUse``."""

    async def request_takeover(self) -> None:
        """Ask the process that has the database to release it; the request holds for some seconds. Called on
        a store that is not open. Raises StoreError.
        """
        ...

    async def takeover_requested_by(self) -> str:
        """Returns the process that requests the database of this open store, as ``HOST PID``; empty if
        there is none. Raises StoreError.
        """
        ...


@runtime_checkable
class Indexed(Protocol):
    """A store that knows which of its indexes nothing declares. ``declare`` drops them: each costs every
    commit something.
    """

    async def undeclared(self, scope: str, schema: Schema) -> list[str]:
        """Names of indexes that were made for the collections of a schema, which does not declare them any
        more; asked before ``declare``. Raises StoreError.
        """
        ...


class ScopedStore:
    """A store as one owner sees it: ``ctx.store``."""

    def __init__(self, store: Store, scope: str) -> None:
        self._store = store
        self.scope = scope

    async def declare(self, schema: Schema) -> None:
        """See ``Store.declare``."""
        await self._store.declare(self.scope, schema)

    async def commit(self, writes: Sequence[Write], *, durability: Durability = "full") -> list[int]:
        """See ``Store.commit``."""
        return await self._store.commit(self.scope, writes, durability=durability)

    async def get(self, collection: str, key: Key) -> Row | None:
        """See ``Store.get``."""
        return await self._store.get(self.scope, collection, key)

    async def get_many(self, collection: str, keys: Sequence[Key]) -> dict[Key, Row]:
        """See ``Store.get_many``."""
        return await self._store.get_many(self.scope, collection, keys)

    async def scan(
        self,
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
        return await self._store.scan(
            self.scope,
            collection,
            index=index,
            equal=equal,
            after=after,
            upto=upto,
            limit=limit,
            reverse=reverse,
        )

    async def count(self, collection: str, *, equal: Mapping[str, Value] | None = None) -> int:
        """See ``Store.count``."""
        return await self._store.count(self.scope, collection, equal=equal)

    async def position(self) -> int:
        """See ``Store.position``."""
        return await self._store.position()

    def with_scope(self, write: Write) -> Write:
        """The same write, naming its scope, so that another owner's batch can carry it."""
        name = f"{self.scope}/{write.collection}"
        match write:
            case Put(key=key, body=body, fields=fields):
                return Put(name, key, body, fields)
            case Insert(key=key, body=body, fields=fields):
                return Insert(name, key, body, fields)
            case CompareAndSwap(key=key, expect=expect, body=body, fields=fields):
                return CompareAndSwap(name, key, expect, body, fields)
            case Delete(key=key):
                return Delete(name, key)
            case Remove(key=key, expect=expect):
                return Remove(name, key, expect)
            case Append(body=body, fields=fields):
                return Append(name, body, fields)
