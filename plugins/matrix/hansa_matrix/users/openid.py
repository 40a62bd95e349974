"""Tokens by which a local user proves their identity to others. SPEC: server-server API, "OpenID"."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from urllib.parse import quote

import orjson
from hansa import Delete, Insert, NetworkContext, RemoteProtocolError, Value

from hansa_matrix.bounds.bounded_rows import oldest_over
from hansa_matrix.federation.client import FederationClient
from hansa_matrix.proto import ids

_MAX_TOKEN_LENGTH = 1000
#: Tokens of one person: a further one takes the place of the first.
MAX_TOKENS_OF_USER = 100


class OpenId:
    """Of a token only the hash is kept."""

    def __init__(self, ctx: NetworkContext, client: FederationClient) -> None:
        self._ctx = ctx
        self._client = client

    async def issue_token(self, user: str, seconds: int) -> str:
        """A token that says for a while who bears it."""
        token = urlsafe_b64encode(self._ctx.random.bytes(33)).decode()
        until = self._ctx.clock.now() + seconds * 1000
        fields: dict[str, Value] = {"until": until, "user_id": user}
        gone = await oldest_over(self._ctx, "openid", "until", MAX_TOKENS_OF_USER - 1, {"user_id": user})
        await self._ctx.store.commit([*gone, Insert("openid", (_hash_token(token),), user.encode(), fields)])
        return token

    async def user_of_token(self, token: str) -> str | None:
        """Returns the owner of a token; None if the token is not valid, or its account is closed."""
        row = (
            await self._ctx.store.get("openid", (_hash_token(token),))
            if len(token) <= _MAX_TOKEN_LENGTH
            else None
        )
        if row is None:
            return None
        if int(row.fields["until"] or 0) <= self._ctx.clock.now():
            await self._ctx.store.commit([Delete("openid", row.key)], durability="lazy")
            return None
        user = row.body.decode()
        account = await self._ctx.store.get("account", (user,))
        closed = account is not None and orjson.loads(account.body).get("deactivated")
        return None if closed else user

    async def verify_token(self, server: str, token: str) -> str:
        """Returns the owner of another server's token. Raises ``ServerUnreachable``, ``RemoteError``, and
        RemoteProtocolError for a server that names a user of another server.
        """
        target = f"/_matrix/federation/v1/openid/userinfo?access_token={quote(token, safe='')}"
        answer = await self._client.request("GET", server, target, signed=False, seconds=10.0)
        user = answer.get("sub") if isinstance(answer, dict) else None
        if not ids.is_valid_user_id(user) or ids.domain_of(str(user)) != server:
            raise RemoteProtocolError(f"{server} does not say who of its people that is")
        return str(user)


def _hash_token(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
