"""An event of a local user, to 1, 10 and 200 other servers."""

from __future__ import annotations

import asyncio
import secrets
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from hansa_matrix.proto.event import Pdu
from peers.ca import PrivateCA

from bench.comparison import Pairs, Side, compared, fakes, say, sides
from bench.measure import cpu_seconds
from bench.origin import Origin
from bench.room import SAID, FakeRoom

_SIZES = (1, 10, 200)
_EVENTS = 20
_WITHIN = 120.0


class _Listeners:
    """Waits until every server has heard an event."""

    def __init__(self, servers: Sequence[Origin]) -> None:
        self._left = 0
        self._all = asyncio.Event()
        self._text = ""
        for server in servers:
            server.heard = self._heard

    def _heard(self, pdu: Pdu) -> None:
        if pdu.type == SAID and pdu.content.get("body") == self._text:
            self._left -= 1
            if not self._left:
                self._all.set()

    async def hear(self, side: Side, room: FakeRoom, count: int) -> None:
        """One event, until ``count`` servers have it."""
        self._text, self._left = secrets.token_hex(8), count
        self._all.clear()
        await side.say(room, self._text)
        async with asyncio.timeout(_WITHIN):
            await self._all.wait()


async def _per_request(ca: PrivateCA, servers: Sequence[Origin]) -> float:
    """CPU seconds of ``bench.bare_put``."""
    command = ["-m", "bench.bare_put", str(ca.certificate), "5", *(one.name for one in servers)]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return float(printed)


async def _cost(side: Side, servers: Sequence[Origin]) -> float:
    """CPU seconds of one event to all of them."""
    room = FakeRoom(servers, len(servers), f"outbound-{secrets.token_hex(4)}")
    for one in servers:
        one.rooms.append(room)
    listeners = _Listeners(servers)
    await side.join(room)
    for _ in range(2):  # connections are there now
        await listeners.hear(side, room, len(servers))
    before = cpu_seconds(side.pid)
    for _ in range(_EVENTS):
        await listeners.hear(side, room, len(servers))
    return (cpu_seconds(side.pid) - before) / _EVENTS


async def outbound(folder: Path, ca: PrivateCA, runs: int, *, synapse: bool) -> Pairs:
    """CPU of one event, and of each further request."""
    costs: dict[int, dict[str, list[float]]] = {size: {} for size in _SIZES}
    floors: list[float] = []
    async with fakes(ca, _SIZES[-1]) as servers, sides(folder, ca, synapse=synapse) as both:
        for run in range(runs):
            for side in both:
                for size in _SIZES:
                    say(f"{side.label}: events to {size} servers, run {run + 1}")
                    cost = await _cost(side, servers[:size])
                    costs[size].setdefault(side.label, []).append(cost)
            floors.append(await _per_request(ca, servers))
    medians = {
        size: {label: statistics.median(found) for label, found in by_label.items()}
        for size, by_label in costs.items()
    }
    pairs = [
        (f"one event to {size} servers", compared(found, lambda s: f"{1000 * s:.2f} ms CPU"))
        for size, found in medians.items()
    ]
    floor = statistics.median(floors)
    few, many = _SIZES[0], _SIZES[-1]
    further = {label: (medians[many][label] - medians[few][label]) / (many - few) for label in medians[many]}
    pairs.append(("each further request", compared(further, lambda s: f"{1e6 * s:.0f} us CPU")))
    ratio = further["Hansa"] / floor
    pairs.append(("one client PUT and one signature", f"{1e6 * floor:.0f} us CPU: Hansa's is {ratio:.2f}x"))
    return pairs
