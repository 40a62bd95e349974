"""Memory with 100 rooms of 1,000 members."""

from __future__ import annotations

import secrets
from pathlib import Path

from peers.ca import PrivateCA

from bench.comparison import Pairs, fakes, say, sides
from bench.measure import peak_mib, resident_mib
from bench.room import FakeRoom

_ROOMS, _MEMBERS = 100, 1000


async def memory(folder: Path, ca: PrivateCA, runs: int, *, synapse: bool) -> Pairs:
    """Of Hansa alone: ``runs`` and ``synapse`` change nothing."""
    del runs, synapse
    async with fakes(ca, 1) as (home,), sides(folder, ca, synapse=False) as (side,):
        for number in range(_ROOMS):
            room = FakeRoom([home], _MEMBERS, f"memory-{secrets.token_hex(4)}")
            home.rooms[:] = [room]  # the ones before may go
            await side.join(room)
            if number % 10 == 9:
                say(f"{number + 1} of {_ROOMS} rooms joined")
        joined, peak = resident_mib(side.pid), peak_mib(side.pid)
        await side.stop()
        await side.start()
        after = resident_mib(side.pid)
    name = f"{_ROOMS} rooms of {_MEMBERS} members"
    return [
        (f"{name}, all just joined", f"{joined:.0f} MiB, {peak:.0f} MiB at most"),
        (f"{name}, after a restart", f"{after:.0f} MiB"),
    ]
