"""Other servers' keys: kept for ever, one look-up per server however many events wait.

A key comes out of the store, else from its server, else from a notary that the operator trusts. A request
without an answer is repeated later, with growing intervals. SPEC: server-server API, "Retrieving server
keys".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

import orjson
from hansa import Backoff, LruCache, NetworkContext

from hansa_matrix.crypto import verify_signature
from hansa_matrix.federation.client import (
    REQUEST_FAILURES,
    FederationClient,
    TooManyRequests,
)
from hansa_matrix.federation.key_store import KeyStore, StoredKeyDocument
from hansa_matrix.federation.signing_keys import SigningKeys
from hansa_matrix.proto.canonical_json import KEY_DOCUMENT, loads_json
from hansa_matrix.proto.pdu import VerifyKey
from hansa_matrix.proto.servers.key_document import (
    DAY,
    check_key_document,
    key_document,
    key_ids_of,
    notary_signatures,
)
from hansa_matrix.proto.signing import signable_bytes, with_signature

#: Seconds until a server that gave no keys is asked again, doubled each time.
_NEGATIVE = Backoff(first=60.0, most=3600.0)
#: Seconds for which a key that a server did not name, or named as expired, is not asked for again.
_ABSENT = 60.0
_MANY = 20_000
#: A server that gave no key for so many seconds is not waited for any more.
_KEY_TIMEOUT_S = 600.0
_VOUCHED = 100
#: Milliseconds for which a document is what its server would answer, whatever it lacks.
_AS_GOOD_AS_NEW = 60_000
_FOR_EVER = 2**53 - 1
_NEVER = (0.0, 0)


class Keyring:
    """Our keys, published, and the keys of others."""

    def __init__(self, ctx: NetworkContext, server: str, keys: SigningKeys, client: FederationClient) -> None:
        self._ctx = ctx
        self._server = server
        self._keys = keys
        self._client = client
        self._kept = KeyStore(ctx)
        self._clock = ctx.clock
        self._notaries = [n for n in ctx.config.trusted_key_servers if n != server]
        self._distrusted = frozenset(ctx.config.revoked_keys)
        self._fetching: dict[str, asyncio.Future[bool]] = {}
        #: ``server -> (asked again at, failures)``.
        self._failed: LruCache[str, tuple[float, int]] = LruCache(_MANY)
        self._failing: LruCache[str, float] = LruCache(_MANY)
        self._absent: LruCache[tuple[str, str], float] = LruCache(_MANY)
        self._unvouched: LruCache[str, float] = LruCache(_MANY)
        self._learned: tuple[Callable[[str], None], ...] = ()

    def on_learned(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with every server of which a key was learned."""
        self._learned += (listener,)

    def own_document(self) -> Mapping[str, Any]:
        """Our signed key document, valid for a day."""
        key = self._keys.current
        old = {key_id: (one.public, one.expired_ts) for key_id, one in self._keys.old.items()}
        doc = key_document(self._server, {key.key_id: key.public}, self._clock.now() + DAY, old)
        return with_signature(doc, self._server, key.key_id, key.sign(signable_bytes(doc)))

    def notarise(self, doc: Mapping[str, Any]) -> Mapping[str, Any]:
        """Another server's document with our signature beside its own."""
        key = self._keys.current
        return with_signature(doc, self._server, key.key_id, key.sign(signable_bytes(doc)))

    def get(self, server: str, key_id: str) -> VerifyKey | None:
        """Returns a key that was loaded or fetched before, or a key of this server."""
        if server == self._server:
            return self._own_key(key_id)
        key = self._kept.at_hand(server, key_id)
        return None if key is None or key.public in self._distrusted else key

    def _own_key(self, key_id: str) -> VerifyKey | None:
        if key_id == self._keys.current.key_id:
            return VerifyKey(public=self._keys.current.public, valid_until=_FOR_EVER)
        old = self._keys.old.get(key_id)
        return VerifyKey(public=old.public, valid_until=old.expired_ts) if old is not None else None

    def at_hand(self, wanted: Iterable[tuple[str, str]], at: int) -> bool:
        """True if these keys are in memory and valid at ``at`` (ms), so that no fetch is needed."""
        for server, key_id in wanted:
            if server == self._server:
                continue
            known = self._kept.at_hand(server, key_id)
            if known is None or known.valid_until < at or self._kept.is_unconfirmed(server):
                return False
        return True

    async def has_keys(self, wanted: Iterable[tuple[str, str]], at: int) -> bool:
        """True if these keys are here and valid at ``at`` (ms)."""
        return not await self._missing_keys(wanted, at)

    def may_ask(self, wanted: Iterable[tuple[str, str]]) -> bool:
        """True if asking for any of these keys now could succeed: False shortly after a failure."""
        now = self._clock.monotonic()
        return any(
            (self._absent.get((server, key_id)) or 0.0) <= now
            and (
                (self._failed.get(server) or _NEVER)[0] <= now
                or (bool(self._notaries) and (self._unvouched.get(server) or 0.0) <= now)
            )
            for server, key_id in wanted
        )

    async def ensure_keys(
        self, wanted: Iterable[tuple[str, str]], at: int, *, stranger: str = "", share: str = ""
    ) -> None:
        """Have these keys at hand, valid at ``at`` (ms), as far as their servers or notaries give them.
        ``stranger`` names the neighbourhood of who wants them and has proven nothing: nothing is stored then.
        ``share`` names the server whose event or question needs them, in whose share they are asked for.
        """
        wanted = list(wanted)
        if not stranger:
            for server in {server for server, _ in wanted if self._kept.is_unconfirmed(server)}:
                await self._kept.confirm_keys(server)
        missing = await self._missing_keys(wanted, at)
        if not missing:
            return
        due = self._servers_to_ask(missing)
        asked = await asyncio.gather(*(self._fetch_once(server, stranger, share) for server in due))
        crowded = {server for server, one in zip(due, asked, strict=True) if not one}
        missing = await self._missing_keys(missing, at)
        if missing and self._notaries:
            await self._by_notaries(missing, at, passing=bool(stranger))
            missing = await self._missing_keys(missing, at)
        now = self._clock.monotonic()
        for name in missing:
            if name not in self._absent and name[0] not in crowded:
                self._absent.put(name, now + _ABSENT)

    async def _missing_keys(self, wanted: Iterable[tuple[str, str]], at: int) -> list[tuple[str, str]]:
        found = []
        for server, key_id in sorted(wanted):
            if server == self._server:
                continue
            known = await self._kept.load(server, key_id)
            if known is None or known.valid_until < at:
                found.append((server, key_id))
        return found

    def _servers_to_ask(self, missing: Iterable[tuple[str, str]]) -> list[str]:
        """The servers to ask: not for what they lacked a moment ago."""
        now = self._clock.monotonic()
        due = set()
        for name in missing:
            if (self._absent.get(name) or 0.0) <= now:
                self._absent.pop(name)
                due.add(name[0])
        return sorted(due)

    def pending_servers(self, wanted: Iterable[tuple[str, str]]) -> list[str]:
        """The servers whose keys are not known yet but may still come: they have been asked, in vain, for
        less than 10 minutes. Events that only they can verify must wait for them.
        """
        lacking = {server for server, key_id in wanted if self._kept.at_hand(server, key_id) is None}
        now = self._clock.monotonic()
        since = {server: self._failing.get(server) for server in lacking}
        return sorted(s for s, at in since.items() if at is not None and now - at < _KEY_TIMEOUT_S)

    def is_distrusted(self, server: str, key_id: str) -> bool:
        """True if a key is known, and an operator distrusts it."""
        key = self._kept.at_hand(server, key_id)
        return key is not None and key.public in self._distrusted

    def failing_for(self, server: str) -> float:
        """For how many seconds a server has been asked for its keys in vain."""
        since = self._failing.get(server)
        return self._clock.monotonic() - since if since is not None else 0.0

    async def ask_again(self, servers: Iterable[str]) -> None:
        """Ask servers for their keys, also those that failed a moment ago."""
        names = list(servers)
        for server in names:
            self._failed.pop(server)
        await asyncio.gather(*(self._fetch_once(server) for server in names))

    async def _fetch_once(self, server: str, stranger: str = "", share: str = "") -> bool:
        """Asks a server for its keys, unless it is asked already or failed a moment ago. False where there
        was no slot for the request. A caller that waited for another caller's request that was never made
        asks in its own share: the slots of strangers are fewer.
        """
        while (under_way := self._fetching.get(server)) is not None:
            if await asyncio.shield(under_way):
                return True
            if stranger:
                return False
        again, failures = self._failed.get(server) or _NEVER
        if again > self._clock.monotonic() or server == self._server:
            return True
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._fetching[server] = done
        was_asked = False
        try:
            await self._fetch_document(server, stranger, share)
        except TooManyRequests:
            self._ctx.count("matrix_lookups_crowded")
            self._failing.put(server, self._failing.get(server) or self._clock.monotonic())
            return False
        except REQUEST_FAILURES:
            was_asked = True
            wait = _NEGATIVE.delay(failures + 1, self._ctx.random.uniform())
            self._failed.put(server, (self._clock.monotonic() + wait, failures + 1))
            if server not in self._failing:
                self._failing.put(server, self._clock.monotonic())
        else:
            was_asked = True
            self._failed.pop(server)
            self._failing.pop(server)
        finally:
            del self._fetching[server]
            done.set_result(was_asked)
        return True

    async def _fetch_document(self, server: str, stranger: str, share: str) -> None:
        doc = await self._client.request(
            "GET",
            server,
            "/_matrix/key/v2/server",
            signed=False,
            seconds=15.0,
            limits=KEY_DOCUMENT,
            stranger=stranger,
            share=share,
        )
        await self._store_document(server, doc, passing=bool(stranger))

    async def _store_document(self, server: str, doc: Any, *, passing: bool = False) -> None:
        """Take the keys of a document. Raises RemoteProtocolError if it is not its server's."""
        found = check_key_document(doc, server, verify_signature, self._clock.now())
        await self._kept.put(server, found, doc, passing=passing)
        for listener in self._learned:
            listener(server)

    async def _by_notaries(self, missing: Iterable[tuple[str, str]], at: int, *, passing: bool) -> None:
        """Ask the trusted notaries for what its own server did not give, all servers in one request."""
        now = self._clock.monotonic()
        wanted: dict[str, dict[str, dict[str, int]]] = {}
        for server, key_id in missing:
            if (self._unvouched.get(server) or 0.0) <= now and (server in wanted or len(wanted) < _VOUCHED):
                wanted.setdefault(server, {})[key_id] = {"minimum_valid_until_ts": at}
        for notary in self._notaries:
            if not wanted:
                return
            for server in await self._ask_notary(notary, wanted, passing=passing):
                wanted.pop(server, None)
        for server in wanted:
            self._unvouched.put(server, now + _NEGATIVE.first)

    async def _ask_notary(self, notary: str, wanted: Mapping[str, Any], *, passing: bool) -> list[str]:
        """The servers whose keys a notary gave."""
        given = []
        try:
            answer = await self._client.request(
                "POST", notary, "/_matrix/key/v2/query", {"server_keys": wanted}, signed=False, seconds=20.0
            )
            docs = answer.get("server_keys") if isinstance(answer, dict) else None
            for doc in docs[:_MANY] if isinstance(docs, list) else ():
                server = doc.get("server_name") if isinstance(doc, dict) else None
                if (
                    isinstance(server, str)
                    and server in wanted
                    and await self._has_notary_signature(doc, notary)
                ):
                    await self._store_document(server, doc, passing=passing)
                    given.append(server)
        except REQUEST_FAILURES as error:
            self._ctx.log.info("notary %s: %s", notary, error)
        return given

    async def _has_notary_signature(self, doc: Mapping[str, Any], notary: str) -> bool:
        """True if a document carries the signature of the notary, by a key that is valid now."""
        now = self._clock.now()
        signers = notary_signatures(doc, notary)
        if await self._missing_keys([(notary, key_id) for key_id in signers], now):
            await self._fetch_once(notary)
        keys = ((self.get(notary, key_id), signature) for key_id, signature in signers.items())
        message = signable_bytes(doc)
        return any(
            k is not None and k.valid_until >= now and verify_signature(k.public, s, message) for k, s in keys
        )

    async def has_fresh_document(self, server: str, minimum: int, named: Collection[str] = ()) -> bool:
        """True if the document of a server is fresh enough, and has one of the keys that are ``named``, so
        that it need not be fetched again.
        """
        found = await self._kept.get_document(server)
        return server == self._server or (
            found is not None and self._is_document_fresh(found, minimum, named)
        )

    async def document_of(
        self, server: str, minimum: int, named: Collection[str] = (), *, ask: str = ""
    ) -> bytes | None:
        """Returns the newest stored document of a server, as JSON. It is fetched again if it is not valid at
        ``minimum`` (ms), half of its time is over, or it has none of the keys that are ``named``, for the
        neighbourhood ``ask`` unless that is empty.
        """
        if server == self._server:
            return orjson.dumps(self.own_document())
        found = await self._kept.get_document(server)
        if ask and not (found is not None and self._is_document_fresh(found, minimum, named)):
            await self._fetch_once(server, ask)
            found = await self._kept.get_document(server)
        return found.body if found is not None and found.body else None

    def _is_document_fresh(self, found: StoredKeyDocument, minimum: int, named: Collection[str]) -> bool:
        now = self._clock.now()
        if found.valid_until < minimum or now >= (found.fetched + found.valid_until) / 2:
            return False
        if not named or not found.body or now < found.fetched + _AS_GOOD_AS_NEW:
            return True
        return bool(key_ids_of(loads_json(found.body, KEY_DOCUMENT)).intersection(named))

    def heard_from(self, server: str) -> None:
        """The server has signed a request: ask it again if we must, and keep its keys."""
        self._failed.pop(server)
        if self._kept.is_unconfirmed(server):
            self._ctx.spawn(partial(self._kept.confirm_keys, server), f"keys of {server}")

    async def sweep(self) -> None:
        """Let go of keys beyond what may be kept."""
        await self._kept.sweep()
