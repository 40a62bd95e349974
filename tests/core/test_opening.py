"""A process that starts before its database waits for it, says so, and ends with a code of its own."""

from __future__ import annotations

import asyncio

import pytest
from hansa import serve
from hansa.config.reader import load
from hansa.environment import SystemClock
from hansa.host import loader
from hansa.store import startup
from hansa.store.base import InUse
from hansa.store.faults import FaultKind, StoreFault
from hansa.store.memory import MemoryStore
from hansa.store.startup import open_when_up
from peers.ca import PrivateCA
from peers.hansa import Hansa
from peers.process import Process, free_port
from peers.waiting import until


class Late(MemoryStore):
    """Opens after it has failed with each of some errors. Each time a second passes, or more."""

    def __init__(self, *errors: Exception, step: float = 1.0) -> None:
        super().__init__()
        self.errors = list(errors)
        self.clock = Stepped()
        self._step = step

    async def open(self) -> None:
        self.clock.at += self._step
        if self.errors:
            raise self.errors.pop(0)
        await super().open()


class Stepped(SystemClock):
    at = 0.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture(autouse=True)
def at_once(monkeypatch) -> None:
    monkeypatch.setattr(startup, "ASK_EVERY", 0.0)


AWAY = StoreFault(FaultKind.AWAY, "connection refused")


async def test_one_that_comes_up_is_opened_and_waiting_is_said_every_five_seconds():
    store, said = Late(*[AWAY] * 11), list[str]()
    assert await open_when_up(store, asyncio.Event(), store.clock, said.append)
    assert [line.partition(":")[0] for line in said] == [
        f"waiting for the database, {seconds} s of 120 s" for seconds in (1, 6, 11)
    ]
    assert "connection refused" in said[0]
    await store.close()


async def test_one_that_stays_away_is_given_up():
    store = Late(*[AWAY] * 100, step=10.0)
    with pytest.raises(StoreFault) as caught:
        await open_when_up(store, asyncio.Event(), store.clock, lambda _: None)
    assert caught.value is AWAY and len(store.errors) == 88


@pytest.mark.parametrize(
    "error",
    [StoreFault(FaultKind.FORBIDDEN, "no right"), StoreFault(FaultKind.FAILING, "x"), InUse("h", 1, 10)],
)
async def test_what_waiting_does_not_change_is_raised_at_once(error):
    store = Late(error)
    with pytest.raises(type(error)):
        await open_when_up(store, asyncio.Event(), store.clock, lambda _: None)


async def test_who_is_told_to_stop_meanwhile_stops():
    store, ended = Late(*[AWAY] * 100), asyncio.Event()
    assert not await open_when_up(store, ended, store.clock, lambda _: ended.set())


@pytest.mark.timeout(60)
async def test_a_process_waits_and_a_signal_ends_it(tmp_path):
    house = Hansa(
        tmp_path / "house", PrivateCA(tmp_path / "ca"), store=f"postgres://u:a@127.0.0.1:{free_port()}/x"
    )
    process = Process([*house.python, "-m", "hansa", "run", "-c", str(house.config)], house.folder)

    async def waits() -> bool:
        return "waiting for the database" in process.tail()

    await until("it says that it waits", waits, 30)
    assert process.running
    assert await asyncio.to_thread(process.stop) == 0


async def test_a_process_whose_database_stays_away_ends_with_a_code_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "WAITED_FOR", 0.0)
    url = f"postgres://u:a@127.0.0.1:{free_port()}/x"
    house, said = Hansa(tmp_path / "house", PrivateCA(tmp_path / "ca"), store=url), list[str]()
    assert await serve._run_process(house.config, load(house.config, loader.load_plugin), said.append) == 6
    assert said[-1].startswith("cannot start: the database is away: PostgreSQL x at 127.0.0.1")
