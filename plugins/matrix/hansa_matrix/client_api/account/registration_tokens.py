"""Tokens by which people may make accounts: given out by an operator, used a number of times."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from hansa import CompareAndSwap, Delete, Insert, LocalProtocolError, NetworkContext, Write, scan_all

_TOKEN = re.compile(r"[A-Za-z0-9._~-]{1,64}", re.ASCII)


class RegistrationTokens:
    """``hansa matrix tokens``."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx

    def admin_commands(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        """See ``hansa.HasAdminCommands.admin_commands``."""
        return {
            "tokens add": self._add_token,
            "tokens ls": self._list_tokens,
            "tokens rm": self._remove_token,
        }

    async def _add_token(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        given = arguments.get("uses")
        uses = 1 if given is None else int(given)
        if uses < 0:
            raise LocalProtocolError("a token can be used a number of times, 0 for any number")
        token = urlsafe_b64encode(self._ctx.random.bytes(12)).decode()
        body = orjson.dumps({"uses": uses, "used": 0})
        await self._ctx.store.commit([Insert("registration_token", (token,), body)])
        return {"token": token, "uses": uses}

    async def _list_tokens(self, _arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows = scan_all(self._ctx.store, "registration_token")
        return [{"token": str(row.key[0]), **orjson.loads(row.body)} async for row in rows]

    async def _remove_token(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        token = str(arguments["token"])
        if await self._ctx.store.get("registration_token", (token,)) is None:
            raise LocalProtocolError(f"there is no token {token}: `hansa matrix tokens ls` shows them")
        await self._ctx.store.commit([Delete("registration_token", (token,))])
        return {"removed": token}

    async def is_valid(self, token: str) -> bool:
        """True if an account can be made with the token."""
        return await self.use_write(token) is not None

    async def use_write(self, token: str) -> Write | None:
        """Returns the write that counts one use, which fails if another request counts one first; None if the
        token cannot be used any more.
        """
        row = await self._ctx.store.get("registration_token", (token,)) if _TOKEN.fullmatch(token) else None
        if row is None:
            return None
        kept = orjson.loads(row.body)
        if kept["uses"] and kept["used"] >= kept["uses"]:
            return None
        body = orjson.dumps(kept | {"used": kept["used"] + 1})
        return CompareAndSwap("registration_token", (token,), row.body, body)
