"""The bus, with two scripted networks in one room."""

from __future__ import annotations

import asyncio

import pytest
from hansa import (
    Action,
    Busy,
    Crossing,
    DeliveryRejected,
    EventIn,
    EventOut,
    LocalProtocolError,
    Message,
    NativeId,
    Reason,
    RetryLater,
    Submission,
    Verdict,
    hookimpl,
)
from hansa.host import plugin_contexts
from hansa.setup import PolicySetup
from hansa.store.faults import FaultKind, StoreFault
from hansa.store.memory import MemoryDisk, MemoryStore
from hansa.testing import run_hansa, until
from hansa.testing.actor import Actor, Config, module

ROOM = (("left:a", "right:b"),)


def networks(made: dict[str, Actor], hosted: bool = False):
    plugin = module(made, hosted=hosted)
    return {"left": (plugin, Config()), "right": (plugin, Config())}


async def test_an_event_reaches_the_other_network_once_and_in_order():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        for number in range(30):
            outcome = await made["left"].say("a", "ann@x", f"m{number}")
            assert outcome.event is not None and outcome.event.seq == number + 1
        assert await made["right"].until("b", 30) == [f"m{n}" for n in range(30)]
        assert made["left"].got == {}


async def test_names_of_people_elsewhere_are_remembered_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(plugin_contexts, "_MAX_GHOSTS", 10)
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        ctx = made["right"].ctx
        people = [NativeId("left", f"p{n}@x") for n in range(50)]
        names = [await ctx.get_ghost_id(person) for person in people]
        assert [await ctx.home_of(name) for name in names] == people
        assert [await ctx.get_ghost_id(person) for person in people] == names
        assert len(ctx._ghosts) == len(ctx._known) == 10


async def test_the_same_origin_twice_is_one_event_also_within_a_batch():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        said = [made["left"].say("a", "ann@x", "once", origin="o1") for _ in range(3)]
        outcomes = await asyncio.gather(*said)
        again = await made["left"].say("a", "ann@x", "once", origin="o1")
        assert sorted(o.duplicate for o in outcomes) == [False, True, True]
        assert again.duplicate and again.event is not None
        assert {o.event.id for o in outcomes if o.event} == {again.event.id}
        assert next(iter(app.rooms)).head == 1


async def test_an_echo_under_the_native_id_of_a_sent_event_is_no_new_event():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        await made["left"].say("a", "ann@x", "hello")
        await made["right"].until("b", 1)
        await made["right"].ctx.store.position()
        echo = await made["right"].say("b", "ghost.left.ann@x", "hello", origin="right-sent-0")
        assert echo.duplicate
        assert next(iter(app.rooms)).head == 1


async def test_a_hosted_room_gets_its_own_events_back_in_log_order():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made, hosted=True), rooms=ROOM):
        await made["left"].say("a", "ann@x", "one")
        await made["right"].say("b", "bob@y", "two")
        assert await made["left"].until("a", 2) == ["one", "two"]
        assert await made["right"].until("b", 2) == ["one", "two"]


async def test_a_network_may_speak_only_for_its_own():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        stranger = Submission(
            origin=NativeId("right", "x"),
            room=NativeId("left", "a"),
            sender=NativeId("right", "bob@y"),
            content=Message(text="x"),
            ts=0,
        )
        with pytest.raises(LocalProtocolError, match="may not speak for"):
            await made["left"].ctx.submit([stranger])
        with pytest.raises(LocalProtocolError, match="not linked"):
            await made["left"].say("nowhere", "ann@x", "x")


async def test_a_retry_keeps_order_and_loses_nothing():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        failures = iter(
            [RetryLater("away", after=0.01), RetryLater("still", after=0.01), RuntimeError("bug")]
        )

        def fail(_):
            for error in failures:
                raise error

        made["right"].before_send = fail
        for text in ("one", "two"):
            await made["left"].say("a", "ann@x", text)
        assert await made["right"].until("b", 2) == ["one", "two"]
        assert made["right"].attempts == 5


