"""Matrix servers whose databases go away, tell late or do not say what they kept, at any commit."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hansa.testing.sim import CALM, STORM, Simulation, seeds, simulate
from sim.databases import Database, forgive
from sim.federation import same_everywhere, tie_together
from sim.test_convergence import VERSIONS, _redact_some, _same_words
from sim.test_divergence import _mischief, _speak, _town
from sim.test_federation import _begin, _chatter, _end, _servers

pytestmark = pytest.mark.sim


async def _peace(sim: Simulation, databases: list[Database]) -> None:
    for database in databases:
        await database.peace()
    await asyncio.sleep(10.0)  # what waited for a database is begun again within 5 s


def _checked(sim: Simulation, databases: list[Database]) -> None:
    for database in databases:
        database.check()
    forgive(sim)


def _chatting(seed: int, keys: Path) -> str:
    async def scenario(sim: Simulation) -> None:
        servers = _servers(sim, keys, 2 + sim.seed % 2)
        databases = [Database(sim, server.machine) for server in servers]
        await _begin(sim, servers)
        for database in databases:
            database.watch()
            database.trouble = True
        await asyncio.gather(*(_chatter(sim, server, 12) for server in servers))
        await _peace(sim, databases)
        await _end(sim, servers)
        _checked(sim, databases)

    return simulate(scenario, seed)


def _joining(seed: int, keys: Path) -> str:
    async def scenario(sim: Simulation) -> None:
        servers = _servers(sim, keys, 2)
        databases = [Database(sim, server.machine) for server in servers]
        for database in databases:
            database.trouble = True
            await database.start()
        await asyncio.sleep(sim.chance.between(0.0, 60.0))
        await _peace(sim, databases)
        await sim.until(
            lambda: all(server.knows(servers) for server in servers), "everybody is in", within=900.0
        )
        await asyncio.gather(*(_chatter(sim, server, 3) for server in servers))
        await _end(sim, servers)
        _checked(sim, databases)

    return simulate(scenario, seed)


def _acting(seed: int, keys: Path) -> str:
    async def scenario(sim: Simulation) -> None:
        databases: list[Database] = []
        version = VERSIONS[sim.seed % len(VERSIONS)]
        servers = await _town(
            sim,
            keys,
            2 + sim.seed % 2,
            version,
            lambda server: databases.append(Database(sim, server.machine)),
        )
        for database in databases:
            database.watch()
            database.trouble = True
        sim.network.weather = STORM if sim.chance.happens(0.5) else CALM
        await asyncio.gather(
            *(_mischief(sim, server, servers, 8) for server in servers),
            *(_redact_some(sim, server, 2) for server in servers),
        )
        await _peace(sim, databases)
        sim.network.heal()
        await tie_together(sim, servers, _speak)
        await same_everywhere(servers)
        await _same_words(servers)
        _checked(sim, databases)

    return simulate(scenario, seed)


@pytest.mark.parametrize("seed", seeds(40))
def test_what_is_said_is_stored_and_delivered_once_and_in_order(seed: int, tmp_path: Path):
    _chatting(seed, tmp_path)


@pytest.mark.parametrize("seed", seeds(20))
def test_a_room_is_made_and_joined_while_databases_fail(seed: int, tmp_path: Path):
    _joining(seed, tmp_path)


@pytest.mark.parametrize("seed", seeds(12))
def test_state_is_the_same_everywhere_after_databases_failed(seed: int, tmp_path: Path):
    _acting(seed, tmp_path)
