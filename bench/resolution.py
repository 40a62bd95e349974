"""State resolution by itself: two sides of a netsplit in which everybody changed their name.

Synapse's own function resolves the same events in its own interpreter, over a store in memory.
"""

from __future__ import annotations

import gc
import secrets
import statistics
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from hansa_matrix.crypto import SigningKey
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.room_versions import DEFAULT_VERSION
from hansa_matrix.proto.state_res.v2 import resolve_steps
from matrix.oracle.client import Oracle

from bench.room import FakeRoom, FakeServer

SIZES = (50, 500, 2000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """``ours`` and ``theirs`` are CPU seconds of one resolution, medians; ``held`` is the longest that ours
    held its event loop in one, in wall seconds. ``same`` is whether both came to the same state.
    """

    conflicted: int
    ours: float
    held: float
    theirs: float | None = None
    same: bool | None = None

    def pairs(self) -> Iterator[tuple[str, str]]:
        """A line of the table."""
        text = f"{1000 * self.ours:.1f} ms CPU, event loop held {1000 * self.held:.1f} ms"
        if self.theirs is not None:
            ratio = self.theirs / self.ours
            text += (
                f"; Synapse {1000 * self.theirs:.1f} ms, {ratio:.1f} times as much, same result: {self.same}"
            )
        yield f"{self.conflicted} conflicted members", text


def _sides(conflicted: int) -> tuple[FakeRoom, list[dict[StateKey, Pdu]]]:
    server = FakeServer("bench", SigningKey.from_seed("ed25519:b", secrets.token_bytes(32)))
    room = FakeRoom([server], conflicted, "resolution")
    fork, before, sides = dict(room.tips), room.state, []
    for side in ("one", "other"):
        state, prev = dict(before), fork
        for user in room.people[server.name]:
            content = {"membership": "join", "displayname": f"On {side} side"}
            pdu = room.event(server, "m.room.member", user, content, user, prev=prev)
            state[pdu.key], prev = pdu, {pdu.event_id: pdu.depth}
        sides.append(state)
    return room, sides


def _in_steps(steps: Generator[None, None, dict[StateKey, str]]) -> tuple[dict[StateKey, str], float]:
    """The result, and the seconds of the longest step: the event loop has its turn in between."""
    longest = 0.0
    while True:
        began = time.perf_counter()
        try:
            next(steps)
        except StopIteration as done:
            return done.value, max(longest, time.perf_counter() - began)
        longest = max(longest, time.perf_counter() - began)


def resolution(conflicted: int, runs: int, *, synapse: bool) -> Resolution:
    """Measure one size."""
    room, sides = _sides(conflicted)
    states = [{key: pdu.event_id for key, pdu in side.items()} for side in sides]
    cpu, wall = [], []
    result: dict[StateKey, str] = {}
    gc.collect()
    for _ in range(runs):
        spent = time.process_time()
        result, longest = _in_steps(resolve_steps(DEFAULT_VERSION, states, room.events.get))
        cpu.append(time.process_time() - spent)
        wall.append(longest)
    ours, held = statistics.median(cpu), statistics.median(wall)
    if not synapse:
        return Resolution(conflicted=conflicted, ours=ours, held=held)
    pdus = list(room.events.values())
    index = {pdu.event_id: at for at, pdu in enumerate(pdus)}
    asked = [sorted(index[event_id] for event_id in state.values()) for state in states]
    graph = {
        "version": DEFAULT_VERSION.id,
        "events": [pdu.raw for pdu in pdus],
        # The first one fills the store's memory of auth chains, and is not counted.
        "resolve": [asked] * (runs + 1),
    }
    with Oracle() as oracle:
        (answer,) = oracle.ask(op="graphs", graphs=[graph])["graphs"]
    same = answer["resolved"][-1] == sorted(index[event_id] for event_id in result.values())
    theirs = statistics.median(answer["resolve_cpu"][1:])
    return Resolution(conflicted=conflicted, ours=ours, held=held, theirs=theirs, same=same)
