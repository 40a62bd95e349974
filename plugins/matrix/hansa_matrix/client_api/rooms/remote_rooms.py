"""The room lists and summaries of other servers, as far as policies let local users read them.

SPEC: server-server API, "Public Room Directory", "Spaces". Policies are asked once for each room of an
answer: one that may not be read is left out, and the others are shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from hansa import NetworkContext, strings_of

from hansa_matrix.crossings import Crossings, is_allowed, require_allowed
from hansa_matrix.federation.client import REQUEST_FAILURES, FederationClient
from hansa_matrix.texts import FORMS, NAMES

#: Names of members in the public list and in spaces.
_NAMES = NAMES | {
    "aliases",
    "allowed_room_ids",
    "canonical_alias",
    "children_state",
    "encryption",
    "guest_can_join",
    "im.nheko.summary.encryption",
    "im.nheko.summary.room_version",
    "im.nheko.summary.version",
    "num_joined_members",
    "room_type",
    "world_readable",
}
_FORMS = {
    **FORMS,
    "allowed_room_ids": FORMS["room_id"],
    "encryption": FORMS["algorithm"],
    "im.nheko.summary.encryption": FORMS["algorithm"],
    "im.nheko.summary.room_version": FORMS["room_version"],
    "im.nheko.summary.version": FORMS["room_version"],
    "room_type": FORMS["type"],
    "state_key": FORMS["room_id"],
}
#: Rooms that are looked at without a pause.
_ROOMS_PER_STEP = 20
_TOKENS = ("next_batch", "prev_batch")


class RemoteRooms:
    """Asks other servers. With no policy everything is shown as it came."""

    def __init__(self, ctx: NetworkContext, client: FederationClient) -> None:
        self._ctx = ctx
        self._client = client
        self._crossings = Crossings(ctx)

    async def fetch_public_rooms(self, server: str, query: Mapping[str, Any]) -> Any:
        """A page of another server's public list. Raises the error answer of one that policies do not let a
        user ask for, and as ``FederationClient.request``.
        """
        await require_allowed(self._ctx, self._crossings.directory_query(server, "", outbound=True))
        answer = await self._client.request(
            "POST", server, "/_matrix/federation/v1/publicRooms", dict(query), seconds=10.0
        )
        return await self.filter_public_page(server, answer)

    async def fetch_room(self, server: str, room_id: str, *, suggested: bool) -> Any:
        """Fetches another server's description of a room and its children; None if it has none, or policies
        do not let a user ask.
        """
        outbound = self._crossings.directory_query(server, room_id, outbound=True)
        if not await is_allowed(self._ctx, outbound):
            return None
        target = f"/_matrix/federation/v1/hierarchy/{quote(room_id, safe='')}"
        query = urlencode({"suggested_only": "true" if suggested else "false"})
        try:
            answer = await self._client.request("GET", server, f"{target}?{query}", seconds=10.0)
        except REQUEST_FAILURES:
            return None
        return answer.get("room") if isinstance(answer, dict) else None

    async def filter_public_page(self, server: str, answer: Any) -> Any:
        """A page of another server's public list, without the rooms whose words may not be read."""
        if not self._ctx.has_policies:
            return answer
        if not isinstance(answer, dict):
            return {"chunk": []}
        chunk = answer.get("chunk")
        rooms = await self.filter_rooms(server, chunk if isinstance(chunk, list) else [])
        found: dict[str, Any] = {"chunk": rooms}
        if type(total := answer.get("total_room_count_estimate")) is int:
            found["total_room_count_estimate"] = total
        for name in _TOKENS:
            token = answer.get(name)
            if isinstance(token, str) and await self._can_read_texts(server, "", (token,)):
                found[name] = token
        return found

    async def filter_rooms(self, server: str, rooms: Sequence[Any]) -> list[dict[str, Any]]:
        """Those of some rooms, or of the children of one, that may be read."""
        listed = [one for one in rooms if isinstance(one, dict)]
        if not self._ctx.has_policies:
            return listed
        found: list[dict[str, Any]] = []
        for number, one in enumerate(listed, 1):
            if not number % _ROOMS_PER_STEP:
                await asyncio.sleep(0)
            if await self.can_read(server, one):
                found.append(one)
        return found

    async def can_read(self, server: str, said: Mapping[str, Any]) -> bool:
        """True if policies let local users read a server's description of a room."""
        if not self._ctx.has_policies:
            return True
        texts = strings_of(said, names=_NAMES, forms=_FORMS)
        room_id = said.get("room_id")
        return await self._can_read_texts(server, room_id if isinstance(room_id, str) else "", texts)

    async def _can_read_texts(self, server: str, room_id: str, texts: tuple[str, ...]) -> bool:
        if not texts:
            return True
        asked = self._crossings.directory_query(server, room_id[:255], outbound=True, texts=texts)
        return await is_allowed(self._ctx, asked)
