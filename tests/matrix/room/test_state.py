"""State groups: what is grown is what is read back, in rows that any store takes."""

from __future__ import annotations

import random

import orjson
import pytest
from hansa.pure.errors import LocalProtocolError
from hansa.store.base import MAX_BODY, Scoped
from hansa.store.memory import MemoryStore
from hansa_matrix.room.state import Groups
from hansa_matrix.schema import SCHEMA


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
            group, puts = groups.grow(group, state, after)
        else:
            key = "t", str(chance.randrange(30))
            after[key] = f"$e{step}"
            group, puts = groups.after(group, state, key, after[key])
        await store.commit(puts)
        state = kept[group] = after
    fresh = Groups("!r", store, group)
    for number, wanted in kept.items():
        assert await fresh.load(number) == wanted, f"seed {seed}"


async def test_one_event_more_is_one_line_however_large_the_state(store):
    groups, state = Groups("!r", store, 0), members(3000)
    group, puts = groups.grow(0, {}, state)
    await store.commit(puts)
    for number in range(300):
        group, puts = groups.after(group, state, ("topic", ""), f"$t{number}")
        assert [len(orjson.loads(put.body)[1]) for put in puts] == [1]
        await store.commit(puts)
        state = {**state, ("topic", ""): f"$t{number}"}
    assert await Groups("!r", store, group).load(group) == state


async def test_a_small_state_is_whole_again_after_a_hundred_events(store):
    groups, state, rows = Groups("!r", store, 0), members(10), dict[int, bytes]()
    group, puts = groups.grow(0, {}, state)
    for number in range(250):
        rows |= {int(put.key[1]): put.body for put in puts}
        group, puts = groups.after(group, state, ("topic", ""), f"$t{number}")
    parents = [orjson.loads(body)[0] for body in rows.values()]
    assert parents.count(0) == 3


@pytest.mark.parametrize(("size", "most"), [(10, 100), (1_000, 21), (5_000, 8)])
async def test_what_is_kept_in_memory_is_bounded_by_its_size(store, size, most):
    groups, state = Groups("!r", store, 0), members(size)
    group, puts = groups.grow(0, {}, state)
    for number in range(150):
        await store.commit(puts)
        group, puts = groups.after(group, state, ("topic", ""), f"$t{number}")
    await store.commit(puts)
    assert most - 1 <= len(groups._kept) <= most
    assert groups._entries == sum(map(len, groups._kept.values()))
    assert groups._length.keys() == groups._kept.keys()
    groups.forget(0)
    assert groups._entries == 0


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


@pytest.mark.parametrize("seed", range(5))
async def test_values_of_many_groups_are_those_of_the_whole_states(store, seed):
    """Also where branches follow one group, a state is stored whole anew, and keys are gone."""
    chance, groups = random.Random(seed), Groups("!r", store, 0)
    kept: dict[int, dict[tuple[str, str], str]] = {0: {}}
    for step in range(400):
        parent = chance.choice(list(kept)[-4:])
        after = dict(kept[parent])
        if after and chance.random() < 0.2:
            after.pop(chance.choice(list(after)))
            group, puts = groups.grow(parent, kept[parent], after)
        else:
            key = "t", str(chance.randrange(40))
            after[key] = f"$e{step}"
            group, puts = groups.after(parent, kept[parent], key, after[key])
        await store.commit(puts)
        groups.committed()
        kept[group] = after
    for fresh in (Groups("!r", store, groups.last), groups):
        wanted = {("t", str(n)): chance.choice(list(kept)) for n in range(45)}
        found = await fresh.values(wanted)
        assert found == {key: kept[g][key] for key, g in wanted.items() if key in kept[g]}, f"seed {seed}"


async def test_values_of_many_groups_take_few_reads(store, monkeypatch):
    """Every member came by an event of their own, after a state of their own."""
    groups, before, wanted = Groups("!r", store, 0), members(0), dict[tuple[str, str], int]()
    group = 0
    for key, event_id in [*members(1000).items(), *((k, e + "2") for k, e in members(1000).items())]:
        wanted[key] = group
        group, puts = groups.after(group, before, key, event_id)
        before = {**before, key: event_id}
        await store.commit(puts)
    fresh, reads = Groups("!r", store, group), list[str]()
    for name in ("scan", "get", "get_many"):
        read = getattr(store, name)

        async def counted(*args, name=name, read=read, **options):
            reads.append(name)
            return await read(*args, **options)

        monkeypatch.setattr(store, name, counted)
    assert await fresh.values(wanted) == members(1000)
    assert len(reads) <= 21
