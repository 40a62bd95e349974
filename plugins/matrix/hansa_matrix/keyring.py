"""Other servers' keys: kept for ever, one look-up per server however many events wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from hansa import Clock, Put, RemoteProtocolError, Scoped

from hansa_matrix.crypto import SigningKey, verify
from hansa_matrix.federation.client import Client, Unreachable
from hansa_matrix.proto.keys import DAY, check_key_document, key_document
from hansa_matrix.proto.pdu import VerifyKey
from hansa_matrix.proto.signing import signable, with_signature

_NEGATIVE = 60.0
_MANY = 20_000
#: A server that gave no key for so many seconds is not waited for any more.
_PATIENCE = 600.0


class Keyring:
    """Our key, published, and the keys of others."""

    def __init__(
        self, server: str, key: SigningKey, client: Client, store: Scoped, clock: Clock
    ) -> None:  # five parts, each used
        self._server = server
        self._key = key
        self._client = client
        self._store = store
        self._clock = clock
        self._known: dict[tuple[str, str], VerifyKey] = {(server, key.key_id): self._own()}
        self._fetching: dict[str, asyncio.Future[None]] = {}
        self._failed: dict[str, float] = {}
        self._failing: dict[str, float] = {}

    def _own(self) -> VerifyKey:
        return VerifyKey(public=self._key.public, valid_until=2**53 - 1)

    def document(self) -> Mapping[str, Any]:
        """Our signed key document, valid for a day."""
        doc = key_document(self._server, {self._key.key_id: self._key.public}, self._clock.now() + DAY)
        return with_signature(doc, self._server, self._key.key_id, self._key.sign(signable(doc)))

    def get(self, server: str, key_id: str) -> VerifyKey | None:
        """A key that was loaded or fetched before."""
        return self._known.get((server, key_id))

    async def need(self, wanted: Iterable[tuple[str, str]], at: int) -> None:
        """Have these keys at hand, valid at ``at`` (ms), as far as their servers give them."""
        missing: dict[str, set[str]] = {}
        for server, key_id in wanted:
            known = self._known.get((server, key_id)) or await self._load(server, key_id)
            if known is None or known.valid_until < at:
                missing.setdefault(server, set()).add(key_id)
        if missing:
            await asyncio.gather(*(self._fetch_once(server) for server in missing))

    def awaited(self, wanted: Iterable[tuple[str, str]]) -> list[str]:
        """The servers whose keys are not known yet but may still come: they have been asked, in vain, for
        less than 10 minutes. What only they can vouch for is not to be judged before.
        """
        lacking = {server for server, key_id in wanted if (server, key_id) not in self._known}
        now = self._clock.monotonic()
        return sorted(s for s in lacking if s in self._failing and now - self._failing[s] < _PATIENCE)

    async def ask_again(self, servers: Iterable[str]) -> None:
        """Ask servers for their keys, also those that failed a moment ago."""
        names = list(servers)
        for server in names:
            self._failed.pop(server, None)
        await asyncio.gather(*(self._fetch_once(server) for server in names))

    async def _load(self, server: str, key_id: str) -> VerifyKey | None:
        row = await self._store.get("key", (server, key_id))
        if row is None:
            return None
        public, until = orjson.loads(row.body)
        found = VerifyKey(public=public, valid_until=until)
        if len(self._known) > _MANY:
            self._known.clear()
            self._known[self._server, self._key.key_id] = self._own()
        self._known[server, key_id] = found
        return found

    async def _fetch_once(self, server: str) -> None:
        under_way = self._fetching.get(server)
        if under_way is not None:
            await asyncio.shield(under_way)
            return
        if self._failed.get(server, 0.0) > self._clock.monotonic() or server == self._server:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fetching[server] = done
        try:
            await self._fetch(server)
        except (Unreachable, RemoteProtocolError):
            if len(self._failed) > _MANY:
                self._failed.clear()
                self._failing.clear()
            self._failed[server] = self._clock.monotonic() + _NEGATIVE
            self._failing.setdefault(server, self._clock.monotonic())
        else:
            self._failing.pop(server, None)
        finally:
            del self._fetching[server]
            done.set_result(None)

    async def _fetch(self, server: str) -> None:
        doc = await self._client.request("GET", server, "/_matrix/key/v2/server", signed=False, seconds=15.0)
        found = check_key_document(doc, server, verify, self._clock.now())
        writes = []
        for key_id, key in found.items():
            before = await self._load(server, key_id)
            if before is not None and before.public != key.public:
                continue
            if before is not None and before.valid_until > key.valid_until:
                continue
            self._known[server, key_id] = key
            writes.append(Put("key", (server, key_id), orjson.dumps([key.public, key.valid_until])))
        await self._store.commit(writes)

    def heard_from(self, server: str) -> None:
        """The server is alive: ask it again if we must."""
        self._failed.pop(server, None)
