"""One at a time, and no caller waits for all the work of another."""

from __future__ import annotations

import asyncio

from hansa.model.crossing import DirectoryQuery, ProfileChange
from hansa.model.crossing_parts import source_of
from hansa.model.ref import NativeId
from hansa.pacing.fair_turns import FairTurns


class Log:
    """The turns in order; never two at once."""

    def __init__(self) -> None:
        self.turns = FairTurns()
        self.order: list[str] = []
        self.within = 0

    async def work(self, server: str, person: str = "", *, name: str = "") -> None:
        async with self.turns.of(server, person):
            self.within += 1
            assert self.within == 1
            self.order.append(name or server + person)
            await asyncio.sleep(0)
            self.within -= 1


async def test_servers_take_turns_and_people_of_one_do() -> None:
    log = Log()
    tasks = [log.work("evil") for _ in range(5)]
    tasks += [log.work("here", "greedy") for _ in range(5)] + [log.work("here", "ann"), log.work("far")]
    await asyncio.gather(*tasks)
    assert log.order == [
        *("evil", "evil", "heregreedy", "far", "evil", "hereann"),
        *("evil", "heregreedy", "evil", "heregreedy", "heregreedy", "heregreedy"),
    ]
    await log.work("far", name="again")
    assert log.order[-1] == "again"


async def test_who_gives_up_keeps_nobody_waiting() -> None:
    log = Log()
    first, gone, last = (asyncio.ensure_future(log.work(name)) for name in ("a", "b", "c"))
    await asyncio.sleep(0)
    gone.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(first, last)
    assert log.order == ["a", "c"]
    async with asyncio.timeout(5):
        await log.work("d")


async def test_a_turn_that_comes_to_who_gives_up_goes_on() -> None:
    turns, order = FairTurns(), list[str]()

    async def work(name: str) -> None:
        async with turns.of(name):
            order.append(name)

    async with turns.of("held"):
        first, second = asyncio.ensure_future(work("a")), asyncio.ensure_future(work("b"))
        await asyncio.sleep(0)
    first.cancel()  # its turn has come, it has not run
    async with asyncio.timeout(5):
        await second
    assert order == ["b"]


def test_a_question_is_caused_by_the_server_and_person_that_it_names() -> None:
    user = NativeId("m", "@a:b")
    assert source_of(ProfileChange(network="m", user=user, user_server="b")) == ("b", str(user))
    assert source_of(DirectoryQuery(network="m", server="c", address="", outbound=False)) == ("c", "")
