"""The keys of other servers, for servers that cannot ask them directly.

Each query makes this server ask others, so strangers may ask only so often; beyond the limit the answer has
the stored keys. Keys of servers that have never proven anything to this server are not stored. SPEC:
server-server API, "Querying Keys Through Another Server".
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from hansa import Busy, Clock, RemoteProtocolError, Request, Response, Router
from hansa.model.bounded_json import Limits

from hansa_matrix.errors import json_response
from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.proto import ids
from hansa_matrix.proto.canonical_json import KEY_DOCUMENT, loads_json, loads_lenient
from hansa_matrix.proto.servers.key_document import key_ids_of
from hansa_matrix.server_api.unproven_work import UnprovenWork

_SERVERS = 100
_BODY = Limits(bytes=128 * 1024)
#: Bytes of the documents of one answer, which are parsed to be signed.
_ANSWER = 256 * 1024


class Notary:
    """Answers whatever is asked, by leaving out what it does not know."""

    def __init__(self, keyring: Keyring, clock: Clock, strangers: UnprovenWork) -> None:
        self._keyring = keyring
        self._clock = clock
        self._strangers = strangers

    def register(self, router: Router) -> None:
        """Both ways to ask; neither needs a signature."""
        router.add("GET", "/_matrix/key/v2/query/{server}", self.one)
        # COMPAT: the specification had it until version 1.6, and servers of before ask so.
        router.add("GET", "/_matrix/key/v2/query/{server}/{key}", self.one)
        router.add("POST", "/_matrix/key/v2/query", self.many, max_body=_BODY.bytes)

    async def one(self, request: Request) -> Response:
        """``GET /_matrix/key/v2/query/{serverName}``, of one key as earlier versions asked."""
        given = request.first("minimum_valid_until_ts")
        minimum = int(given) if given.isascii() and given.isdigit() and len(given) < 16 else None
        named = frozenset({request.path["key"]} if "key" in request.path else ())
        found = await self._query_documents({request.path["server"]: (minimum, named)}, request.remote)
        return json_response({"server_keys": found})

    async def many(self, request: Request) -> Response:
        """``POST /_matrix/key/v2/query``."""
        body = loads_lenient(request.body or b"{}", _BODY)
        asked = body.get("server_keys") if isinstance(body, dict) else None
        if not isinstance(asked, dict):
            raise RemoteProtocolError("server_keys must be an object", code="M_BAD_JSON")
        wanted = {server: _parse_criteria(keys) for server, keys in list(asked.items())[:_SERVERS]}
        return json_response({"server_keys": await self._query_documents(wanted, request.remote)})

    async def _query_documents(
        self, wanted: Mapping[str, tuple[int | None, frozenset[str]]], remote: str
    ) -> list[Mapping[str, Any]]:
        found, left = [], _ANSWER
        for server, (minimum, named) in wanted.items():
            if not ids.is_valid_server_name(server):
                continue
            at = self._clock.now() if minimum is None else minimum
            body = await self._query_document(server, at, named, remote)
            if body is None or len(body) > left:
                continue
            doc = loads_json(body, KEY_DOCUMENT)
            if not named or named & key_ids_of(doc):
                left -= len(body)
                found.append(self._keyring.notarise(doc))
        return found

    async def _query_document(self, server: str, at: int, named: frozenset[str], remote: str) -> bytes | None:
        """As new as may be had for who asks."""
        if not await self._keyring.has_fresh_document(server, at, named):
            with suppress(Busy), self._strangers.work(remote) as group:
                return await self._keyring.document_of(server, at, named, ask=group)
        return await self._keyring.document_of(server, at)


def _parse_criteria(keys: object) -> tuple[int | None, frozenset[str]]:
    """The latest ``minimum_valid_until_ts`` of a server's keys, None for now, and their ids, none for all."""
    entries = keys if isinstance(keys, dict) else {}
    given = [entry.get("minimum_valid_until_ts") for entry in entries.values() if isinstance(entry, dict)]
    times = [one for one in given if type(one) is int]
    return (max(times) if times else None), frozenset(entries)
