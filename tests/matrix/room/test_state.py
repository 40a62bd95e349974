"""State groups: what is grown is what is read back, in rows that any store takes."""

from __future__ import annotations

import random

import orjson
import pytest
from hansa.model.errors import LocalProtocolError
from hansa.store.base import MAX_BODY, Conflict, ScopedStore
from hansa.store.memory import MemoryStore
from hansa_matrix.rooms.state.state_groups import StateGroups
from hansa_matrix.schema import SCHEMA


@pytest.fixture
async def store() -> ScopedStore:
    made = MemoryStore()
    await made.open()
    await made.declare("m", SCHEMA)
    return ScopedStore(made, "m")


def members(count: int) -> dict[tuple[str, str], str]:
    return {("m.room.member", f"@{n:0240d}:x.example"): f"${n:043d}" for n in range(count)}


async def keep(store, groups):
    await store.commit(groups.drafts())
    groups.committed()


async def test_a_room_with_very_many_members_is_kept_in_rows_of_bounded_size(store):
    groups, state = StateGroups("!r", store, 0), members(20_000)
    group = groups.grow(0, {}, state)
    assert max(len(write.body) for write in groups.drafts()) < MAX_BODY
    await keep(store, groups)
    fewer = dict(list(state.items())[:10_000])
    less = groups.grow(group, state, fewer)
    await keep(store, groups)
    fresh = StateGroups("!r", store, less)
    assert await fresh.load(less) == fewer
    assert await fresh.load(group) == state


@pytest.mark.parametrize("seed", range(5))
async def test_a_long_life_reads_back_after_every_step(store, seed):
    chance, groups = random.Random(seed), StateGroups("!r", store, 0)
    state: dict[tuple[str, str], str] = {}
    group, kept = 0, {}
    for step in range(400):
        after = dict(state)
        if after and chance.random() < 0.2:
            after.pop(chance.choice(list(after)))
            group = groups.grow(group, state, after)
        else:
            key = "t", str(chance.randrange(30))
            after[key] = f"$e{step}"
            group = groups.after(group, state, key, after[key])
        await keep(store, groups)
        state = kept[group] = after
    fresh = StateGroups("!r", store, group)
    for number, wanted in kept.items():
        assert await fresh.load(number) == wanted, f"seed {seed}"


async def test_one_event_more_is_one_line_however_large_the_state(store):
    groups, state = StateGroups("!r", store, 0), members(3000)
    group = groups.grow(0, {}, state)
    await keep(store, groups)
    for number in range(300):
        group = groups.after(group, state, ("topic", ""), f"$t{number}")
        assert [len(orjson.loads(write.body)[1]) for write in groups.drafts()] == [1]
        await keep(store, groups)
        state = {**state, ("topic", ""): f"$t{number}"}
    assert await StateGroups("!r", store, group).load(group) == state


async def test_a_small_state_is_whole_again_after_a_hundred_events(store):
    groups, state, rows = StateGroups("!r", store, 0), members(10), dict[int, bytes]()
    group = groups.grow(0, {}, state)
    for number in range(250):
        rows |= {int(write.key[1]): write.body for write in groups.drafts()}
        group = groups.after(group, state, ("topic", ""), f"$t{number}")
    parents = [orjson.loads(body)[0] for body in rows.values()]
    assert parents.count(0) == 3


@pytest.mark.parametrize(("size", "most"), [(10, 100), (1_000, 21), (5_000, 8)])
async def test_what_is_kept_in_memory_is_bounded_by_its_size(store, size, most):
    groups, state = StateGroups("!r", store, 0), members(size)
    group = groups.grow(0, {}, state)
    for number in range(150):
        await keep(store, groups)
        group = groups.after(group, state, ("topic", ""), f"$t{number}")
    await keep(store, groups)
    assert most - 1 <= len(groups._kept) <= most
    assert groups._entries == sum(map(len, groups._kept.values()))
    assert groups._length.keys() == groups._kept.keys()
    for group in list(groups._kept):
        groups._uncache_state(group)
    assert groups._entries == 0


