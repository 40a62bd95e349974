"""The texts of other servers about rooms that no local user is in, as far as the current policies let users
read them.

SPEC: client-server API, "Stripped state", "Knocking on rooms". The state that a server shows to a knocking
user is its answer about a room: the parts that may not be read are left out. A leave that rescinded an invite
or a knock is shown without its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hansa import LruCache, NetworkContext

from hansa_matrix.crossings import Crossings, is_allowed
from hansa_matrix.proto import ids
from hansa_matrix.texts import texts_of_event, without_texts

#: Events of which it is remembered how the policies of now judge them.
_REMEMBERED = 10_000


class RemoteRoomTexts:
    """With no policy everything is shown as it came. Each event is judged once for each generation."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx
        self._crossings = Crossings(ctx)
        self._known: LruCache[tuple[str, int], tuple[int, bool]] = LruCache(_REMEMBERED)

    async def state(
        self, server: str, room_id: str, events: Sequence[Mapping[str, Any]]
    ) -> Sequence[Mapping[str, Any]]:
        """Stripped state that a server showed, without the events that may not be read."""
        if not self._ctx.has_policies:
            return events
        return [event for event in events if await self._may_read(server, room_id, event)]

    async def leave(self, event: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """A leave or ban, without its words where these may not be read."""
        if event is None or not self._ctx.has_policies:
            return event
        server = ids.domain_of(str(event.get("sender", "")))
        if await self._may_read(server, str(event.get("room_id", "")), event):
            return event
        return {**event, "content": without_texts(_content_of(event))}

    async def _may_read(self, server: str, room_id: str, event: Mapping[str, Any]) -> bool:
        key = event.get("state_key")
        texts = texts_of_event(
            str(event.get("type")), key if isinstance(key, str) else None, _content_of(event)
        )
        if not texts:
            return True
        named, generation = (room_id, hash(texts)), self._ctx.policy_generation
        known = self._known.get(named)
        if known is None or known[0] != generation:
            asked = self._crossings.directory_query(server, room_id[:255], outbound=True, texts=texts)
            known = (generation, await is_allowed(self._ctx, asked))
            self._known.put(named, known)
        return known[1]


def _content_of(event: Mapping[str, Any]) -> Mapping[str, Any]:
    content = event.get("content")
    return content if isinstance(content, dict) else {}
