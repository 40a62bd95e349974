"""State groups: what is grown is what is read back, in rows that any store takes."""

from __future__ import annotations

import random

import pytest
from hansa.pure.errors import LocalProtocolError
from hansa.store.base import MAX_BODY, Scoped
from hansa.store.memory import MemoryStore
from hansa_matrix.room.schema import SCHEMA
from hansa_matrix.room.state import Groups


@pytest.fixture
async def store():
    made = MemoryStore()
    await made.open()
    await made.declare("m", SCHEMA)
    return Scoped(made, "m")


def members(count: int) -> dict[tuple[str, str], str]:
    return {("m.room.member", f"@{n:0240d}:x.example"): f"${n:043d}" for n in range(count)}


async def test_a_room_with_very_many_members_is_kept_in_rows_of_bounded_size(store):
    groups, state = Groups("!r", store, 0), members(20_000)
    group, puts = groups.grow(0, {}, state)
    assert max(len(put.body) for put in puts) < MAX_BODY
    await store.commit(puts)
    fewer = dict(list(state.items())[:10_000])
    less, puts = groups.grow(group, state, fewer)
    await store.commit(puts)
    fresh = Groups("!r", store, less)
    assert await fresh.load(less) == fewer
    assert await fresh.load(group) == state


@pytest.mark.parametrize("seed", range(5))
async def test_a_long_life_reads_back_after_every_step(store, seed):
    chance, groups = random.Random(seed), Groups("!r", store, 0)
    state: dict[tuple[str, str], str] = {}
    group, kept = 0, {}
    for step in range(400):
        after = dict(state)
        if after and chance.random() < 0.2:
            after.pop(chance.choice(list(after)))
        else:
            after["t", str(chance.randrange(30))] = f"$e{step}"
        group, puts = groups.grow(group, state, after)
        await store.commit(puts)
        state = kept[group] = after
    fresh = Groups("!r", store, group)
    for number, wanted in kept.items():
        assert await fresh.load(number) == wanted, f"seed {seed}"


async def test_what_a_turn_abandoned_is_forgotten(store):
    groups = Groups("!r", store, 0)
    first, puts = groups.grow(0, {}, {("a", ""): "$1"})
    await store.commit(puts)
    gone, _ = groups.grow(first, {("a", ""): "$1"}, members(4000))
    groups.forget(first)
    with pytest.raises(LocalProtocolError, match="is gone"):
        await groups.load(gone)
    again, puts = groups.grow(first, {("a", ""): "$1"}, {("a", ""): "$2"})
    await store.commit(puts)
    assert again == first + 1 and await groups.load(again) == {("a", ""): "$2"}
