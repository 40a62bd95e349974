"""Every route there is, asked for nonsense by a server that signs it: never a 500, never much time, nothing left.

The routes are those that the router has, so a new one is asked without being named here.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import orjson
from cpu_reference import reference_cpu_s
from hansa.http.router import Router
from hansa.testing import registered_routes
from hansa_matrix.proto.hashing import event_id
from matrix.server_with_peer import OURS, THEIRS, V1, ServerWithPeer, server_with_peer

SEED = os.environ.get("HANSA_SEED", "1")
ROUNDS = int(os.environ.get("HANSA_FUZZ_ROUNDS", "200"))
#: CPU time that one request may take, whatever it says, in units of ``cpu_reference``.
MOST = 4


def routes(router: Router) -> Iterator[tuple[str, list[str]]]:
    """``(method, path segments)`` of every route for servers; a wild segment is ``{name}``."""

    for method, parts, _ in registered_routes(router):
        if parts[:2] != ["_matrix", "client"] and parts[:2] != ["_matrix", "media"]:
            yield method, parts


DEEP = b'{"a":' * 900 + b"1" + b"}" * 900
BODIES = (
    b"", b"{}", b"[]", b"null", b"7", b'"x"', b"{", b"\xff", b'{"a":NaN}', b'{"a":1e999}', b'{"a":' + b"9" * 400 + b"}",
    b'{"a":"\\ud800"}', b'{"a":1,"a":2}', DEEP, b"[" * 5000 + b"]" * 5000, b'{"x":"' + b"y" * 100_000 + b'"}',
    orjson.dumps({str(n): n for n in range(3000)}), orjson.dumps({"pdus": [{}] * 50, "edus": [{}] * 100}),
)  # fmt: skip
WORDS = (
    "", "x", "!", "$", "@", "#", "!a:b", "@a:b", "$" + "a" * 43, "a" * 300, "\0", "é", "..", "%", "/", "?", "[::1]",
    "-1", "0", "1e9", "٣", "true", "null", "a" * 4000, "\ud7ff", "@" + "a" * 250 + ":b", "a:b:c", "__proto__",
)  # fmt: skip
#: Keys that some answer reads, with values of every shape put under them.
KEYS = (
    "pdus", "edus", "origin", "room_id", "event", "room_version", "invite_room_state", "latest_events", "limit",
    "earliest_events", "min_depth", "device_keys", "server_keys", "filter", "since", "sender", "state_key", "type",
    "content", "signatures", "hashes", "prev_events", "auth_events", "depth", "origin_server_ts", "event_id",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**53, 1.5, "", "x", "m.room.member", "!a:b", [], {}, [[]], [{}], [None] * 30, {"a": {}},
    [["$a:b", {"sha256": "x"}]], {"membership": "join"}, {"x": {"ed25519:a": "AAAA"}}, "y" * 5000, {"": [0] * 500},
)  # fmt: skip


class Nonsense:
    """Requests out of one seed, some of them nearly right."""

    def __init__(self, house: ServerWithPeer, seed: str) -> None:
        self._random = random.Random(seed)
        room = house.room
        member = event_id(house.forger.message(room, "x"), room.version)
        self._known = [
            room.room_id,
            house.other.room_id,
            member,
            *room.tips,
            room.user,
            f"@hansa:{OURS}",
            THEIRS,
            OURS,
        ]
        events, rooms = [member, *room.tips], [room.room_id, house.other.room_id]
        numbers = ["1", "5", "1700000000000"]
        self._plausible: dict[str, list[str]] = {
            "room": rooms, "event": events, "event_id": events, "v": events, "user": [room.user, f"@hansa:{OURS}"],
            "user_id": [f"@hansa:{OURS}"], "server": [THEIRS, OURS], "room_alias": [f"#one:{OURS}"], "ts": numbers,
            "dir": ["f", "b"], "limit": numbers, "since": numbers, "ver": ["12", "1"], "field": ["displayname"],
            "minimum_valid_until_ts": numbers, "suggested_only": ["true"], "omit_members": ["true"],
        }  # fmt: skip
        self._good = house.forger.message(room, "good")

    def word(self) -> str:
        return self._random.choice([*WORDS, *self._known, *self._known])

    def named(self, name: str) -> str:
        """Mostly what an answer of that name goes on with, so that the next thing is wrong."""
        if self._random.random() < 0.4:
            return self.word()
        return self._random.choice(self._plausible.get(name, self._known))

    def target(self, parts: list[str]) -> str:
        path = "/".join(quote(self.named(p[1:-1]) or "x", safe="") if p.startswith("{") else p for p in parts)
        names = self._random.sample(sorted(self._plausible), self._random.randint(0, 5))
        query = "&".join(f"{name}={quote(self.named(name), safe='')}" for name in names)
        return f"/{path}?{query}" if query else f"/{path}"

    def body(self) -> bytes:
        if self._random.random() < 0.4:
            return self._random.choice(BODIES)
        base: dict[str, Any] = {**self._good} if self._random.random() < 0.5 else {}
        for key in self._random.sample(KEYS, self._random.randint(1, 6)):
            base[key] = self._random.choice([*VALUES, self._good, [self._good]])
        return orjson.dumps(base)


async def one(house: ServerWithPeer, method: str, target: str, body: bytes | None) -> None:
    before = time.process_time()
    status, answer = await house.ask(method, target, body)
    took = time.process_time() - before
    where = f"{method} {target[:200]} {(body or b'')[:200]!r}"
    assert status < 500, f"{status} to {where}: {answer}"
    assert took < 0.1 or took < MOST * reference_cpu_s(), f"{took:.2f} s for {where}"
    if status >= 400:
        assert isinstance(answer, dict) and str(answer["errcode"]).startswith("M_"), f"{answer} to {where}"


async def test_no_route_fails_takes_long_or_leaves_anything_behind(tmp_path):
    print(f"HANSA_SEED={SEED} HANSA_FUZZ_ROUNDS={ROUNDS}")
    async with server_with_peer(tmp_path, federation_rate=0) as house:
        every = list(routes(house.app.routers[OURS]))
        assert len(every) > 25
        nonsense = Nonsense(house, SEED)
        tasks = len(asyncio.all_tasks())
        for round_ in range(ROUNDS):
            for method, parts in every:
                body = nonsense.body() if method in {"PUT", "POST"} else None
                await one(house, method, nonsense.target(parts), body)
            del round_
        async with asyncio.timeout(20):
            while len(asyncio.all_tasks()) > tasks + 8:  # what was staged is worked off
                await asyncio.sleep(0)
        assert house.app.counters.get(("http_internal_errors", ()), 0) == 0
        assert house.app.runners["matrix"].restarts == 0
        # And the server goes on as if nothing had been.
        assert await house.fate(house.forger.message(house.room, "still here")) == "accepted"
        assert (await house.ask("GET", f"{V1}/query/directory?room_alias=%23one:{quote(OURS)}"))[0] == 200
