"""Presence of users. SPEC: client-server API, "Presence"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import (
    Request,
)

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.http import (
    Handler,
    RateLimited,
    require_own_user,
)
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto.edus import PresenceEdu
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.users.presence import PresenceTracker

_STATES = ("online", "unavailable", "offline")


class PresenceEndpoints:
    """The endpoints of a user's own presence, and of the presence of users in common rooms."""

    def __init__(self, own: LocalServer, presences: PresenceTracker) -> None:
        self._own = own
        self._presences = presences

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {
            ("GET", "/v3/presence/{user}/status"): self.get_presence,
            ("PUT", "/v3/presence/{user}/status"): RateLimited(self.set_presence),
        }

    async def get_presence(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /presence/{userId}/status``."""
        user = request.path["user"]
        if user != caller.user and not self._own.memberships.share_a_room(
            caller.user, await self._own.ctx.home_of(user)
        ):
            raise matrix_error(
                403, "M_FORBIDDEN", "you can only see the presence of users who share a room with you"
            )
        known = self._presences.get(user)
        if known is None:
            return {"presence": "offline"}
        message = {"status_msg": known.status} if known.status else {}
        return {"presence": known.presence, "currently_active": known.active, **message}

    async def set_presence(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /presence/{userId}/status``."""
        require_own_user(caller, request)
        state, message = body.get("presence"), body.get("status_msg")
        if state not in _STATES or not isinstance(message, str | None) or len(message or "") > 1000:
            raise matrix_error(
                400, "M_BAD_JSON", f"presence is {', '.join(_STATES)}, and status_msg short text"
            )
        one = PresenceEdu(user=caller.user, presence=state, active=state == "online", status=message or "")
        await self._presences.require_allowed_status(one)
        await self._presences.set_local(one)
        return {}
