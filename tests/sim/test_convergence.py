"""Three to five servers of every room version go on while nothing can be relied on; afterwards all agree.

The published failures of others are here by name: a membership restored differently after a netsplit, a user who
joined twice over two servers, an event that was accepted and then lost at a restart.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hansa import Message, StoreFault
from hansa.testing.sim import Crashed, FaultPlan, Simulation, inject_faults, seeds, simulate
from hansa_matrix.rooms.redactions import target_of
from sim.federation import Server, same_everywhere, tie_together
from sim.test_divergence import _done, _mischief, _speak, _town

pytestmark = pytest.mark.sim

VERSIONS = tuple(str(number) for number in range(1, 13))


async def _redact_some(sim: Simulation, server: Server, count: int) -> None:
    """People of a server take back what they or others said, where the rules let them."""
    for _ in range(count):
        await asyncio.sleep(sim.chance.between(0.5, 8.0))
        try:
            events = [e for e, status in sorted((await server.placed()).items()) if status == "accepted"]
            target = events[sim.chance.below(len(events))]
            loaded = await server.room.events.load([target], server.room.version)
        except (Crashed, KeyError, StoreFault):
            continue
        if loaded[target].pdu.type != "m.room.message":
            continue
        actor = ("ann", "bob", "cat", "hansa")[sim.chance.below(4)]
        await server.act(actor, "m.room.redaction", None, {"redacts": target})


async def _words(server: Server) -> list[str]:
    """Returns the texts that users can read on a server, in no order."""
    return sorted(text for text in await server.texts() if text)


async def _same_words(servers: list[Server]) -> None:
    """Everybody shows the same words, each once, but for those that some had to soft-fail: what its server
    took before it knew of a ban stays shown there.
    """
    doubtful: set[str] = set()
    for server in servers:
        placed = await server.placed()
        failed = [e for e, status in placed.items() if status in {"soft_failed", "rejected"}]
        for event_id, one in (await server.room.events.load(failed, server.room.version)).items():
            # A redaction that failed here may have had its effect elsewhere.
            doubtful |= {event_id, target_of(one.pdu, server.room.version) or ""}
    shown = []
    for server in servers:
        log = [e for e in await server.log() if isinstance(e.content, Message) and e.content.text]
        context = server.machine.running.contexts["matrix"]
        named = [(await context.native_id(e), e.content.text) for e in log]
        assert len({name for name, _ in named}) == len(named), f"{server.name} shows something twice"
        shown.append({(name, text) for name, text in named if name not in doubtful})
    for server, theirs in zip(servers[1:], shown[1:], strict=True):
        differ = theirs ^ shown[0]
        assert not differ, f"{server.name} and {servers[0].name} differ in {differ}"


def _town_of(seed: int, keys: Path, parted: tuple[float, float] = (1.0, 40.0)) -> str:
    async def scenario(sim: Simulation) -> None:
        version = VERSIONS[sim.seed % len(VERSIONS)]
        servers = await _town(sim, keys, 3 + sim.seed % 3, version)
        trouble = asyncio.ensure_future(inject_faults(sim, 40.0, FaultPlan(parted=parted)))
        await asyncio.gather(
            *(_mischief(sim, server, servers, 6) for server in servers),
            *(_redact_some(sim, server, 2) for server in servers),
        )
        await trouble
        await tie_together(sim, servers, _speak)
        await same_everywhere(servers)
        await _same_words(servers)

    return simulate(scenario, seed)


@pytest.mark.parametrize("seed", seeds(200))
def test_all_have_one_state_and_show_the_same_words(seed: int, tmp_path: Path):
    _town_of(seed, tmp_path)


@pytest.mark.parametrize("seed", seeds(12))
def test_a_membership_is_the_same_everywhere_after_a_netsplit(seed: int, tmp_path: Path):
    """On one side a user is banned, on the other they leave and come back; each side is sure of its own
    state.
    """

    async def scenario(sim: Simulation) -> None:
        servers = await _town(sim, tmp_path, 3, VERSIONS[sim.seed % 12])
        first, second, third = servers
        cat = third.user("cat")
        sim.network.partition([first.name], [second.name, third.name])
        await _done(first.act("ann", "m.room.member", cat, {"membership": "ban"}))
        await _done(third.act("cat", "m.room.member", cat, {"membership": "leave"}))
        await _done(third.act("cat", "m.room.member", cat, {"membership": "join", "displayname": "again"}))
        sim.network.heal()
        await tie_together(sim, servers, _speak)
        await same_everywhere(servers)
        state = await first.room.state()
        event = (await first.room.events.load([state["m.room.member", cat]], first.room.version)).values()
        assert next(iter(event)).pdu.membership == "ban"

    simulate(scenario, seed)


@pytest.mark.parametrize("seed", seeds(12))
def test_two_servers_that_join_at_once_are_both_in_on_every_server(seed: int, tmp_path: Path):
    """Neither join may undo the other, whichever resident each came by."""

    async def scenario(sim: Simulation) -> None:
        servers = await _town(sim, tmp_path, 2, VERSIONS[sim.seed % 12])
        room, version = f"#lobby:{servers[0].server_name}", VERSIONS[sim.seed % 12]
        rest = [Server(sim, name, tmp_path, room=room, version=version) for name in ("d", "e")]
        await asyncio.gather(*(server.machine.start() for server in rest))
        for server in rest:
            await sim.until(lambda server=server: server.linked, "in the room", within=900.0)
        servers += rest
        await tie_together(sim, servers, _speak)
        await same_everywhere(servers)
        view = await servers[0].view()
        for server in rest:
            assert view[server.user("hansa")][0].value == "join"

    simulate(scenario, seed)


@pytest.mark.parametrize("seed", seeds(12))
def test_what_was_accepted_is_there_after_every_restart(seed: int, tmp_path: Path):
    async def scenario(sim: Simulation) -> None:
        servers = await _town(sim, tmp_path, 3, VERSIONS[sim.seed % 12])
        for round_ in range(6):
            server = servers[sim.chance.below(3)]
            await _speak(server, f"word {round_}")
            victim = servers[sim.chance.below(3)]
            victim.machine.crash()
            await victim.machine.restart()
            await sim.until(lambda victim=victim: victim.linked, "up again", within=900.0)
        await tie_together(sim, servers, _speak)
        await same_everywhere(servers)
        for server in servers:
            said = await _words(server)
            assert [w for w in said if w.startswith("word")] == [f"word {n}" for n in range(6)]

    simulate(scenario, seed)
