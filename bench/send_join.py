"""Answers to send_join: a user of a new server joins through the server under test."""

from __future__ import annotations

import secrets
import statistics
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from hansa_matrix.proto.pdu import hash_and_sign
from hansa_matrix.proto.room_versions import DEFAULT_VERSION
from peers.ca import PrivateCA

from bench.comparison import Pairs, Side, compared, fakes, say, sides
from bench.measure import cpu_seconds
from bench.origin import Origin
from bench.room import FakeRoom

_V1, _V2 = "/_matrix/federation/v1", "/_matrix/federation/v2"
_MEMBERS, _JOINS = 2000, 10


async def _joined(newcomer: Origin, side: Side, room: FakeRoom) -> int:
    """The bytes of the answer."""
    user = f"@n{secrets.token_hex(6)}:{newcomer.name}"
    where = f"{quote(room.room_id, safe='')}/{quote(user, safe='')}"
    got, _ = await newcomer.request("GET", side.name, f"{_V1}/make_join/{where}?ver={DEFAULT_VERSION.id}")
    draft: dict[str, Any] = orjson.loads(got)["event"]
    kept = {k: v for k, v in draft.items() if k not in {"origin", "unsigned", "hashes", "signatures"}}
    join = hash_and_sign(kept, DEFAULT_VERSION, newcomer.name, (newcomer.key.key_id, newcomer.key.sign))
    where = f"{quote(room.room_id, safe='')}/{quote(join.event_id, safe='')}"
    got, _ = await newcomer.request("PUT", side.name, f"{_V2}/send_join/{where}", join.raw)
    answer = orjson.loads(got)
    assert len(answer["state"]) > len(room.people[room.alias.partition(":")[2]])
    return len(got)


async def serving(folder: Path, ca: PrivateCA, runs: int, *, synapse: bool) -> Pairs:
    """CPU of one join of a room of 2,000 members through each server: make_join and send_join."""
    async with fakes(ca, 2) as (home, newcomer), sides(folder, ca, synapse=synapse) as both:
        cost: dict[str, float] = {}
        size = 0
        for side in both:
            say(f"send_join answers of {side.label}")
            room = FakeRoom([home], _MEMBERS, f"serving-{secrets.token_hex(4)}")
            home.rooms.append(room)
            newcomer.rooms.append(room)
            await side.join(room)
            size = await _joined(newcomer, side, room)  # keys and connections are there now
            found = []
            for _ in range(runs):
                before = cpu_seconds(side.pid)
                for _ in range(_JOINS):
                    await _joined(newcomer, side, room)
                found.append((cpu_seconds(side.pid) - before) / _JOINS)
            cost[side.label] = statistics.median(found)
    name = f"one join of {_MEMBERS} members served, {size / 2**20:.1f} MiB"
    return [(name, compared(cost, lambda s: f"{1000 * s:.0f} ms CPU"))]
