"""A verdict belongs to the policies that gave it: under others everything is judged again."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import Any

import pytest
from hansa import (
    Action,
    EventIn,
    EventOut,
    Member,
    Membership,
    Name,
    NativeId,
    PeerConnect,
    Policy,
    Reason,
    RetryLater,
    StoreFault,
    Topic,
    Verdict,
    hookimpl,
    texts_of,
)
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.environment import Environment, SystemRandom
from hansa.setup import PolicySetup
from hansa.store.faults import FaultKind
from hansa.store.memory import MemoryDisk, MemoryStore
from hansa.testing import ManualClock, run_hansa, until
from hansa.testing.actor import Actor, Config, module
from pydantic import BaseModel, ConfigDict

ROOM = (("left:a", "right:b"),)


class Words(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    words: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()


class Censor:
    """Denies words on the way in and servers on either way; counts what it is asked."""

    asked: list[Any]

    def __init__(self, ctx):
        self.config = ctx.config
        self.asked = []

    @hookimpl
    async def check(self, crossing):
        self.asked.append(crossing)
        denied = set(self.config.words) & set(texts_of(crossing))
        if isinstance(crossing, EventIn):
            denied |= {crossing.facts.sender_server} & set(self.config.servers)
        if isinstance(crossing, EventOut):
            denied |= crossing.view.servers() & set(self.config.servers)
        if isinstance(crossing, PeerConnect):
            denied |= {crossing.server} & set(self.config.servers)
        if not denied:
            return None
        return Verdict(Action.DENY, (Reason(code="CENSOR", policy="censor", rule=min(denied)),))


def censor(**config) -> tuple[list[PolicySetup], list[Policy]]:
    made: list[Policy] = []

    def open_policy(ctx):
        made.append(Censor(ctx))
        return made[-1]

    plugin: Any = ModuleType("hansa_censor")
    plugin.api, plugin.Config, plugin.open_policy = 1, Words, hookimpl(open_policy)
    sys.modules.setdefault(plugin.__name__, plugin)
    return [PolicySetup(name="censor", module=plugin, options=Words(**config))], made


def networks(made, hosted=False):
    plugin = module(made, hosted=hosted)
    return {"left": (plugin, Config()), "right": (plugin, Config())}


async def test_a_reload_reaches_what_waits_to_be_delivered():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        away = True

        def fail(_):
            if away:
                raise RetryLater("away", after=0.01)

        made["right"].before_send = fail
        for text in ("first", "secret", "fine"):
            await made["left"].say("a", "ann@x", text)
        await made["left"].say("a", "eve@evil", "hello")
        consumer = app.consumers["right:b"]
        await until(lambda: consumer.waiting_since)
        await app.reload_policies(censor(words=["secret"], servers=["evil"])[0])
        away = False
        await made["left"].say("a", "ann@x", "last")
        # What is under way when the policies change is sent as it was decided.
        assert await made["right"].until("b", 3) == ["first", "fine", "last"]


async def test_a_reload_reaches_what_is_read_as_history_of_everybody():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        for person, text in (("ann@x", "secret"), ("ann@x", "fine"), ("eve@evil", "hello")):
            await made["left"].say("a", person, text)

        async def read():
            return {
                name: [e.content.text for e in await made[name].ctx.read_history(native, limit=10)]
                for name, native in (("left", "a"), ("right", "b"))
            }

        everything = ["secret", "fine", "hello"]
        assert await read() == {"left": everything, "right": everything}
        await app.reload_policies(censor(words=["secret"], servers=["evil"])[0])
        assert await read() == {"left": ["fine"], "right": ["fine"]}
        decided = len(await app.decisions.log(100))
        assert await read() == {"left": ["fine"], "right": ["fine"]}
        assert len(await app.decisions.log(100)) == decided, "read again, judged once"
        await app.reload_policies([])
        assert await read() == {"left": everything, "right": everything}


async def test_a_reload_reaches_dead_letters_that_are_tried_again():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        from hansa import DeliveryRejected

        def refuse(_):
            raise DeliveryRejected("no")

        made["right"].before_send = refuse
        await made["left"].say("a", "ann@x", "secret")
        consumer = app.consumers["right:b"]
        await until(lambda: consumer.position >= 1)
        made["right"].before_send = lambda _: None
        await app.reload_policies(censor(words=["secret"])[0])
        assert await app.retry_dead_letters("right:b", None) == {"sent": 0, "failed": 1}
        await app.reload_policies([])
        assert await app.retry_dead_letters("right:b", None) == {"sent": 1, "failed": 0}


async def test_a_submission_judged_under_older_policies_is_judged_again_at_its_turn():
    made: dict[str, Actor] = {}
    setups, _ = censor()
    async with run_hansa(networks(made), rooms=ROOM, policies=setups) as app:
        admit = app.pipeline._admission.admit
        reloaded = 0

        async def admit_and_reload(room, items):
            nonlocal reloaded
            await admit(room, items)
            if not reloaded:  # after the verdict, before the turn
                reloaded += 1
                await app.reload_policies(censor(words=["secret"])[0])

        app.pipeline._admission.admit = admit_and_reload
        outcome = await made["left"].say("a", "ann@x", "secret")
        assert reloaded and outcome.refusal is not None and outcome.event is None
        assert (await made["left"].say("a", "ann@x", "fine")).event.generation == app.decisions.generation


async def test_a_restart_with_the_same_policies_judges_nothing_again():
    disk = MemoryDisk()
    made: dict[str, Actor] = {}
    setups, _ = censor(words=["secret"])
    async with run_hansa(networks(made), rooms=ROOM, policies=setups, store=MemoryStore(disk)) as app:
        await made["left"].say("a", "ann@x", "hello")
        first = app.decisions.generation
        assert first > 0
    setups, opened = censor(words=["secret"])
    async with run_hansa(networks(made), policies=setups, store=MemoryStore(disk)) as app:
        assert app.decisions.generation == first
        assert len(await made["left"].ctx.read_history("a", limit=5)) == 1
        assert opened[0].asked == []
    setups, opened = censor(words=["hello"])
    async with run_hansa(networks(made), policies=setups, store=MemoryStore(disk)) as app:
        assert app.decisions.generation == first + 1
        assert await made["left"].ctx.read_history("a", limit=5) == []
    async with run_hansa(networks(made), store=MemoryStore(disk)) as app:
        assert app.decisions.generation == first + 2
        assert len(await made["left"].ctx.read_history("a", limit=5)) == 1


async def test_without_policies_there_is_no_generation():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        assert (await made["left"].say("a", "ann@x", "hello")).event.generation == 0
        assert made["left"].ctx.policy_generation == app.decisions.generation == 0
        await app.reload_policies([])
        assert app.decisions.generation == 0


async def test_what_is_judged_again_is_nobodys_act():
    made: dict[str, Actor] = {}
    setups, opened = censor()
    async with run_hansa(networks(made), rooms=ROOM, policies=setups) as app:
        await made["left"].say("a", "ann@x", "hello")
        (said,) = [c for c in opened[0].asked if isinstance(c, EventIn)]
        assert said.facts.act == "left:left-said-1"
        setups, opened = censor()
        await app.reload_policies(setups)
        await made["right"].ctx.read_history("b", limit=5)
        again = [c for c in opened[0].asked if isinstance(c, EventIn)]
        assert [c.facts.act for c in again] == [""] and all(c.facts.automatic and c.immutable for c in again)
        assert again[0].facts.sender_server == "x"


@pytest.mark.parametrize("hosted", [True, False])
async def test_the_speakers_own_link_is_judged_where_it_is_ours(hosted):
    made: dict[str, Actor] = {}
    setups, _ = censor(servers=["evil"])
    async with run_hansa(networks(made, hosted=hosted), rooms=ROOM) as app:
        await made["left"].join("a", "eve@evil")
        await made["left"].join("a", "ann@x")
        await app.reload_policies(setups)
        said = await made["left"].say("a", "ann@x", "hello")
        if hosted:  # we would hand it to the denied server
            assert said.refusal is not None and said.refusal.decision
        else:  # it has it already
            assert [link for link, _ in said.event.withheld_from] == ["right:b"]


async def test_a_topic_that_is_withheld_is_not_in_the_view():
    made: dict[str, Actor] = {}
    setups, _ = censor(words=["secret"])
    async with run_hansa(networks(made), rooms=ROOM, policies=setups) as app:
        refused = await made["left"].do("a", "ann@x", Topic(text="secret"))
        assert refused.refusal is not None
        assert next(iter(app.rooms)).view.facts.topic == ""


async def test_two_processes_never_give_one_number_to_different_policies():
    disk = MemoryDisk()
    made: dict[str, Actor] = {}
    one, two = censor(words=["one"])[0], censor(words=["two"])[0]
    async with (
        run_hansa(networks(made), policies=one, store=MemoryStore(disk)) as first,
        run_hansa(networks({}), policies=two, store=MemoryStore(disk)) as second,
    ):
        await asyncio.gather(first.reload_policies(one), second.reload_policies(two))
        assert first.decisions.generation != second.decisions.generation


async def _view(app, native="b"):
    view = await app.contexts["right"].get_judged_view(native)
    names = {person.user.id: person.name for person in view.people.values()}
    return view.facts.name, view.facts.topic, names


async def _said_of_a_room(actor):
    await actor.do(
        "a", "ann@x", Member(user=NativeId("left", "ann@x"), membership=Membership.JOIN, name="secret")
    )
    await actor.do(
        "a", "bob@x", Member(user=NativeId("left", "bob@x"), membership=Membership.JOIN, name="Bob")
    )
    await actor.do(
        "a", "eve@evil", Member(user=NativeId("left", "eve@evil"), membership=Membership.JOIN, name="Eve")
    )
    await actor.do("a", "eve@evil", Name(text="of evil"))
    await actor.do("a", "bob@x", Topic(text="secret"))


HIDDEN = ("", "", {"ann@x": None, "bob@x": "Bob", "eve@evil": None})


async def test_a_reload_reaches_the_name_the_topic_and_what_people_are_called():
    made: dict[str, Actor] = {}
    disk = MemoryDisk()
    async with run_hansa(networks(made), rooms=ROOM, store=MemoryStore(disk)) as app:
        await _said_of_a_room(made["left"])
        assert (await _view(app))[:2] == ("of evil", "secret")
        decided = len(await app.decisions.log(100))
        setups, opened = censor(words=["secret"], servers=["evil"])
        await app.reload_policies(setups)
        assert await _view(app) == HIDDEN
        asked = [one for one in opened[0].asked if isinstance(one, EventIn)]
        assert all(one.facts.act == "" and one.facts.automatic and one.immutable for one in asked)
        assert await _view(app) == HIDDEN
        assert len([one for one in opened[0].asked if isinstance(one, EventIn)]) == len(asked), "judged once"
        assert len(await app.decisions.log(100)) == decided
        assert all(
            person.membership is Membership.JOIN for person in next(iter(app.rooms)).view.people.values()
        )
    setups, opened = censor(words=["secret"], servers=["evil"])
    async with run_hansa(networks(made), policies=setups, store=MemoryStore(disk)) as app:
        assert await _view(app) == HIDDEN
        assert opened[0].asked == [], "the same policies judged it before the restart"


async def test_a_restart_under_other_policies_reaches_what_a_room_says():
    made: dict[str, Actor] = {}
    disk = MemoryDisk()
    async with run_hansa(networks(made), rooms=ROOM, store=MemoryStore(disk)) as app:
        await _said_of_a_room(made["left"])
    setups, _ = censor(words=["secret"], servers=["evil"])
    async with run_hansa(networks(made), policies=setups, store=MemoryStore(disk)) as app:
        assert await _view(app) == HIDDEN


async def test_a_reload_reaches_every_room_in_the_background():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        await _said_of_a_room(made["left"])
        await app.reload_policies(censor(words=["secret"], servers=["evil"])[0])
        room = next(iter(app.rooms))
        await until(lambda: not room.view.facts.topic)


async def test_what_a_room_says_is_hidden_also_while_the_store_takes_nothing():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        await _said_of_a_room(made["left"])
        commit = app.rooms.commit_change

        async def full(*_):
            raise StoreFault(FaultKind.FULL, "the disk is full")

        app.rooms.commit_change = full
        await app.reload_policies(censor(words=["secret"], servers=["evil"])[0])
        assert await _view(app) == HIDDEN
        room = next(iter(app.rooms))
        assert room.generation != app.decisions.generation
        app.rooms.commit_change = commit
        assert await _view(app) == HIDDEN
        assert room.generation == app.decisions.generation


async def test_a_policy_that_cannot_answer_hides_names_and_loses_none():
    made: dict[str, Actor] = {}
    disk = MemoryDisk()
    clock = ManualClock()
    seams = Environment(clock, SystemRandom())
    async with run_hansa(networks(made), rooms=ROOM, store=MemoryStore(disk), seams=seams) as app:
        await _said_of_a_room(made["left"])
        before = await _view(app)
        assert before[0] and before[1]
        room = next(iter(app.rooms))
        await until(lambda: app.consumers["right:b"].position >= room.head)
        asked = 0

        class Away:
            broken = True

            async def check(self, crossing):
                nonlocal asked
                asked += 1
                if self.broken:
                    raise ConnectionError("the service is away")

        away = Away()
        app.decisions.replace([InstalledPolicy(name="away", policy=away)])
        hidden = await _view(app)
        assert hidden[:2] == ("", "") and set(hidden[2].values()) == {None}
        assert asked == 1, "not about each name in turn"
        await app.rooms.reload(room)  # as after a lost race
        assert await _view(app) == hidden
        assert asked == 1, "nor again and again"
        away.broken = False
        clock.advance(60)
        assert await _view(app) == before
        assert room.generation == app.decisions.generation
    async with run_hansa(networks(made), store=MemoryStore(disk)) as app:
        assert await _view(app) == before
