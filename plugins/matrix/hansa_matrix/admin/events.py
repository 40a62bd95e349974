"""The admin commands that send events in the name of the bridge user. SPEC: client-server API, "Room
Events".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from hansa import (
    AdminCommand,
    LocalProtocolError,
)

from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.levels import level_table
from hansa_matrix.proto.auth_rules.state_keys import CREATE, POWER_LEVELS
from hansa_matrix.rooms.local_events import LocalEvents
from hansa_matrix.rooms.redactions import REDACTION


class EventCommands:
    """State events and redactions by the bridge user, judged by the room's rules like any user's."""

    def __init__(self, events: LocalEvents) -> None:
        self._events = events

    def admin_commands(self) -> Mapping[str, AdminCommand]:
        """See ``hansa.HasAdminCommands.admin_commands``."""
        return {
            "rooms set": self._set_state,
            "rooms level": self._set_power_level,
            "rooms redact": self._redact_event,
        }

    async def _redact_event(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        reason = {"reason": str(arguments["reason"])} if arguments.get("reason") else {}
        content = {"redacts": str(arguments["event"]), **reason}
        return {"event": await self._events.send_state(str(arguments["room"]), REDACTION, None, content)}

    async def _set_state(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        try:
            content = orjson.loads(arguments["content"])
        except orjson.JSONDecodeError as error:
            raise LocalProtocolError(f"the content must be JSON: {error}") from error
        type_ = str(arguments["type"])
        if not isinstance(content, dict) or type_ == CREATE:
            raise LocalProtocolError("the content must be an object, and a room is created only once")
        key = str(arguments.get("key") or "")
        return {"event": await self._events.send_state(str(arguments["room"]), type_, key, content)}

    async def _set_power_level(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        room, user = str(arguments["room"]), str(arguments["user"])
        if not ids.is_valid_user_id(user):
            raise LocalProtocolError(f"{user!r} is not a user ID")
        level = int(arguments["level"])

        def set_level(present: Mapping[str, Any] | None) -> dict[str, Any]:
            content = dict(present or {})
            return content | {"users": {**level_table(content, "users"), user: level}}

        outcome = await self._events.change_power_levels(self._events.user, room, set_level)
        assert outcome is not None
        return {"event": await self._events.require_sent(POWER_LEVELS, outcome)}
