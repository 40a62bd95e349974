"""The stored keys of other servers: in the store for servers that have proven something, else in memory."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import orjson
from hansa import (
    CompareAndSwap,
    Delete,
    LruCache,
    NetworkContext,
    Put,
    Row,
    StoreFault,
    Write,
    again_on_conflict,
    pages,
)

from hansa_matrix.proto.pdu import VerifyKey

#: Keys in memory.
_KNOWN = 20_000
#: Keys that are kept of one server. A document has 50 current and 50 old ones at the most.
MAX_KEYS = 64
#: Key documents in memory, of servers that have proven nothing, and the bytes of one that is kept at all.
_PASSING, MAX_DOCUMENT = 256, 16 * 1024
#: Servers whose keys are kept, and bytes of all their documents. Past these, those go that were fetched
#: longest ago: the keys of a server that shares a room with us are fetched again every week.
MAX_SERVERS, MAX_BYTES = 50_000, 64 * 1024 * 1024
_PAGE_SIZE = 500


class StoredKeyDocument(NamedTuple):
    """A key document as its server gave it; times in ms."""

    body: bytes
    fetched: int
    valid_until: int


class KeyStore:
    """Keys and key documents of others."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx
        self._store = ctx.store
        self._known: LruCache[tuple[str, str], VerifyKey] = LruCache(_KNOWN)
        self._passing: LruCache[str, tuple[Mapping[str, VerifyKey], StoredKeyDocument]] = LruCache(_PASSING)

    def at_hand(self, server: str, key_id: str) -> VerifyKey | None:
        """A key that was loaded or put before."""
        return self._known.get((server, key_id))

    async def load(self, server: str, key_id: str) -> VerifyKey | None:
        """A key that is kept."""
        known = self._known.get((server, key_id))
        if known is not None:
            return known
        row = await self._store.get("key", (server, key_id))
        if row is None:
            return None
        public, until = orjson.loads(row.body)
        found = VerifyKey(public=public, valid_until=until)
        self._known.put((server, key_id), found)
        return found

    async def put(self, server: str, found: Mapping[str, VerifyKey], doc: Any, *, passing: bool) -> None:
        """The keys of a document. ``is_unconfirmed`` ones are kept in memory until ``confirm_keys``."""
        fresh: dict[str, VerifyKey] = {}
        for key_id, key in found.items():
            before = await self.load(server, key_id)
            if before is not None and before.public != key.public:
                continue  # an id is never given to another key: peers that know it could not tell
            if before is not None and before.valid_until > key.valid_until:
                continue
            fresh[key_id] = key
        until = max(key.valid_until for key in found.values())
        body = orjson.dumps(doc)
        if len(body) > MAX_DOCUMENT:
            body = b""
        document = StoredKeyDocument(body, self._ctx.clock.now(), until)
        if passing and await self._store.get("key_document", (server,)) is None:
            self._passing.put(server, (fresh, document))
        else:
            self._passing.pop(server)
            fresh = await self._save_keys(server, fresh, document)
        for key_id, key in fresh.items():
            self._known.put((server, key_id), key)

    async def confirm_keys(self, server: str) -> None:
        """Stores the keys of a server once it has signed something."""
        passing = self._passing.pop(server)
        if passing is None:
            return
        try:
            await self._save_keys(server, *passing)
        except StoreFault:
            if server not in self._passing:
                self._passing.put(server, passing)
            raise

    def is_unconfirmed(self, server: str) -> bool:
        """True if a server's keys are in memory alone."""
        return server in self._passing

    async def _save_keys(
        self, server: str, fresh: Mapping[str, VerifyKey], document: StoredKeyDocument
    ) -> dict[str, VerifyKey]:
        """Stores the keys whose ids do not belong to other keys, and returns them."""
        return await again_on_conflict(partial(self._try_save_keys, server, fresh, document))

    async def _try_save_keys(
        self, server: str, fresh: Mapping[str, VerifyKey], document: StoredKeyDocument
    ) -> dict[str, VerifyKey]:
        """See ``_save_keys``. Raises ``Conflict`` where a key was kept since they were read."""
        rows = await self._store.scan("key", equal=(server,), limit=MAX_KEYS + 1)
        until = {str(row.key[1]): int(orjson.loads(row.body)[1]) for row in rows}
        until |= {key_id: key.valid_until for key_id, key in fresh.items()}
        kept = set(sorted(until, key=lambda key_id: until[key_id], reverse=True)[:MAX_KEYS])
        known = {str(row.key[1]): row for row in rows}
        writes: list[Write] = []
        held: dict[str, VerifyKey] = {}
        for key_id, key in fresh.items():
            row = known.get(key_id)
            if row is not None and orjson.loads(row.body)[0] != key.public:
                continue
            held[key_id] = key
            if key_id in kept:
                body = orjson.dumps([key.public, key.valid_until])
                writes.append(
                    CompareAndSwap("key", (server, key_id), row.body if row is not None else None, body)
                )
        writes += [Delete("key", row.key) for row in rows if str(row.key[1]) not in kept]
        fields = {"fetched": document.fetched, "valid_until": document.valid_until}
        writes.append(Put("key_document", (server,), document.body, fields))
        await self._store.commit(writes)
        return held

    async def get_document(self, server: str) -> StoredKeyDocument | None:
        """The newest document of a server; with an empty body if it was too large to be kept."""
        passing = self._passing.get(server)
        if passing is not None:
            return passing[1]
        row = await self._store.get("key_document", (server,))
        return _document_from_row(row) if row is not None else None

    async def sweep(self) -> None:
        """Let go of what is more than may be kept, and say how much there is."""
        found: list[tuple[int, str, int]] = []
        async for rows in pages(self._store, "key_document", size=_PAGE_SIZE):
            found += [(_document_from_row(row).fetched, str(row.key[0]), len(row.body)) for row in rows]
        found.sort(reverse=True)
        size = servers = 0
        for _, server, length in found:
            if servers < MAX_SERVERS and size + length <= MAX_BYTES:
                servers, size = servers + 1, size + length
                continue
            keys = await self._store.scan("key", equal=(server,), limit=_PAGE_SIZE)
            await self._store.commit(
                [Delete("key_document", (server,)), *(Delete("key", row.key) for row in keys)]
            )
            self._ctx.count("matrix_known_servers_forgotten")
        self._ctx.set_gauge("matrix_known_servers", servers)
        self._ctx.set_gauge("matrix_known_servers_bytes", size)


def _document_from_row(row: Row) -> StoredKeyDocument:
    return StoredKeyDocument(row.body, int(row.fields["fetched"] or 0), int(row.fields["valid_until"] or 0))
