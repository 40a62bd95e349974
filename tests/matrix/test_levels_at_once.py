"""Power levels that are made of those before: of two changes at once none takes back the other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from hansa_matrix.proto.auth_rules.state_keys import POWER_LEVELS_KEY
from matrix.server_with_peer import THEIRS, ServerWithPeer, server_with_peer

USERS = [f"@u{number}:{THEIRS}" for number in range(4)]


async def levels(house: ServerWithPeer) -> Mapping[str, Any]:
    room = house.matrix.get_room(house.room.room_id)
    assert room is not None
    return (await room.events_of(await room.state(), [POWER_LEVELS_KEY]))[POWER_LEVELS_KEY].content


async def test_commands_that_set_levels_at_once_all_count(tmp_path):
    async with server_with_peer(tmp_path) as house:
        set_level = house.matrix.network.admin_commands()["rooms level"]
        asked = [{"room": house.room.room_id, "user": user, "level": 50} for user in USERS]
        await asyncio.gather(*(set_level(one) for one in asked))
        assert dict.fromkeys(USERS, 50).items() <= (await levels(house))["users"].items()
