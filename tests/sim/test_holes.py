"""One server never gets another's keys; the rest of the room does. It goes on with what it can verify, and has
the same as all others once it gets them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hansa.testing.sim import Simulation, seeds, simulate
from hansa_matrix.proto.ids import domain_of
from sim.federation import Server, same_everywhere, tie_together
from sim.test_divergence import _done, _speak, _town

pytestmark = pytest.mark.sim

VERSIONS = tuple(str(number) for number in range(1, 13))


async def _known_of(server: Server, of: list[Server]) -> dict[str, str]:
    """``event -> status`` of what people of some servers made, as a server has it."""
    placed = await server.placed()
    room = server.room
    names = {one.server_name for one in of}
    loaded = await room.events.load(placed, room.version)
    return {e: placed[e] for e, one in loaded.items() if domain_of(one.pdu.sender) in names}


async def _life(servers: list[Server], mute: Server, sim: Simulation, round_: int) -> None:
    """Everybody speaks, and changes what others build on."""
    for server in (*servers, mute):
        await _speak(server, f"{server.name} {round_}")
        await asyncio.sleep(sim.chance.between(0.1, 3.0))
    await _done(servers[0].act("ann", "m.room.topic", "", {"topic": f"round {round_}"}))
    await asyncio.sleep(sim.chance.between(0.1, 3.0))


@pytest.mark.parametrize("seed", seeds(12))
def test_a_server_whose_keys_are_never_had_cuts_nobody_off(seed: int, tmp_path: Path):
    async def scenario(sim: Simulation) -> None:
        version = VERSIONS[sim.seed % len(VERSIONS)]
        servers = await _town(sim, tmp_path, 2, version)
        first, second = servers
        before = await first.placed()
        mute = Server(sim, "m", tmp_path, room=f"#lobby:{first.server_name}", version=version)
        sim.network.cut(second.name, mute.name)
        await mute.machine.start()
        await sim.until(lambda: mute.linked, "in the room", within=900.0)
        for person in ("dan", "eve"):
            content = {"membership": "join"}
            await _done(mute.act(person, "m.room.member", mute.user(person), content))
        for round_ in range(4):
            await _life(servers, mute, sim, round_)
        # A user removes another whose join one of the servers cannot verify.
        await _done(first.act("ann", "m.room.member", mute.user("eve"), {"membership": "leave"}))
        for round_ in range(4, 6):
            await _life(servers, mute, sim, round_)

        async def has_all() -> bool:
            mine, theirs = await _known_of(second, servers), await _known_of(first, servers)
            return theirs.keys() - mine.keys() <= before.keys()

        await sim.until(has_all, "what can be verified is there", within=1800.0, every=5.0)
        assert len(second.room.holes) > 0
        assert await _known_of(second, [mute]) == {}
        here, there = await second.room.state(), await first.room.state()
        differing = {k for k in {*here, *there} if here.get(k) != there.get(k)}
        assert differing == {
            k for k in there if k[0] == "m.room.member" and domain_of(k[1]) == mute.server_name
        }
        # The key is available now.
        sim.network.heal()
        everybody = [*servers, mute]

        async def filled() -> bool:
            theirs = (await first.placed()).keys()
            holes = [*second.room.holes.by_id, *mute.room.holes.by_id]
            return not holes and theirs - (await second.placed()).keys() <= before.keys()

        await sim.until(filled, "the holes are filled", within=4 * 3600.0, every=30.0)
        await tie_together(sim, everybody, _speak)
        await same_everywhere(everybody)

    simulate(scenario, seed)
