"""A table of the worst inputs, each against a real Hansa: what it takes of memory, and for how long nobody else is
served. A bound that is missed once is measured again: a collection of garbage may fall into any of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hostile.cases import ANSWERS, CASES, HELD, MEMORY, Case
from hostile.inputs import VALUES
from hostile.routes import Known, asks, of_matrix
from hostile.scene import Scene

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

_TRIES = 3
#: Machines differ, and others may be at work on them: what fails here held the loop so many times too long. What
#: it is on a machine is printed by ``scripts/bench hostile``. Without their bounds these inputs hold it for 0.4 to 3 s.
_SLACK = 3
#: Threads of the allocator keep what was freed: what fails here took half as much again.
_SPARE = 1.5


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene(ca, tmp_path_factory) -> AsyncIterator[Scene]:
    found = Scene(tmp_path_factory.mktemp("hostile"), ca)
    async with found.cleanup:
        yield await found.start()


async def test_the_table_is_a_table():
    twice = [name for name, count in Counter(case.name for case in CASES).items() if count > 1]
    assert not twice
    assert len(CASES) >= 60
    assert {case.reads for case in CASES} >= set(ANSWERS)


#: Of what bodies are made that go to every route.
_BODIES = ("objects", "keys", "deep", "1e999", "escapes")
#: Larger bodies go to these, which keep them as files.
_FILES = 4 * 1024 * 1024


async def _to_every_route(scene: Scene, routes: list[Known], kind: str) -> list[str]:
    """Returns the routes that went over the bounds."""
    wrong = []
    for route in routes:
        body = VALUES[kind](min(route.max_body, _FILES) - 64)
        least = [float("inf"), float("inf")]
        for _ in range(_TRIES):
            async with scene.meter.measured() as cost:
                status = await asks(scene, route, body)
            assert status < 500, f"{status} to {route.method} {route.path}"
            least = [min(least[0], cost.mib), min(least[1], cost.held)]
            if least[0] <= MEMORY * _SPARE and least[1] <= HELD * _SLACK:
                break
        else:
            wrong.append(f"{route.method} {route.path}: {least[0]:.1f} MiB, held {least[1]:.1f} ms")
    return wrong


@pytest.mark.parametrize("kind", _BODIES)
async def test_every_route_that_takes_a_body(scene: Scene, kind: str, tmp_path):
    found = await of_matrix(tmp_path)
    # The names of before lead to the same endpoints.
    routes = [one for one in found if one.method in {"PUT", "POST", "DELETE"} and "/r0/" not in one.path]
    assert len(routes) > 70
    assert not await _to_every_route(scene, routes, kind)
    await scene.healthy()


async def costs_no_more(scene: Scene, case: Case) -> None:
    """A case costs what it may, once in ``_TRIES``; everybody else is well afterwards."""
    least_mib = least_held = float("inf")
    for _ in range(_TRIES):
        async with scene.meter.measured() as cost:
            await case.run(scene)
        least_mib, least_held = min(least_mib, cost.mib), min(least_held, cost.held)
        print(f"{case.name}: {cost.mib:.1f} MiB, held {cost.held:.1f} ms")
        if least_mib <= case.mib * _SPARE and least_held <= case.held * _SLACK:
            break
    assert (least_mib <= case.mib * _SPARE, least_held <= case.held * _SLACK) == (True, True), (
        least_mib,
        least_held,
    )
    await scene.healthy()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_what_it_costs(scene: Scene, case: Case):
    await costs_no_more(scene, case)
