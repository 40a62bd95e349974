"""The order in which a room's events are judged."""

from __future__ import annotations

import asyncio

from hansa import Backoff
from hansa_matrix.proto.event import Pdu
from hansa_matrix.rooms.inbound import room_queue as lines
from hansa_matrix.rooms.inbound.backlog import MAX_BYTES_EACH, Backlog
from hansa_matrix.rooms.inbound.room_queue import QueuedPdu, RoomQueue


class Hand:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> int:
        return int(self.at * 1000)

    def monotonic(self) -> float:
        return self.at


def entry(name: str, *prev: str) -> QueuedPdu:
    pdu = Pdu(
        event_id=name,
        room_id="!r",
        type="m.room.message",
        sender="@a:b",
        state_key=None,
        content={},
        prev_events=prev,
        auth_events=(),
        depth=1,
        origin_server_ts=1,
        raw={},
        wire=b"",
    )
    return QueuedPdu(1, pdu, "b")


def names(line: RoomQueue, most: int = 50) -> list[str]:
    return [one.pdu.event_id for one in line.peek(most)]


async def test_who_steps_aside_is_passed_and_comes_back_when_it_is_time():
    line, clock = RoomQueue(), Hand()
    for name in ("a", "b", "c"):
        line.append_entry(entry(name))
    line.defer(clock.at)
    assert names(line) == ["b", "c"] and len(line) == 3
    clock.at = 0.5
    await line.wait_ready(clock)
    assert names(line) == ["b", "c"]
    clock.at = 1.5
    await line.wait_ready(clock)
    assert names(line) == ["b", "c", "a"]


async def test_who_stood_aside_for_an_event_comes_back_with_it():
    line, clock = RoomQueue(), Hand()
    line.append_entry(entry("child", "parent"))
    line.defer(clock.at)
    line.append_entry(entry("parent"))
    await line.wait_ready(clock)
    line.pop_done(1)
    await line.wait_ready(clock)
    assert names(line) == ["child"] and line.ids == {"child"}


async def test_an_arrival_ends_the_wait():
    line, clock = RoomQueue(), Hand()
    line.append_entry(entry("stuck"))
    line.defer(clock.at)
    waits = asyncio.ensure_future(line.wait_ready(clock))
    await asyncio.sleep(0)
    assert not waits.done()
    line.append_entry(entry("fresh"))
    async with asyncio.timeout(0.5):
        await waits
    assert names(line) == ["fresh"]


async def test_the_wait_grows_and_ends(monkeypatch):
    monkeypatch.setattr(lines, "RETRY", Backoff(first=1.0, most=3.0))
    line, clock = RoomQueue(), Hand()
    line.append_entry(entry("stuck"))
    for wait in (1.0, 2.0, 3.0, 3.0):
        line.defer(clock.at)
        clock.at += wait
        await line.wait_ready(clock)
        assert names(line) == ["stuck"]


async def test_there_is_room_for_so_many_only(monkeypatch):
    monkeypatch.setattr(lines, "MAX_DEFERRED", 2)
    line, clock = RoomQueue(), Hand()
    for name in ("a", "b", "c"):
        line.append_entry(entry(name))
    line.defer(clock.at)
    line.defer(clock.at)
    gone = line.defer(clock.at)
    assert gone is not None and gone.pdu.event_id == "a"
    assert len(line) == 2 and line.ids == {"b", "c"}


async def test_what_waits_is_weighed_until_it_is_gone():
    backlog = Backlog()
    line, clock = RoomQueue(backlog), Hand()
    for name in ("a", "b", "c", "d", "e"):
        line.append_entry(entry(name))
    each = backlog.bytes // 5
    assert each > 0 and backlog.full("b", MAX_BYTES_EACH - backlog.bytes + 1)
    assert not backlog.full("b", MAX_BYTES_EACH - backlog.bytes) and not backlog.full("c", MAX_BYTES_EACH)
    line.pop_done(1)
    assert line.remove("c") is not None
    assert backlog.bytes == 3 * each
    line.check_in(line.check_out(), clock.at, ready=False)
    assert backlog.bytes == 3 * each
    clock.at = 60.0
    await line.wait_ready(clock)
    line.pop_done(3)
    assert backlog.bytes == 0 and not backlog.full("b", MAX_BYTES_EACH)


async def test_who_is_let_go_of_weighs_nothing(monkeypatch):
    monkeypatch.setattr(lines, "MAX_DEFERRED", 2)
    backlog = Backlog()
    line, clock = RoomQueue(backlog), Hand()
    for name in ("a", "b", "c"):
        line.append_entry(entry(name))
    each = backlog.bytes // 3
    assert [line.defer(clock.at) is not None for _ in range(3)] == [False, False, True]
    assert backlog.bytes == 2 * each
