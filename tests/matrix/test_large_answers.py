"""Answers of many megabytes cost their events alone, however little they were on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from hansa import CannotOpenRoom, HttpRequest, HttpStream
from hansa_matrix.federation.client import LARGE_ANSWER
from hansa_matrix.rooms.inbound.early_checks import MAX_LOST, MAX_UNVERIFIED
from matrix.server_with_peer import THEIRS, server_with_peer
from memory import peak_memory

MIB = 1024 * 1024
ROOM = f"!far:{THEIRS}"


class Flood:
    """An endless answer of the same piece; counts what is taken of it."""

    def __init__(
        self, house: Any, head: bytes, piece: bytes | Callable[[], bytes], size: int = 48 * MIB
    ) -> None:
        self.taken = 0
        self._head, self._piece, self._size = head, piece, size
        house.peer.stream = self.stream

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator[HttpStream]:
        async def chunks() -> AsyncIterator[bytes]:
            yield self._head
            many = b"" if callable(self._piece) else self._piece * (64 * 1024 // len(self._piece) + 1)
            while self.taken < self._size:
                chunk = self._piece() if callable(self._piece) else many
                self.taken += len(chunk)
                yield chunk

        yield HttpStream(status=200, headers={}, chunks=chunks())


def template(request: HttpRequest) -> Any:
    """Returns the answer of make_join."""
    if "make_join" not in request.target:
        return None
    event = {
        "type": "m.room.member",
        "room_id": ROOM,
        "sender": "@a:127.0.0.1:1",
        "state_key": "@a:127.0.0.1:1",
        "content": {"membership": "join"},
        "prev_events": [],
        "auth_events": [],
        "depth": 7,
    }
    return 200, {"room_version": "10", "event": event}


def event(**fields: Any) -> bytes:
    value = {
        "type": "m.room.topic",
        "room_id": ROOM,
        "sender": f"@m:{THEIRS}",
        "state_key": "",
        "content": {},
        "prev_events": [],
        "auth_events": [],
        "depth": 1,
        "origin_server_ts": 1,
        "hashes": {"sha256": "AAAA"},
        "signatures": {THEIRS: {"ed25519:1": "AAAA"}},
    }
    return orjson.dumps({**value, **fields})


JUNK = {
    "dicts": b'{"":0},',
    "lists": b"[],",
    "zeros": b"0,",
    "nested": b'[{"a":[{}]}],',
    "one event again and again": event() + b",",
    "of another room": event(room_id="!other:x") + b",",
}


@pytest.mark.parametrize("array", ["state", "auth_chain"])
@pytest.mark.parametrize("junk", list(JUNK))
async def test_a_join_is_not_answered_with_megabytes_of_junk(tmp_path, array, junk):
    """73 KB of gzip were 48 MiB and took 1.87 GiB. An element that is not state of the room ends the reading
    early.
    """
    async with server_with_peer(tmp_path) as house:
        house.peer.answer = template
        flood = Flood(house, b'{"%s":[' % array.encode(), JUNK[junk])
        matrix = house.matrix
        with peak_memory() as peak, pytest.raises(CannotOpenRoom):
            await matrix.remote_membership.join(ROOM, "@a:127.0.0.1:1", [THEIRS])
        assert peak.bytes < 32 * MIB
        if "again" not in junk:
            assert flood.taken < 2 * MIB


@pytest.mark.parametrize("servers", [1, 1_000_000])
async def test_a_join_is_not_answered_with_events_that_nobody_has_signed(tmp_path, servers):
    """Each is well formed and of the room, and there are more of them than memory can hold."""
    async with server_with_peer(tmp_path) as house:
        house.peer.answer = template
        house.peer.keys = lambda request: (
            (200, house.forger.keys()) if request.host_header == THEIRS else None
        )
        shapes = iter(range(10_000_000))

        def chunk() -> bytes:
            events = []
            for _, n in zip(range(100), shapes, strict=False):
                sender = f"@u{n}:{THEIRS}" if servers == 1 else f"@u:s{n}.example:1"
                server = sender.partition(":")[2]
                signatures = {server: {house.forger.key.key_id: "A" * 86}}
                events.append(event(depth=n, state_key=str(n), sender=sender, signatures=signatures))
            return b",".join(events) + b","

        flood = Flood(house, b'{"state":[', chunk)
        matrix = house.matrix
        asked = len(house.peer.asked)
        with peak_memory() as peak, pytest.raises(CannotOpenRoom):
            await matrix.remote_membership.join(ROOM, "@a:127.0.0.1:1", [THEIRS])
        assert peak.bytes < 32 * MIB
        assert flood.taken < 12 * MIB
        assert len(house.peer.asked) - asked < MAX_LOST + 3 * MAX_UNVERIFIED


@pytest.mark.parametrize("body", [b'{"x":"', b'{"x":[', b'{"state":["', b'{"state":[{"a":"'])
async def test_what_does_not_end_is_not_held(tmp_path, body):
    async with server_with_peer(tmp_path) as house:
        house.peer.answer = template
        flood = Flood(house, body, b"[" if body.endswith(b"[") else b"x", LARGE_ANSWER)
        matrix = house.matrix
        with peak_memory() as peak, pytest.raises(CannotOpenRoom):
            await matrix.remote_membership.join(ROOM, "@a:127.0.0.1:1", [THEIRS])
        assert peak.bytes < 32 * MIB
        assert flood.taken < 16 * MIB


async def test_the_loop_goes_on_while_a_large_answer_is_read(tmp_path):
    """Every step of it takes less than 20 ms of the loop: no chunk is looked at there."""
    async with server_with_peer(tmp_path) as house:
        flood = Flood(house, b'{"state":[', event() + b",", 8 * MIB)
        loop, inside = asyncio.get_running_loop(), []

        def take(_name: str, values: list[Any]) -> None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                inside.append(False)
            else:
                inside.append(True)

        client = house.matrix.federation_client
        asked = client.request_members("GET", THEIRS, "/x", names=["state"], take=take, seconds=60.0)
        with pytest.raises(Exception, match="ends too early"):
            await asked
        assert flood.taken >= 8 * MIB and inside and not any(inside)
        assert loop.is_running()
