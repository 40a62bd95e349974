"""Bytes on disk per state event, in a room of 2,000 members that change their names, with forks."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

from hansa_matrix.proto.event import Pdu
from peers.ca import PrivateCA

from bench.comparison import Pairs, Side, fakes, say, sides
from bench.origin import NotTaken, Origin
from bench.room import FakeRoom

_MEMBERS, _SIZE = 2000, 50
#: Events and forks: ours, Synapse's.
_OURS, _THEIRS = (100_000, 1000), (5000, 50)


class _Talk:
    """State events one after the other; after every ``every`` of them two that know nothing of each other."""

    def __init__(self, room: FakeRoom, home: Origin, every: int) -> None:
        self._room, self._home, self._every = room, home, every
        self._count = 0

    def _renamed(self, prev: dict[str, int]) -> Pdu:
        people = self._room.people[self._home.name]
        user = people[self._count % len(people)]
        self._count += 1
        content = {"membership": "join", "displayname": f"Renamed {self._count}"}
        pdu = self._room.event(self._home, "m.room.member", user, content, user, prev=prev)
        self._room.before.pop(pdu.event_id)
        self._room.events.pop(pdu.event_id)
        self._room.state[pdu.key] = pdu
        return pdu

    def transaction(self) -> list[Pdu]:
        """The next ``_SIZE`` events, or one less."""
        made: list[Pdu] = []
        prev = dict(self._room.tips)
        while len(made) < _SIZE - 1:
            made.append(self._renamed(prev))
            last = made[-1]
            if self._count % self._every == 0:
                other = self._renamed(prev)
                made.append(other)
                prev = {last.event_id: last.depth, other.event_id: other.depth}
            else:
                prev = {last.event_id: last.depth}
        self._room.tips = prev
        return made


def _bytes(side: Side) -> int:
    with closing(sqlite3.connect(f"file:{side.database}?mode=ro", uri=True)) as db:
        size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        return int(db.execute(size).fetchone()[0])


async def _taken(home: Origin, side: Side, pdus: list[Pdu]) -> None:
    while True:
        try:
            await home.send(side.name, pdus)
        except NotTaken as problem:
            if problem.status != 429:
                raise
            await asyncio.sleep(1.0)
        else:
            return


async def _grown(side: Side, home: Origin, events: int, forks: int) -> list[tuple[int, float]]:
    """``(events so far, bytes per event since the mark before)`` at some marks."""
    room = FakeRoom([home], _MEMBERS, f"disk-{secrets.token_hex(4)}")
    home.rooms.append(room)
    await side.join(room)
    talk = _Talk(room, home, events // forks)
    found: list[tuple[int, float]] = []
    sent, at, size = 0, 0, _bytes(side)
    marks = [events // 10, events // 2, events]
    last = ""
    while marks:
        pdus = talk.transaction()
        await _taken(home, side, pdus)
        sent, last = sent + len(pdus), pdus[-1].event_id
        if side.label == "Synapse":  # of what comes faster it loses much, and what is lost takes no room
            await side.settled(room, [last])
        if sent >= marks[0]:
            await side.settled(room, [last])
            say(f"{side.label}: {sent} of {events} state events")
            now = _bytes(side)
            found.append((sent, (now - size) / (sent - at)))
            at, size = sent, now
            marks.pop(0)
    return found


async def disk(folder: Path, ca: PrivateCA, runs: int, *, synapse: bool) -> Pairs:
    """Once: ``runs`` changes nothing."""
    del runs
    pairs: Pairs = []
    async with fakes(ca, 1) as (home,), sides(folder, ca, synapse=synapse) as both:
        for side in both:
            events, forks = _OURS if side.label == "Hansa" else _THEIRS
            before = 0
            for sent, each in await _grown(side, home, events, forks):
                name = f"{side.label}, events {before} to {sent}, {forks} forks in {events}"
                pairs.append((name, f"{each:.0f} bytes per state event"))
                before = sent
    return pairs
