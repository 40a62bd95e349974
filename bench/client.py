"""The cost of clients: a Hansa and a Synapse, each asked over plain HTTP on loopback."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import aiohttp
from peers.ca import PrivateCA
from peers.hansa import Hansa
from peers.process import free_port
from peers.synapse import MatrixUser, Synapse

from bench.comparison import Pairs, compared, say
from bench.measure import cpu_seconds, percentile, resident_mib

_SENDS, _SAMPLES, _SYNCS, _POLLS, _LOGINS, _ROOMS = 400, 200, 200, 1000, 200, 100


_HEARD, _POLL, _WAIT = (
    "from sent to another client's sync, p50",
    "one idle long-poll",
    "longest wait for others during 200 logins",
)
_FORMS: dict[str, Callable[[float], str]] = {
    _HEARD: lambda seconds: f"{1000 * seconds:.1f} ms",
    _POLL: lambda kib: f"{kib:.0f} KiB",
    _WAIT: lambda seconds: f"{1000 * seconds:.0f} ms",
}


class _Side:
    """One server, with the users that are made of it."""

    def __init__(self, label: str, url: str, server: Hansa | Synapse) -> None:
        self.label, self.url, self._server = label, url, server
        self._users: list[MatrixUser] = []
        self.asked = 0

    @property
    def pid(self) -> int:
        return self._server.pid

    async def user(self, name: str) -> MatrixUser:
        if isinstance(self._server, Synapse):
            user = await self._server.user(name)
        else:
            made = await self._server.account(name)
            who = {"type": "m.id.user", "user": made}
            body = {"type": "m.login.password", "identifier": who, "password": "pw"}
            async with (
                aiohttp.ClientSession() as http,
                http.post(f"{self.url}/_matrix/client/v3/login", json=body) as a,
            ):
                user = MatrixUser(self.url, made, (await a.json())["access_token"])
        self._users.append(user)
        return user

    async def close(self) -> None:
        for user in self._users:
            await user.close()


@asynccontextmanager
async def _sides(folder: Path, ca: PrivateCA, *, synapse: bool) -> AsyncIterator[list[_Side]]:
    port = free_port()
    hansa = Hansa(folder / "hansa", ca, "client_rate = 0\n")
    listen = f'listen = ["https://127.0.0.1:{hansa.port}"'
    hansa.config.write_text(hansa.config.read_text().replace(listen, f'{listen}, "http://127.0.0.1:{port}"'))
    await hansa.start()
    found = [_Side("Hansa", f"http://127.0.0.1:{port}", hansa)]
    other = Synapse(folder / "synapse", ca) if synapse else None
    if other is not None:
        await other.start()
        found.append(_Side("Synapse", other.url, other))
    try:
        yield found
    finally:
        for side in found:
            await side.close()
        await hansa.stop()
        if other is not None:
            other.stop()


async def _sent(side: _Side, user: MatrixUser, room: str, *, at_once: int) -> float:
    """CPU of one message, of many that are sent so many at a time."""
    before = cpu_seconds(side.pid)
    for number in range(0, _SENDS, at_once):
        await asyncio.gather(*(user.say(room, f"{number} {n}") for n in range(at_once)))
    return (cpu_seconds(side.pid) - before) / _SENDS


async def _heard(side: _Side, room: str, romeo: MatrixUser, juliet: MatrixUser) -> list[float]:
    """Seconds from a send until another client's sync has it."""
    del side
    found: list[float] = []
    since = (await juliet.sync())["next_batch"]
    for number in range(_SAMPLES):
        waiting = asyncio.ensure_future(juliet.call("GET", f"/sync?timeout=30000&since={quote(since)}"))
        await asyncio.sleep(0.02)  # until it waits
        began = time.perf_counter()
        event = await romeo.say(room, str(number))
        got = await waiting
        found.append(time.perf_counter() - began)
        events = got["rooms"]["join"][room]["timeline"]["events"]
        assert [e["event_id"] for e in events] == [event]
        since = got["next_batch"]
    return found


async def _synced(side: _Side, user: MatrixUser, count: int, query: str = "") -> float:
    """CPU of one sync; each is asked in other words, as Synapse keeps its answers for a while."""
    before = cpu_seconds(side.pid)
    for _ in range(count):
        side.asked += 1
        await user.call("GET", f"/sync?timeout=0{query}&filter={quote(_filter(side.asked), safe='')}")
    return (cpu_seconds(side.pid) - before) / count


def _filter(number: int) -> str:
    return f'{{"room":{{"timeline":{{"limit":{20 + number % 3},"not_types":["bench.{number}"]}}}}}}'


async def _polls(side: _Side, user: MatrixUser) -> float:
    """KiB of resident memory of one idle long-poll."""
    since = (await user.sync())["next_batch"]
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Authorization": f"Bearer {user.token}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
        await user.call("GET", f"/sync?timeout=0&since={quote(since)}")
        before = resident_mib(side.pid)
        url = f"{side.url}/_matrix/client/v3/sync?timeout=60000&since={quote(since)}"
        waiting = [asyncio.ensure_future(http.get(url)) for _ in range(_POLLS)]
        await _still(side)
        grown = resident_mib(side.pid) - before
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return max(0.0, grown) * 1024 / _POLLS