async def test_what_is_refused_for_good_becomes_a_dead_letter_and_the_next_goes_on():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:

        def refuse(delivery):
            if delivery.content.text == "poison":
                raise DeliveryRejected("too bitter")

        made["right"].before_send = refuse
        await made["left"].say("a", "ann@x", "poison")
        await made["left"].say("a", "ann@x", "fine")
        assert await made["right"].until("b", 1) == ["fine"]
        dead = await app.core.scan("dead", equal=("right:b",))
        assert len(dead) == 1 and b"too bitter" in dead[0].body
        made["right"].before_send = lambda _: None
        assert await app.retry_dead_letters("right:b", None) == {"sent": 1, "failed": 0}
        assert made["right"].texts("b") == ["fine", "poison"]
        assert await app.core.scan("dead", equal=("right:b",)) == []


async def test_after_a_restart_delivery_goes_on_where_it_stood():
    disk, made = MemoryDisk(), dict[str, Actor]()
    async with run_hansa(networks(made), rooms=ROOM, store=MemoryStore(disk)):
        await made["left"].say("a", "ann@x", "before")
        await made["right"].until("b", 1)

        def away(_):
            raise RetryLater("away", after=60)

        made["right"].before_send = away
        await made["left"].say("a", "ann@x", "waits")
    async with run_hansa(networks(made), store=MemoryStore(disk)) as app:
        assert await made["right"].until("b", 1) == ["waits"]
        assert next(iter(app.rooms)).head == 2


async def test_a_full_room_pushes_back_instead_of_growing():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        many = [
            Submission(
                origin=NativeId("left", f"o{n}"),
                room=NativeId("left", "a"),
                sender=NativeId("left", "ann@x"),
                content=Message(text="x"),
                ts=0,
            )
            for n in range(1001)
        ]
        with pytest.raises(Busy):
            await made["left"].ctx.submit(many)
        assert len(await made["left"].ctx.submit(many[:1000])) == 1000


class Judge:
    """A policy that answers what a test wants."""

    def __init__(self, answer):
        self.answer = answer

    @hookimpl
    async def check(self, crossing: Crossing) -> Verdict | None:
        return self.answer(crossing)


def policy(answer, **options) -> PolicySetup:
    import types

    plugin = types.ModuleType(f"judge_{options.get('name', '')}")
    plugin.api, plugin.Config = 1, Config
    plugin.open_policy = hookimpl(lambda ctx: Judge(answer))
    options = {"name": "judge", **options}
    return PolicySetup(module=plugin, options=Config(), **options)


def denies_word(crossing):
    if isinstance(crossing, EventIn) and getattr(crossing.content, "text", "") == "bad":
        return Verdict(Action.DENY, (Reason(code="WORD", policy="judge", rule="bad", text="not here"),))
    return None


async def test_a_denied_event_never_happens_and_its_decision_explains_itself():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM, policies=[policy(denies_word)]) as app:
        outcome = await made["left"].say("a", "ann@x", "bad")
        assert outcome.event is None and outcome.refusal is not None
        assert outcome.refusal.decision in outcome.refusal.text
        explained = await app.decisions.explain(outcome.refusal.decision)
        assert explained["reasons"][0]["code"] == "WORD"
        assert explained["facts"]["sender"] == "left:ann@x"
        await made["left"].say("a", "ann@x", "good")
        assert await made["right"].until("b", 1) == ["good"]


async def test_in_shadow_mode_nothing_is_stopped_and_the_log_says_what_would_be():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM, policies=[policy(denies_word, shadow=True)]) as app:
        assert (await made["left"].say("a", "ann@x", "bad")).event is not None
        assert await made["right"].until("b", 1) == ["bad"]
        rows = await app.core.scan("decision")
        assert len(rows) == 1 and b'"would":"deny"' in rows[0].body and b'"mode":"shadow"' in rows[0].body


@pytest.mark.parametrize("failure", [RuntimeError("bug"), asyncio.CancelledError(), "nonsense"])
async def test_a_policy_that_cannot_answer_counts_as_its_on_error(failure):
    def broken(_):
        if isinstance(failure, BaseException):
            raise failure
        return failure

    for on_error, happens in ((Action.DENY, False), (Action.ALLOW, True)):
        made: dict[str, Actor] = {}
        async with run_hansa(networks(made), rooms=ROOM, policies=[policy(broken, on_error=on_error)]):
            outcome = await made["left"].say("a", "ann@x", "x")
            assert (outcome.event is not None) is happens