async def test_what_a_turn_abandoned_is_forgotten_and_its_number_is_not_given_again(store):
    groups = StateGroups("!r", store, 0)
    first = groups.grow(0, {}, {("a", ""): "$1"})
    await keep(store, groups)
    gone = groups.grow(first, {("a", ""): "$1"}, members(4000))
    assert groups.forget() and not groups.forget()
    with pytest.raises(LocalProtocolError, match="is gone"):
        await groups.load(gone)
    again = groups.grow(first, {("a", ""): "$1"}, {("a", ""): "$2"})
    await keep(store, groups)
    assert again > gone and await groups.load(again) == {("a", ""): "$2"}


async def test_two_who_make_a_group_of_one_number_never_write_one_over_the_other(store):
    one, other = StateGroups("!r", store, 0), StateGroups("!r", store, 0)
    kept, lost = one.grow(0, {}, {("a", ""): "$1"}), other.grow(0, {}, {("a", ""): "$2"})
    assert kept == lost
    await keep(store, one)
    with pytest.raises(Conflict):
        await keep(store, other)
    other.forget()
    await other.catch_up()
    anew = other.grow(0, {}, {("a", ""): "$2"})
    await keep(store, other)
    fresh = StateGroups("!r", store, 0)
    assert await fresh.load(kept) == {("a", ""): "$1"} and await fresh.load(anew) == {("a", ""): "$2"}


@pytest.mark.parametrize("seed", range(5))
async def test_values_of_many_groups_are_those_of_the_whole_states(store, seed):
    """Also where branches follow one group, a state is stored whole again, and keys are gone."""
    chance, groups = random.Random(seed), StateGroups("!r", store, 0)
    kept: dict[int, dict[tuple[str, str], str]] = {0: {}}
    for step in range(400):
        parent = chance.choice(list(kept)[-4:])
        after = dict(kept[parent])
        if after and chance.random() < 0.2:
            after.pop(chance.choice(list(after)))
            group = groups.grow(parent, kept[parent], after)
        else:
            key = "t", str(chance.randrange(40))
            after[key] = f"$e{step}"
            group = groups.after(parent, kept[parent], key, after[key])
        await keep(store, groups)
        kept[group] = after
    for fresh in (StateGroups("!r", store, groups.last), groups):
        wanted = {("t", str(n)): chance.choice(list(kept)) for n in range(45)}
        found = await fresh.values(wanted)
        assert found == {key: kept[g][key] for key, g in wanted.items() if key in kept[g]}, f"seed {seed}"


async def test_values_of_many_groups_take_few_reads(store, monkeypatch):
    """Every member came by an event of their own, after a state of their own."""
    groups, before, wanted = StateGroups("!r", store, 0), members(0), dict[tuple[str, str], int]()
    group = 0
    for key, event_id in [*members(1000).items(), *((k, e + "2") for k, e in members(1000).items())]:
        wanted[key] = group
        group = groups.after(group, before, key, event_id)
        before = {**before, key: event_id}
        await keep(store, groups)
    fresh, reads = StateGroups("!r", store, group), list[str]()
    for name in ("scan", "get", "get_many"):
        read = getattr(store, name)

        async def counted(*args, name=name, read=read, **options):
            reads.append(name)
            return await read(*args, **options)

        monkeypatch.setattr(store, name, counted)
    assert await fresh.values(wanted) == members(1000)
    assert len(reads) <= 21


async def test_a_row_that_is_gone_keeps_no_other_value_out(store):
    groups, state = StateGroups("!r", store, 0), {("t", "1"): "$1"}
    first = groups.grow(0, {}, state)
    await store.commit(groups.drafts())
    groups.committed()
    second = groups.after(first, state, ("t", "2"), "$2")
    fresh = StateGroups("!r", store, second)
    assert await fresh.values({("t", "1"): first, ("t", "2"): second}) == {("t", "1"): "$1"}
