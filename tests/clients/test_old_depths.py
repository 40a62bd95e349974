"""A database of before, whose events have the depths that their senders claimed, is read in our order."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from clients.matrix_server import MatrixServer
from clients.test_absences import There, has, pages, there
from hansa import Put, scan_all
from hansa.testing import until
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.state import depth_migration
from hansa_matrix.rooms.state.depth_migration import count_anew, sort_by_parents
from matrix.server_with_peer import OURS
from matrix.test_joining import ALIAS

#: Nearly as deep as can be.
MOST = 2**53 - 100
#: What only the rows of later versions say of a room.
_LATER = ("last", "below", "returns", "gaps", "gap")


async def as_before(home: MatrixServer, room_id: str) -> MatrixRoom:
    """Write a room in the shape of commit d365809, and read it."""
    matrix = home.matrix
    room, store = matrix.get_room(room_id), matrix.store
    writes = []
    async for row in scan_all(store, "pdu"):
        if row.fields["room_id"] == room_id:
            claimed = orjson.loads(row.body)["depth"]
            writes.append(Put("pdu", row.key, row.body, {**row.fields, "depth": claimed}))
    body = orjson.loads((await store.get("room", (room_id,))).body)
    member = (await room.state())["m.room.member", f"@juliet:{OURS}"]
    body["floor"] = (await room.events.load([member], room.version))[member].pdu.depth
    for name in _LATER:
        del body[name]
    await store.commit([*writes, Put("room", (room_id,), orjson.dumps(body))])
    room.events.forget()
    old = MatrixRoom.load(room_id, orjson.dumps(body), store, matrix.event_store)
    matrix.rooms.add(old)
    assert not old.counted
    return old


async def written(
    home: MatrixServer, past: There, juliet, depth: int | None, count: int
) -> tuple[str, list[str]]:
    """A room with a past and a present, as senders count or do not count."""
    over = {} if depth is None else {"depth": depth}
    early = [f"early {number}" for number in range(count)]
    for text in early:
        past.say(text, **over)
    room = await juliet.join(ALIAS)
    for text in ("hello", "and more"):
        await past.heard(text)
        await until(lambda text=text: has(juliet, room, text))
    assert (await pages(juliet, room))[::-1] == [*early, "hello", "and more"]
    return room, [*early, "hello", "and more"]


@pytest.mark.parametrize("depth", [None, 0, 1, 5, MOST])
async def test_old_rows_are_read_in_our_order(tmp_path: Path, depth: int | None) -> None:
    async with there(tmp_path, "12") as (home, past, juliet):
        room, expected = await written(home, past, juliet, depth, 60)
        old = await as_before(home, room)
        matrix = home.matrix
        assert await count_anew(matrix.ctx, old, OURS)
        for most in (7, 100):
            assert (await pages(juliet, room, most=most))[::-1] == expected
            assert await pages(juliet, room, most=most, way="f") == expected
        await past.heard("afterwards")
        await until(lambda: has(juliet, room, "afterwards"))
        assert (await pages(juliet, room))[::-1] == [*expected, "afterwards"]
        row = await matrix.store.get("room", (room,))
        again = MatrixRoom.load(room, row.body, matrix.store, matrix.event_store)
        assert again.counted
        assert not await count_anew(matrix.ctx, again, OURS)


async def test_a_room_whose_events_all_have_one_depth_is_counted(tmp_path, monkeypatch) -> None:
    """More of them than a search of one depth gives."""
    monkeypatch.setattr("hansa.store.paging.MAX_EQUAL_ROWS", 40)
    monkeypatch.setattr(depth_migration, "_PAGE_SIZE", 20)
    async with there(tmp_path, "12") as (home, past, juliet):
        room, expected = await written(home, past, juliet, 1, 70)
        old = await as_before(home, room)
        assert await count_anew(home.matrix.ctx, old, OURS)
        assert (await pages(juliet, room))[::-1] == expected


async def test_what_was_counted_half_is_counted_from_the_beginning(tmp_path, monkeypatch) -> None:
    class Gone(Exception):
        pass

    monkeypatch.setattr(depth_migration, "_PAGE_SIZE", 10)
    async with there(tmp_path, "12") as (home, past, juliet):
        room, expected = await written(home, past, juliet, MOST, 40)
        old = await as_before(home, room)
        matrix = home.matrix
        store, commits = matrix.store, 0
        commit = store.commit

        async def breaking(writes, **how):
            nonlocal commits
            commits += 1
            if commits == 4:
                raise Gone
            return await commit(writes, **how)

        monkeypatch.setattr(store, "commit", breaking)
        with pytest.raises(Gone):
            await count_anew(matrix.ctx, old, OURS)
        monkeypatch.setattr(store, "commit", commit)
        row = await store.get("room", (room,))
        again = MatrixRoom.load(room, row.body, store, matrix.event_store)
        matrix.rooms.add(again)
        assert await count_anew(matrix.ctx, again, OURS)
        assert (await pages(juliet, room))[::-1] == expected


def test_events_that_follow_each_other_in_a_circle_have_an_order() -> None:
    def known(*prev: str) -> depth_migration._Known:
        return depth_migration._Known(prev, False, 0, False)

    assert sort_by_parents({"a": known("b"), "b": known("a"), "c": known()}) == ["c", "a", "b"]
    assert sort_by_parents({"a": known("a"), "b": known("a", "elsewhere")}) == ["a", "b"]