async def _still(side: _Side) -> None:
    """Wait until the server has nothing to do."""
    while True:
        before = cpu_seconds(side.pid)
        await asyncio.sleep(1.0)
        if cpu_seconds(side.pid) - before < 0.03:
            return


async def _logins(side: _Side, user: MatrixUser) -> float:
    """Returns the longest time (s) that another user waited for a small answer while many log in at once."""
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user.id},
        "password": "pw",
    }
    connector = aiohttp.TCPConnector(limit=0)
    longest = 0.0
    async with aiohttp.ClientSession(connector=connector) as http:

        async def login() -> None:
            async with http.post(f"{side.url}/_matrix/client/v3/login", json=body) as answer:
                assert answer.status == 200, await answer.text()

        waiting = [asyncio.ensure_future(login()) for _ in range(_LOGINS)]
        while not all(one.done() for one in waiting):
            began = time.perf_counter()
            async with http.get(f"{side.url}/_matrix/client/versions") as answer:
                await answer.read()
            longest = max(longest, time.perf_counter() - began)
            await asyncio.sleep(0.01)
        await asyncio.gather(*waiting)
    return longest


async def client(
    folder: Path, ca: PrivateCA, runs: int, *, synapse: bool
) -> Pairs:  # one line after the other
    """Everything that is measured of clients; ``runs`` of each, medians."""
    costs: dict[str, dict[str, float]] = {}
    own: dict[str, tuple[float, float]] = {}

    def keep(name: str, side: _Side, value: float) -> None:
        costs.setdefault(name, {})[side.label] = value

    async with _sides(folder, ca, synapse=synapse) as both:
        for side in both:
            say(f"clients of {side.label}")
            romeo, juliet = await side.user("romeo"), await side.user("juliet")
            room = await romeo.create_room()
            await juliet.join(room)
            await romeo.say(room, "warm")
            for at_once in (1, 8):
                found = [await _sent(side, romeo, room, at_once=at_once) for _ in range(runs)]
                keep(f"one message sent, {at_once} at a time", side, statistics.median(found))
            heard = await _heard(side, room, romeo, juliet)
            keep(_HEARD, side, percentile(heard, 0.5))
            say(f"syncs of {side.label}")
            few = await side.user("few")
            small = [await few.create_room(name=f"r{n}") for n in range(_ROOMS // 10)]
            first = await few.sync()
            await few.say(small[0], "news")
            query = f"&since={quote(first['next_batch'])}"
            base = statistics.median([await _synced(side, few, _SYNCS, query) for _ in range(runs)])
            many = await side.user("many")
            rooms = [await many.create_room(name=f"r{n}") for n in range(_ROOMS)]
            firsts = [await _synced(side, many, 5) for _ in range(runs)]
            keep(f"first sync with {_ROOMS} rooms", side, statistics.median(firsts))
            first = await many.sync()
            await many.say(rooms[0], "news")
            query = f"&since={quote(first['next_batch'])}"
            more = statistics.median([await _synced(side, many, _SYNCS, query) for _ in range(runs)])
            keep("later sync with one message", side, base)
            own["rooms"] = (base, more) if side.label == "Hansa" else own["rooms"]
            if side.label == "Hansa":
                own["history"] = await _longer(side, runs)
                own["members"] = await _larger(side, runs)
            keep(_POLL, side, await _polls(side, juliet))
            keep(_WAIT, side, await _logins(side, juliet))
    lines = [(name, compared(values, _FORMS.get(name, _cpu))) for name, values in costs.items()]
    for what, (less, more) in own.items():
        times = more / max(less, 1e-9)
        lines.append((f"later sync with 10 times the {what}", f"{times:.2f} times the CPU"))
    return lines


def _cpu(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms CPU"


async def _longer(side: _Side, runs: int) -> tuple[float, float]:
    """A later sync after 100 and after 1,000 messages."""
    user = await side.user("longer")
    room = await user.create_room()
    found = []
    for total in (100, 900):
        for number in range(total):
            await user.say(room, str(number))
        since = (await user.sync())["next_batch"]
        await user.say(room, "news")
        query = f"&since={quote(since)}"
        found.append(statistics.median([await _synced(side, user, _SYNCS, query) for _ in range(runs)]))
    return found[0], found[1]


async def _larger(side: _Side, runs: int) -> tuple[float, float]:
    """A later sync in a room of 10 and of 100 people."""
    user = await side.user("larger")
    room = await user.create_room()
    found = []
    made = 1
    for total in (10, 100):
        while made < total:
            other = await side.user(f"member{made}")
            await other.join(room)
            made += 1
        since = (await user.sync())["next_batch"]
        await user.say(room, "news")
        query = f"&since={quote(since)}"
        found.append(statistics.median([await _synced(side, user, _SYNCS, query) for _ in range(runs)]))
    return found[0], found[1]
