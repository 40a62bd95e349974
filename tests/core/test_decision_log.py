"""How much is kept of decisions: by age, by number, and of strangers."""

from __future__ import annotations

import pytest
from hansa import (
    Action,
    Content,
    DirectoryQuery,
    EventIn,
    Link,
    Message,
    NativeFacts,
    NativeId,
    PeerConnect,
    ProfileQuery,
    Reason,
    RoomView,
    Verdict,
)
from hansa.bus import schema
from hansa.bus.decision_log import OTHERS, Retention
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.bus.policy_engine import PolicyEngine
from hansa.environment import SystemRandom
from hansa.store.base import ScopedStore
from hansa.store.memory import MemoryDisk, MemoryStore
from hansa.testing import ManualClock

ANN = NativeId("one", "ann@x.example")
DAY = 86_400


class Denies:
    def __init__(self, retry_after=0.0):
        self.retry_after = retry_after

    async def check(self, crossing):
        reason = Reason(code="NO", policy="p", rule="r", text="no")
        return Verdict(Action.DENY, (reason,), retry_after=self.retry_after)


async def opened(disk=None, clock=None, retention=None, policy=None):
    store = MemoryStore(disk or MemoryDisk())
    await store.open()
    await store.declare("", schema.SCHEMA)
    installed = [InstalledPolicy(name="p", policy=policy or Denies())]
    scoped, clock = ScopedStore(store, ""), clock or ManualClock()
    decisions = PolicyEngine(scoped, clock, SystemRandom(), installed, retention=retention)
    await decisions.kept.open()
    return decisions, ScopedStore(store, "")


def said(content: Content | None = None):
    return EventIn(
        link=Link(room="r", native=NativeId("one", "a")),
        sender=ANN,
        content=content or Message(text="hello"),
        view=RoomView("r"),
        facts=NativeFacts(sender_server="x.example"),
    )


async def test_eight_thousand_strangers_do_not_fill_the_log():
    clock = ManualClock()
    decisions, store = await opened(clock=clock)
    real = await decisions.judge_and_store(said())
    for n in range(8_000):
        await decisions.judge_and_store(PeerConnect(network="one", server=f"invented-{n}.example"))
    assert await store.count("decision") == 1
    assert await store.count("stranger") <= 1_001
    log = await decisions.log(1_000)
    assert real.decision in {one["id"] for one in log}
    (others,) = [one for one in log if one["facts"].get("server") == OTHERS]
    assert others["count"] == 7_000
    size = sum(len(row.body) for row in await store.scan("stranger", index=("ts",), limit=2_000))
    assert size < 1_000_000


async def test_the_real_ones_stay_in_the_log_whatever_strangers_do():
    decisions, _ = await opened()
    real = [(await decisions.judge_and_store(said())).decision for _ in range(100)]
    for n in range(500):
        await decisions.judge_and_store(PeerConnect(network="one", server=f"s{n}.example"))
        await decisions.judge_and_store(
            ProfileQuery(network="one", server=f"s{n}.example", user=ANN, outbound=False)
        )
        query = DirectoryQuery(network="one", server=f"s{n}.example", address="#a:b", outbound=False)
        await decisions.judge_and_store(query)
    shown = {one["id"] for one in await decisions.log(100)}
    assert set(real) <= shown and len(shown) <= 125


async def test_one_server_has_one_row_that_counts_and_explains_itself():
    clock = ManualClock()
    decisions, store = await opened(clock=clock)
    peer = PeerConnect(network="one", server="evil.example")
    found = set()
    for _ in range(100):
        found.add((await decisions.judge_and_store(peer)).decision)
        clock.advance(30)
    (decision,) = found
    explained = await decisions.explain(decision)
    assert explained["count"] == 100 and explained["facts"]["server"] == "evil.example"
    assert explained["last"] - explained["ts"] == 99 * 30_000
    assert await store.count("stranger") == 1
    assert not (await decisions.judge_and_store(peer)).allowed


async def test_what_strangers_caused_is_known_after_a_restart():
    disk, clock = MemoryDisk(), ManualClock()
    decisions, _ = await opened(disk, clock)
    peer = PeerConnect(network="one", server="evil.example")
    before = (await decisions.judge_and_store(peer)).decision
    decisions, store = await opened(disk, clock)
    assert (await decisions.explain(before))["count"] == 1
    clock.advance(61)
    assert (await decisions.judge_and_store(peer)).decision == before
    assert (await decisions.explain(before))["count"] == 2
    assert await store.count("stranger") == 1


async def test_old_decisions_are_let_go():
    clock = ManualClock(1_700_000_000_000)
    decisions, store = await opened(clock=clock, retention=Retention(days=30))
    await decisions.judge_and_store(said())
    await decisions.judge_and_store(PeerConnect(network="one", server="evil.example"))
    clock.advance(20 * DAY)
    young = (await decisions.judge_and_store(said())).decision
    clock.advance(11 * DAY)
    assert await decisions.kept.prune() == 2
    assert [one["id"] for one in await decisions.log(10)] == [young]
    assert await store.count("decision") == decisions.kept.kept == 1


@pytest.mark.parametrize("over", [0, 700])
async def test_too_many_decisions_are_let_go_oldest_first(over):
    clock = ManualClock(1_700_000_000_000)
    decisions, store = await opened(clock=clock, retention=Retention(rows=50))
    made = []
    for _ in range(50 + over):
        made.append((await decisions.judge_and_store(said())).decision)
        clock.advance(1)
    assert await decisions.kept.prune() == over
    assert [one["id"] for one in await decisions.log(100)] == made[over:]
    assert {name: value for name, labels, value in decisions.kept.measures() if labels["of"] == "acts"} == {
        "decisions_kept": 50.0
    }
    assert await store.count("decision") == 50


async def test_who_goes_on_too_fast_has_one_decision_a_minute():
    clock = ManualClock()
    decisions, store = await opened(clock=clock, policy=Denies(retry_after=5))
    first = {(await decisions.judge_and_store(said())).decision for _ in range(200)}
    assert len(first) == 1 and await store.count("decision") == 1
    clock.advance(61)
    assert (await decisions.judge_and_store(said())).decision not in first


async def test_an_id_that_a_failed_commit_left_is_written_with_the_next_refusal():
    """A sender that goes on too fast has one decision: its row is committed with each refusal until it is
    known to be stored.
    """
    decisions, store = await opened(policy=Denies(retry_after=5.0))
    first, second = await decisions.judge(said()), await decisions.judge(said())
    assert first.verdict.decision == second.verdict.decision
    assert first.writes == second.writes != ()
    await store.commit(second.writes)  # the first one's commit failed
    decisions.committed(second.writes)
    third = await decisions.judge(said())
    assert (third.verdict.decision, third.writes) == (first.verdict.decision, ())
    assert (await decisions.explain(third.verdict.decision))["reasons"][0]["text"] == "no"


async def test_a_decision_that_is_asked_for_alone_is_written_once():
    decisions, store = await opened(policy=Denies(retry_after=5.0))
    verdicts = [await decisions.judge_and_store(said()) for _ in range(3)]
    assert len({verdict.decision for verdict in verdicts}) == 1
    assert await store.count("decision") == 1
    assert (await decisions.judge(said())).writes == ()
