"""A row that says that a batch was taken is written with the last of it, or not at all."""

from __future__ import annotations

import asyncio

import pytest
from hansa import Collection, Conflict, Insert, InternalError, Message, NativeId, Schema, Submission
from hansa.testing import run_hansa
from hansa.testing.actor import Actor, Config, module

ROOM = (("left:a", "right:b"), ("left:c", "right:d"))
RECEIPTS = Schema(owner="left", version=1, collections=(Collection(name="receipt", key={"id": str}),))
RECEIPT = Insert("receipt", ("r1",), b"taken")


def said(text: str, *, room: str = "a", origin: str = "") -> Submission:
    return Submission(
        origin=NativeId("left", origin or text),
        room=NativeId("left", room),
        sender=NativeId("left", "ann@x"),
        content=Message(text=text),
        ts=0,
    )


class Watched:
    """A store that says which texts and receipts each of its commits held."""

    def __init__(self, app):
        self._inner, self.commits, self.poison = app.store.inner, [], b""
        app.store.inner = self

    def __getattr__(self, name):
        return getattr(self._inner, name)

    async def commit(self, scope, writes, **options):
        if self.poison and any(self.poison in getattr(write, "body", b"") for write in writes):
            raise RuntimeError("poison")
        kinds = [write.collection.rpartition("/")[2] for write in writes]
        self.commits.append((kinds.count("event"), kinds.count("receipt")))
        return await self._inner.commit(scope, writes, **options)


def house(made):
    plugin = module(made)
    return run_hansa({"left": (plugin, Config()), "right": (plugin, Config())}, rooms=ROOM)


async def test_a_receipt_is_committed_with_the_last_event():
    made: dict[str, Actor] = {}
    async with house(made) as app:
        left = made["left"]
        await left.ctx.store.declare(RECEIPTS)
        watched = Watched(app)
        outcomes = await left.ctx.submit([said("one"), said("two")], receipt=RECEIPT)
        assert [o.event.seq for o in outcomes if o.event] == [1, 2]
        assert (2, 1) in watched.commits and sum(r for _, r in watched.commits) == 1
        assert (await left.ctx.store.get("receipt", ("r1",))).body == b"taken"


async def test_a_receipt_that_is_there_takes_nothing_of_the_last_event_and_says_so(caplog):
    made: dict[str, Actor] = {}
    async with house(made) as app:
        left = made["left"]
        await left.ctx.store.declare(RECEIPTS)
        await left.ctx.submit([said("one")], receipt=RECEIPT)
        other = asyncio.ensure_future(left.ctx.submit([said("by somebody else")]))
        with pytest.raises(Conflict):
            await left.ctx.submit([said("two")], receipt=RECEIPT)
        assert (await other)[0].event is not None
        assert next(iter(app.rooms)).head == 2
        assert not [r for r in caplog.records if r.exc_info]


async def test_a_batch_that_is_in_the_log_already_has_its_receipt_nevertheless():
    made: dict[str, Actor] = {}
    async with house(made):
        left = made["left"]
        await left.ctx.store.declare(RECEIPTS)
        await left.ctx.submit([said("one")])
        outcomes = await left.ctx.submit([said("one")], receipt=RECEIPT)
        assert outcomes[0].duplicate
        assert await left.ctx.store.get("receipt", ("r1",)) is not None


async def test_no_receipt_for_a_batch_of_which_one_failed():
    made: dict[str, Actor] = {}
    async with house(made) as app:
        left = made["left"]
        await left.ctx.store.declare(RECEIPTS)
        watched = Watched(app)
        watched.poison = b"poisoned"
        with pytest.raises(InternalError):
            await left.ctx.submit([said("one"), said("poisoned"), said("three")], receipt=RECEIPT)
        assert await left.ctx.store.get("receipt", ("r1",)) is None
        watched.poison = b""
        outcomes = await left.ctx.submit([said("one"), said("poisoned"), said("three")], receipt=RECEIPT)
        assert [o.duplicate for o in outcomes] == [True, False, True]
        assert await left.ctx.store.get("receipt", ("r1",)) is not None


async def test_a_receipt_waits_for_the_other_rooms_of_its_batch():
    made: dict[str, Actor] = {}
    async with house(made) as app:
        left = made["left"]
        await left.ctx.store.declare(RECEIPTS)
        watched, go_on = Watched(app), asyncio.Event()
        commit, other = watched.commit, asyncio.Event()

        async def slow(scope, writes, **options):
            body = b"".join(getattr(write, "body", b"") for write in writes)
            if b"one" in body:
                await go_on.wait()
            found = await commit(scope, writes, **options)
            if b"two" in body:
                other.set()
            return found

        watched.commit = slow
        submitted = asyncio.ensure_future(
            left.ctx.submit([said("one"), said("two", room="c")], receipt=RECEIPT)
        )
        await other.wait()
        assert await left.ctx.store.get("receipt", ("r1",)) is None
        go_on.set()
        await submitted
        assert await left.ctx.store.get("receipt", ("r1",)) is not None
