"""The search for rooms by people of other networks and by operators: see ``hansa.LooksUpRooms``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hansa import LocalProtocolError, RoomMatch

from hansa_matrix.client_api.rooms.remote_rooms import RemoteRooms
from hansa_matrix.errors import MatrixError
from hansa_matrix.federation.client import REQUEST_FAILURES
from hansa_matrix.proto import ids
from hansa_matrix.rooms.directory.room_summaries import RoomSummaries
from hansa_matrix.rooms.local_server import LocalServer

#: Characters of a name and a topic that are read.
_MAX_TEXT = 1024


class RoomSearch:
    """Searches the public lists of this server and of others."""

    def __init__(self, own: LocalServer, summaries: RoomSummaries, remote: RemoteRooms) -> None:
        self._own = own
        self._summaries = summaries
        self._remote = remote

    async def find_rooms(self, text: str, *, limit: int) -> Sequence[RoomMatch]:
        """Published rooms with ``text`` in their name, topic or alias; those of another server if the last
        word is ``:SERVER``. Raises LocalProtocolError if that server cannot be asked.
        """
        words = text.split()
        server = words.pop()[1:] if words and words[-1].startswith(":") else self._own.server
        wanted: dict[str, Any] = {"limit": limit, "filter": {"generic_search_term": " ".join(words)}}
        if server == self._own.server:
            page = await self._summaries.search_public_rooms(wanted)
        elif not ids.is_valid_server_name(server):
            raise LocalProtocolError(f"{server[:80]!r} is not a server name")
        else:
            try:
                page = await self._remote.fetch_public_rooms(server, wanted)
            except (MatrixError, *REQUEST_FAILURES) as problem:
                raise LocalProtocolError(f"the rooms of {server} cannot be listed: {problem}") from None
        chunk = page.get("chunk") if isinstance(page, dict) else None
        listed = chunk[:limit] if isinstance(chunk, list) else []
        found = (self._read_summary(one) for one in listed)
        return [match for match in found if match is not None]

    def _read_summary(self, said: Any) -> RoomMatch | None:
        """A room as a server lists it; None for one without an alias by which it can be joined."""
        alias = said.get("canonical_alias") if isinstance(said, Mapping) else None
        if not isinstance(alias, str) or not ids.is_valid_alias(alias):
            return None
        members = said.get("num_joined_members")
        return RoomMatch(
            network=self._own.ctx.id,
            address=alias,
            name=_text_of(said, "name"),
            topic=_text_of(said, "topic"),
            members=members if type(members) is int and members >= 0 else 0,
        )


def _text_of(said: Mapping[str, Any], field: str) -> str:
    text = said.get(field)
    return text[:_MAX_TEXT] if isinstance(text, str) else ""
