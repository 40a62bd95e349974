"""The keys of others, for those who cannot ask them themselves.

Whoever asks us makes us ask others, so each address may do that only so often; beyond it we answer with what
we have. SPEC: server-server API, "Querying Keys Through Another Server".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import Clock, RemoteProtocolError, Request, Response, Router

from hansa_matrix.federation.allowance import Allowance
from hansa_matrix.federation.server import json_response
from hansa_matrix.keyring import Keyring
from hansa_matrix.proto import ids
from hansa_matrix.proto.canonical import decode

_SERVERS = 100
_RATE, _BURST = 1.0, 100.0
_BODY = 128 * 1024


class Notary:
    """Answers whatever is asked, by leaving out what it does not know."""

    def __init__(self, keyring: Keyring, clock: Clock) -> None:
        self._keyring = keyring
        self._clock = clock
        self._allowed = Allowance(clock, _RATE, _BURST)

    def register(self, router: Router) -> None:
        """Both ways to ask; neither needs a signature."""
        router.add("GET", "/_matrix/key/v2/query/{server}", self.one)
        router.add("POST", "/_matrix/key/v2/query", self.many, max_body=_BODY)

    async def one(self, request: Request) -> Response:
        """``GET /_matrix/key/v2/query/{serverName}``."""
        given = request.first("minimum_valid_until_ts")
        minimum = int(given) if given.isascii() and given.isdigit() and len(given) < 16 else None
        found = await self._documents({request.path["server"]: minimum}, request.remote)
        return json_response({"server_keys": found})

    async def many(self, request: Request) -> Response:
        """``POST /_matrix/key/v2/query``."""
        body = decode(request.body or b"{}")
        asked = body.get("server_keys") if isinstance(body, dict) else None
        if not isinstance(asked, dict):
            raise RemoteProtocolError("server_keys is no object", code="M_BAD_JSON")
        wanted = {server: _latest(keys) for server, keys in list(asked.items())[:_SERVERS]}
        return json_response({"server_keys": await self._documents(wanted, request.remote)})

    async def _documents(self, wanted: Mapping[str, int | None], remote: str) -> list[Mapping[str, Any]]:
        found = []
        for server, minimum in wanted.items():
            if not ids.valid_server_name(server):
                continue
            ask = not self._allowed.take(remote)
            at = self._clock.now() if minimum is None else minimum
            doc = await self._keyring.document_of(server, at, ask=ask)
            if doc is not None:
                found.append(self._keyring.signed(doc))
        return found


def _latest(keys: object) -> int | None:
    """The latest ``minimum_valid_until_ts`` of a server's keys; None for now."""
    entries = keys.values() if isinstance(keys, dict) else ()
    named = [entry.get("minimum_valid_until_ts") for entry in entries if isinstance(entry, dict)]
    times = [one for one in named if type(one) is int]
    return max(times) if times else None
