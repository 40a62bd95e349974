"""The public access of tests to a Matrix network."""

from __future__ import annotations

import pytest
from hansa_matrix.testing import MatrixHarness
from matrix.server_with_peer import OURS, server_with_peer


async def test_each_part_of_a_network_has_a_name(tmp_path):
    async with server_with_peer(tmp_path) as house:
        names = [name for name, value in vars(MatrixHarness).items() if isinstance(value, property)]
        missing = [name for name in names if getattr(house.matrix, name, None) is None]
        assert missing == []
        assert house.matrix.server_name == OURS
        room = house.room.room_id
        assert house.matrix.get_room(room) is house.matrix.rooms[room]
        topic = {"topic": "tests"}
        sent = await house.matrix.local_events.send_state(room, "m.room.topic", "", topic)
        assert sent


@pytest.mark.parametrize("network", [None, object()])
def test_another_network_has_no_parts(network):
    with pytest.raises(TypeError):
        MatrixHarness(network)
