"""Work that many tasks do at once is spread over rounds of the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter

from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.bus.policy_engine import PolicyEngine
from hansa.environment import SystemRandom
from hansa.model.crossing import DirectoryQuery, ProfileChange
from hansa.model.ref import NativeId
from hansa.pacing.loop_budget import ROUND, LoopBudget
from hansa.store.base import ScopedStore
from hansa.store.memory import MemoryStore
from hansa.testing import ManualClock


class Rounds:
    """Counts the rounds of the loop."""

    def __init__(self) -> None:
        self.now = 0
        self._tick()

    def _tick(self) -> None:
        self.now += 1
        self.next = asyncio.get_running_loop().call_soon(self._tick)


async def _spent(weight: int, tasks: int) -> Counter[int]:
    budget, rounds, found = LoopBudget(), Rounds(), Counter[int]()

    async def work() -> None:
        await budget.enter()
        found[rounds.now] += weight
        budget.spend(weight)

    await asyncio.gather(*(work() for _ in range(tasks)))
    rounds.next.cancel()
    assert sum(found.values()) == weight * tasks
    return found


async def test_a_round_takes_no_more_than_it_has_room_for():
    assert max((await _spent(ROUND, 50)).values()) == ROUND
    assert max((await _spent(ROUND // 4, 50)).values()) <= ROUND + ROUND // 4


async def test_little_work_waits_for_nothing():
    assert len(await _spent(10, 50)) == 1


async def test_who_gave_up_keeps_nobody_waiting():
    budget = LoopBudget()
    budget.spend(ROUND)
    first, second = asyncio.ensure_future(budget.enter()), asyncio.ensure_future(budget.enter())
    await asyncio.sleep(0)
    first.cancel()
    async with asyncio.timeout(5):
        await second


class Reader:
    """Reads whatever it is asked about, in the round in which it is asked."""

    def __init__(self, rounds: Rounds) -> None:
        self.rounds = rounds
        self.read = Counter[int]()

    async def check(self, crossing: ProfileChange) -> None:
        self.read[self.rounds.now] += sum(map(len, crossing.texts))


async def test_judging_is_spread_also_over_several_policies():
    rounds = Rounds()
    policies = [Reader(rounds) for _ in range(3)]
    installed = [InstalledPolicy(name=str(n), policy=one) for n, one in enumerate(policies)]
    clock = ManualClock()
    decisions = PolicyEngine(ScopedStore(MemoryStore(), ""), clock, SystemRandom(), installed)
    said = ProfileChange(network="m", user=NativeId("m", "@a:b"), user_server="b", texts=("x" * ROUND,))
    await asyncio.gather(*(decisions.judge_and_store(said) for _ in range(20)))
    rounds.next.cancel()
    every = sum((one.read for one in policies), Counter[int]())
    assert sum(every.values()) == 60 * ROUND
    assert max(every.values()) == ROUND


async def test_names_take_room_too():
    rounds = Rounds()
    asked = Counter[int]()

    class Asked:
        async def check(self, crossing: DirectoryQuery) -> None:
            asked[rounds.now] += len(crossing.server)

    installed = [InstalledPolicy(name="p", policy=Asked())]
    decisions = PolicyEngine(ScopedStore(MemoryStore(), ""), ManualClock(), SystemRandom(), installed)
    query = DirectoryQuery(network="m", server="x" * 255, address="", outbound=False)
    await asyncio.gather(*(decisions.judge_and_store(query) for _ in range(200)))
    rounds.next.cancel()
    assert sum(asked.values()) == 200 * 255
    assert max(asked.values()) <= ROUND
