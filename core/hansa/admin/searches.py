"""The admin command that searches for people and rooms."""

from __future__ import annotations

from typing import Any

from hansa.app import App
from hansa.environment import Request
from hansa.host.searches import MAX_MATCHES, MAX_SEARCH
from hansa.model.errors import RemoteProtocolError


class SearchCommands:
    """``hansa search``."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def search(self, request: Request, _body: Any) -> Any:
        """People or rooms of all networks."""
        kind, text = request.path["kind"], request.path["text"]
        if len(text) > MAX_SEARCH:
            raise RemoteProtocolError(f"search for at most {MAX_SEARCH} characters", code="bad-request")
        if kind == "people":
            people = await self._app.searches.find_people(text, limit=MAX_MATCHES)
            return [{"person": str(one.user), "name": one.name} for one in people]
        rooms = await self._app.searches.find_rooms(text, limit=MAX_MATCHES)
        return [
            {
                "room": f"{one.network}:{one.address}",
                "name": one.name,
                "topic": one.topic,
                "members": one.members,
            }
            for one in rooms
        ]
