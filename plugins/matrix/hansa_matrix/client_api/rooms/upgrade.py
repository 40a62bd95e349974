"""The replacement of a room by one of another version. SPEC: client-server API, "Room Upgrades"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import CannotOpenRoom, Request

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.account.upgraded_rooms import UpgradedRooms
from hansa_matrix.client_api.http import (
    Handler,
    RateLimited,
    error_from_refusal,
    get_string,
)
from hansa_matrix.client_api.rooms.create_room import user_ids
from hansa_matrix.client_api.rooms.local_sender import LocalSender
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto.room_versions import VERSIONS
from hansa_matrix.rooms.upgrade.upgrade_room import RoomUpgrades


class UpgradeEndpoints:
    """Replaces a room, and takes the settings that its user had for the old one to the new one."""

    def __init__(self, sender: LocalSender, upgrades: RoomUpgrades, upgraded: UpgradedRooms) -> None:
        self._voice = sender
        self._upgrades = upgrades
        self._upgraded = upgraded

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {("POST", "/v3/rooms/{room}/upgrade"): RateLimited(self.upgrade)}

    async def upgrade(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /rooms/{roomId}/upgrade``."""
        version = get_string(body, "new_version")
        if version not in VERSIONS:
            raise matrix_error(400, "M_UNSUPPORTED_ROOM_VERSION", "the room version is not supported")
        room = self._voice.require_joined(caller.user, request.path["room"])
        supported = VERSIONS[version].privileged_creators
        creators = user_ids(body, "additional_creators") if supported else []
        try:
            replacement = await self._upgrades.replace(room, version, caller.user, creators)
        except CannotOpenRoom as problem:
            raise error_from_refusal(problem.refusal) from problem
        await self._upgraded.copy_account_data(caller.user, replacement)
        return {"replacement_room": replacement}
