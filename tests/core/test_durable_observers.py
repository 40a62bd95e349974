"""Durable observers: told in order, again after a restart, and at the cost of nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType

import pytest
from hansa import DeliveryRejected, Observation, PluginError, Retraction, RetryLater, hookimpl
from hansa.bus import durable_observers
from hansa.config.reader import parse
from hansa.config.restart import needing_restart
from hansa.setup import ObserverSetup
from hansa.store.memory import MemoryStore
from hansa.testing import Actor, run_hansa, until
from hansa.testing.actor import Config, module


class Listener:
    """Keeps what it is told. ``before`` may raise, to play an observer that cannot."""

    def __init__(self) -> None:
        self.told: list[Observation] = []
        self.tries: list[Observation] = []
        self.before: Callable[[Observation], None] = lambda _: None
        self.open = asyncio.Event()
        self.open.set()

    async def observe(self, observation: Observation) -> None:
        self.tries.append(observation)
        self.before(observation)
        await self.open.wait()
        self.told.append(observation)

    def texts(self) -> list[str]:
        return [getattr(one.event.content, "text", "") for one in self.told]

    async def until_told(self, count: int) -> list[str]:
        async def enough() -> bool:
            return len(self.told) >= count

        await until(enough, 10, what=f"{count} events")
        return self.texts()


def setup(listener: object, name: str = "ear") -> ObserverSetup:
    plugin = ModuleType(f"hansa_{name}_{id(listener)}")
    plugin.api, plugin.Config = 1, Config
    plugin.open_observer = hookimpl(lambda ctx: listener)
    return ObserverSetup(name=name, module=plugin, options=Config())


@pytest.fixture
def made() -> dict[str, Actor]:
    return {}


def hansa(made, *listeners, store=None, rooms=(("left:a",), ("left:b",))):
    observers = [setup(one, f"ear{number}") for number, one in enumerate(listeners)]
    networks = {"left": (module(made), Config())}
    return run_hansa(networks, rooms=rooms, observers=observers, store=store)


async def test_a_restart_tells_what_was_not_told_in_order_and_with_the_same_keys(made):
    store, first, second = MemoryStore(), Listener(), Listener()
    first.open.clear()
    async with hansa(made, first, store=store):
        for number in range(150):
            await made["left"].say("a", "ann@x", str(number))
        await until(lambda: asyncio.sleep(0, bool(first.tries)), 10, what="a first attempt")
    assert not first.told
    async with hansa(made, second, store=store) as app:
        assert await second.until_told(150) == [str(number) for number in range(150)]
        assert second.told[0].key == first.tries[0].key
        assert len({one.key for one in second.told}) == 150
        await until(lambda: asyncio.sleep(0, not dict(behind(app))["ear0"]), 10, what="nothing behind")
    async with hansa(made, third := Listener(), store=store):
        await made["left"].say("b", "ann@x", "once more", origin="more")
        assert await third.until_told(1) == ["once more"], "what is done with is not told again"


def behind(app) -> list[tuple[str, float]]:
    found = [one for read in app.measures for one in read() if one[0] == "observer_behind"]
    return [(labels["observer"], value) for _, labels, value in found]


async def test_a_new_observer_is_told_from_now_on_and_of_new_rooms_all(made):
    store, listener = MemoryStore(), Listener()
    async with hansa(made, store=store):
        await made["left"].say("a", "ann@x", "before")
    async with hansa(made, listener, store=store, rooms=[("left:a",), ("left:new",)]):
        await made["left"].say("new", "ann@x", "new room", origin="new")
        assert await listener.until_told(1) == ["new room"]
        await made["left"].say("a", "ann@x", "after", origin="after")
        assert await listener.until_told(2) == ["new room", "after"]


async def test_an_event_that_cannot_be_taken_yet_holds_up_its_room_alone(made):
    listener, away = Listener(), True

    def before(observation):
        if away and observation.event.content.text == "one":
            raise RetryLater("away", after=0.01)

    listener.before = before
    async with hansa(made, listener) as app:
        await made["left"].say("a", "ann@x", "one")
        await made["left"].say("a", "ann@x", "two")
        for number in range(3):
            await made["left"].say("b", "ann@x", f"other {number}")
        assert await listener.until_told(3) == ["other 0", "other 1", "other 2"]
        await until(lambda: asyncio.sleep(0, len(listener.tries) >= 6), 10, what="more attempts")
        away = False
        assert (await listener.until_told(5))[3:] == ["one", "two"]
        attempts = [one.attempt for one in listener.tries if one.event.content.text == "one"]
        assert attempts == list(range(1, len(attempts) + 1))
        assert ("observer_given_up", (("observer", "ear0"),)) not in app.counters


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (DeliveryRejected("no"), 1),
        (RetryLater("later", after=0.001), 3),
        (RuntimeError("broken"), 2),
        (ValueError(), 2),
    ],
    ids=["rejected", "away", "broken", "broken-without-words"],
)
async def test_what_is_never_taken_is_given_up_and_counted(made, monkeypatch, caplog, error, attempts):
    monkeypatch.setattr(durable_observers, "MAX_ATTEMPTS", 3)
    monkeypatch.setattr(durable_observers, "MAX_BROKEN", 2)
    listener = Listener()

    def before(observation):
        if observation.event.content.text == "bad":
            raise error

    listener.before = before
    async with hansa(made, listener) as app:
        await made["left"].say("a", "ann@x", "bad")
        await made["left"].say("a", "ann@x", "good")
        assert await listener.until_told(1) == ["good"]
        assert len(listener.tries) == attempts + 1
        assert app.counters["observer_given_up", (("observer", "ear0"),)] == 1
    assert "never gets" in caplog.text


async def test_a_slow_observer_delays_neither_deliveries_nor_other_observers(made):
    slow, quick = Listener(), Listener()
    slow.open.clear()
    rooms = [("left:a", "right:b")]
    plugin = module(made)
    networks = {name: (plugin, Config()) for name in ("left", "right")}
    observers = [setup(slow, "slow"), setup(quick, "quick")]
    async with run_hansa(networks, rooms=rooms, observers=observers):
        for number in range(20):
            await made["left"].say("a", "ann@x", str(number))
        assert len(await made["right"].until("b", 20)) == 20
        assert len(await quick.until_told(20)) == 20
        assert not slow.told


async def test_words_that_were_taken_back_meanwhile_are_not_told(made):
    listener, store = Listener(), MemoryStore()
    listener.open.clear()
    async with hansa(made, listener, store=store):
        said = await made["left"].say("a", "ann@x", "a secret")
        gone = await made["left"].do("a", "ann@x", Retraction(target=said.event.id))
        assert gone.event is not None
    async with hansa(made, later := Listener(), store=store):
        texts = await later.until_told(2)
    assert "a secret" not in texts


async def test_an_observer_without_observe_is_refused(made):
    with pytest.raises(PluginError, match="no observe"):
        async with hansa(made, object()):
            pass


def test_a_table_of_the_configuration_opens_it_and_a_change_of_it_waits_for_a_restart(tmp_path):
    plugin = setup(Listener()).module

    def config(**tables):
        data = {"server": {"listen": ["http://127.0.0.1:8008"]}, **tables}
        return parse(data, tmp_path, lambda name, opens="": plugin)

    before, after = config(), config(observers={"ear": {"plugin": "ear"}})
    assert after.observers[0].name == "ear"
    assert needing_restart(before, after) == ["observers.ear"]
    assert needing_restart(after, after) == []