async def test_a_policy_that_takes_too_long_counts_as_its_on_error():
    class Slow:
        @hookimpl
        async def check(self, crossing: Crossing) -> Verdict | None:
            await asyncio.Event().wait()
            return None

    made: dict[str, Actor] = {}
    setup = policy(lambda _: None, timeout=0.01)
    setup.module.open_policy = hookimpl(lambda ctx: Slow())
    async with run_hansa(networks(made), rooms=ROOM, policies=[setup]):
        outcome = await made["left"].say("a", "ann@x", "x")
        assert outcome.event is None and outcome.refusal is not None


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_the_order_of_policies_changes_nothing(order):
    both = [policy(denies_word, name="one"), policy(lambda _: None, name="two")]
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM, policies=[both[i] for i in order]):
        assert (await made["left"].say("a", "ann@x", "bad")).refusal is not None


async def test_a_denial_on_one_way_out_decides_that_link_alone():
    def not_right(crossing):
        if isinstance(crossing, EventOut) and crossing.link.id == "right:b":
            return Verdict(Action.DENY, (Reason(code="WAY"),))
        return None

    made: dict[str, Actor] = {}
    plugin = module(made)
    three = {name: (plugin, Config()) for name in ("left", "right", "third")}
    rooms = (("left:a", "right:b", "third:c"),)
    async with run_hansa(three, rooms=rooms, policies=[policy(not_right)]):
        outcome = await made["left"].say("a", "ann@x", "x")
        assert outcome.event is not None
        assert [link for link, _ in outcome.event.withheld_from] == ["right:b"]
        assert await made["third"].until("c", 1) == ["x"]
        assert made["right"].texts("b") == []


async def test_a_crashing_network_restarts_and_the_others_do_not_notice():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        first = made["right"]

        async def crash():
            raise RuntimeError("out of luck")

        await app.runners["right"].up()
        app.runners["right"].spawn(crash(), "crash")
        await app.runners["right"].wait_reconnected()
        assert made["right"] is not first and app.runners["right"].restarts == 1
        assert app.runners["left"].restarts == 0
        await made["left"].say("a", "ann@x", "still here")
        assert await made["right"].until("b", 1) == ["still here"]


async def test_who_gives_up_on_what_happened_already_takes_nobody_along(caplog):
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        await made["left"].say("a", "ann@x", "once", origin="o1")
        inner, reached, go_on = app.store.inner, asyncio.Event(), asyncio.Event()

        class Slow:
            def __getattr__(self, name):
                return getattr(inner, name)

            async def get_many(self, *args):
                found = await inner.get_many(*args)
                reached.set()
                await go_on.wait()
                return found

        app.store.inner = Slow()
        again = asyncio.ensure_future(made["left"].say("a", "ann@x", "once", origin="o1"))
        await reached.wait()
        again.cancel()
        await asyncio.wait({again})
        app.store.inner = inner
        go_on.set()
        outcome = await made["left"].say("a", "ann@x", "next")
        assert outcome.event is not None
        assert not [r for r in caplog.records if r.exc_info]


class Failing:
    """A store that takes nothing of a kind; ``asked`` counts what it did not take."""

    def __init__(self, app, collection):
        self._app, self._inner, self._collection = app, app.store.inner, collection
        self.asked = 0
        app.store.inner = self

    def __getattr__(self, name):
        return getattr(self._inner, name)

    async def commit(self, scope, writes, **options):
        if self._collection in {write.collection for write in writes} and len(writes) == 1:
            self.asked += 1
            raise StoreFault(FaultKind.LOCKED, "busy")
        return await self._inner.commit(scope, writes, **options)

    def mend(self):
        self._app.store.inner = self._inner


@pytest.mark.parametrize("collection", ["alias", "cursor"])
async def test_a_database_that_fails_ends_no_delivery_and_buries_nothing(collection, monkeypatch):
    monkeypatch.setattr("hansa.bus.delivery._MAX_UNKNOWN_FAILURES", 1)
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        await made["left"].say("a", "ann@x", "before")
        await made["right"].until("b", 1)
        failing = Failing(app, collection)
        await made["left"].say("a", "ann@x", "meanwhile")
        await until(lambda: failing.asked >= 2)
        failing.mend()
        await made["left"].say("a", "ann@x", "after")
        assert await made["right"].until("b", 3) == ["before", "meanwhile", "after"]
        assert await app.core.count("dead") == 0
