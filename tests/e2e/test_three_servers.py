"""Three servers in one room, two real Synapses and a Hansa: each goes on while it reaches nobody, and all agree
once they meet again, in rooms of several versions hosted by either.
"""

from __future__ import annotations

import asyncio

import pytest
from e2e.sides import Room, Side, mighty
from peers.synapse import Synapse
from peers.tcp_cutter import TcpCutter
from peers.waiting import until

pytestmark = pytest.mark.e2e

VERSIONS = ("10", "11", "12")


async def test_three_servers_agree_after_a_partition(ca, tmp_path, hansa, local_user):
    cables = [TcpCutter() for _ in range(3)]
    synapses = [Synapse(tmp_path / f"synapse{n}", ca, seen_at=cables[n].port) for n in range(2)]
    try:
        await asyncio.gather(*(synapse.start() for synapse in synapses))
        server = await hansa(seen_at=cables[2].port)
        for cable, port in zip(cables, [*(s.fed_port for s in synapses), server.port], strict=True):
            await cable.lay(port)
        sides = []
        for synapse in synapses:
            people = [await local_user(synapse, name) for name in ("mighty", "first", "second")]
            sides.append(Side(synapse.name, *people, synapse.signer()))
        people = [await local_user(server, name) for name in ("mighty", "first", "second")]
        sides.append(Side(server.name, *people, server.signer()))
        rooms = [Room(version, host) for version in VERSIONS for host in (sides[0], sides[2])]
        for room in rooms:
            await room.open(sides)
        for room in rooms:
            await until(f"all have power in {room}", lambda room=room: mighty(room, sides))
        for cable in cables:
            await cable.cut()
        for turn, room in enumerate(rooms):
            await room.act(sides, turn)
        for cable in cables:
            await cable.mend()
        await asyncio.gather(*(room.agree(sides) for room in rooms))
    finally:
        for synapse in synapses:
            synapse.stop()
        for cable in cables:
            await cable.cut()
