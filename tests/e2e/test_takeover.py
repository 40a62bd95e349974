"""A process that is frozen under load on PostgreSQL, as one whose host hangs: its lease runs out by the database's
clock, the standby takes over, and the frozen one ends when it wakes and sends nothing more.

Twice; ``HANSA_TAKEOVERS=20`` makes it so many. Both are behind one address, as behind a load balancer.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
from aiohttp import web
from e2e.kills import ORIGINS, Listener, Load, shown
from peers.ca import PrivateCA
from peers.hansa import Hansa
from peers.postgres import Postgres
from peers.tcp_cutter import TcpCutter
from peers.waiting import until

from bench.room import FakeRoom

pytestmark = pytest.mark.e2e

_TAKEOVERS = int(os.environ.get("HANSA_TAKEOVERS", "2"))
#: Seconds: of a lease, and within which a standby serves.
_LEASE, _WITHIN = 10.0, 15.0


class Watcher(Listener):
    """Notes which process sent each transaction, by the id of its key, and when it was there."""

    def __init__(self, ca: PrivateCA) -> None:
        super().__init__(ca)
        self.came: list[tuple[float, str]] = []

    async def _receive(self, request: web.Request) -> web.Response:
        key = request.headers["Authorization"].partition('key="')[2].partition('"')[0]
        answer = await super()._receive(request)
        self.came.append((time.monotonic(), key))
        return answer


class Host(Hansa):
    """One of several processes behind one address. They have one key, under an id of each."""

    @property
    def url(self) -> str:
        return f"https://{self.name}"

    def write_key(self, name: str) -> None:
        self.key_id = f"ed25519:a_{self.port}"

    def take_key(self, seed: str) -> None:
        file = self.folder / "matrix.key"
        file.touch(0o600)
        file.write_text(f"ed25519 a_{self.port} {seed}\n")

    async def serves(self) -> bool:
        """True if this process answers clients."""
        connector = aiohttp.TCPConnector(ssl=False)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(2)) as http:
            try:
                async with http.get(f"https://127.0.0.1:{self.port}/_matrix/client/v3/account/whoami") as got:
                    return got.status == 401
            except (aiohttp.ClientError, TimeoutError):
                return False

    def wake(self) -> None:
        if self._process is not None:
            self.send(signal.SIGCONT)

    async def has_ended(self) -> bool:
        return self.exit_code is not None


@dataclass
class Scene:
    """Two hosts, of which ``active`` serves, and who loads it."""

    active: Host
    standby: Host
    address: TcpCutter
    load: Load
    watchers: list[Watcher]

    async def take_over(self) -> tuple[float, int]:
        """Freeze who serves, wait for the other, and wake it. The seconds that it took, and how many
        transactions the old one sent after that.
        """
        frozen, other = self.active, self.standby
        assert frozen.key_id in {key for one in self.watchers for _, key in one.came}, "it sends nothing"
        began = time.monotonic()
        frozen.send(signal.SIGSTOP)
        await until("the standby serves", other.serves, 60)
        took = time.monotonic() - began
        await self.address.cut()
        self.address.target = other.port
        await self.address.mend()
        self.load.server = self.active = other
        woken = time.monotonic()
        frozen.send(signal.SIGCONT)
        await until("the old process has ended", frozen.has_ended, 15)
        assert frozen.exit_code == 4
        assert "another process has taken it over" in frozen.log()
        await self.load.pause()
        await self.load.holds()
        late = [at for one in self.watchers for at, key in one.came if key == frozen.key_id and at > woken]
        await frozen.start()
        self.standby = frozen
        return took, len(late)


@asynccontextmanager
async def _scene(ca, tmp_path) -> AsyncIterator[Scene]:
    database = Postgres("fsync=on", "full_page_writes=on")
    await asyncio.to_thread(database.start)
    watchers = [await Watcher(ca).start() for _ in range(ORIGINS)]
    address = TcpCutter()
    hosts: list[Host] = []
    try:
        url = database.database()
        room = FakeRoom(watchers, 10, f"takeover-{secrets.token_hex(4)}")
        for watcher in watchers:
            watcher.rooms.append(room)
        seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        for name in ("one", "two"):
            more = "client_rate = 0\n"
            hosts.append(Host(tmp_path / name, ca, more, store=url, seen_at=address.port))
            hosts[-1].take_key(seed)
        first, second = hosts
        await address.lay(first.port)
        await first.start()
        load = Load(first, watchers, room, url)
        await load.enter()
        await second.start()
        try:
            yield Scene(first, second, address, load, watchers)
        finally:
            for user in load.people:
                await user.close()
    finally:
        for host in hosts:
            host.wake()
            await host.stop()
        await address.cut()
        for watcher in watchers:
            await watcher.stop()
        await asyncio.to_thread(database.stop)


@pytest.mark.timeout(300 + 90 * _TAKEOVERS)
async def test_a_frozen_process_is_replaced_under_load_and_sends_nothing_more(ca, tmp_path):
    async with _scene(ca, tmp_path) as scene:
        load = scene.load
        loading = asyncio.ensure_future(load.run())
        try:
            for number in range(_TAKEOVERS):
                load.go_on()
                goal = load.kept.count + 200

                async def loaded(goal: int = goal) -> bool:
                    return load.kept.count >= goal or loading.done()

                await until("there is load", loaded, 60)
                taking = asyncio.ensure_future(scene.take_over())
                await asyncio.wait({loading, taking}, return_when=asyncio.FIRST_COMPLETED)
                if loading.done():
                    taking.cancel()
                    await loading
                took, late = await taking
                told = {"took over after": f"{took:.1f} s", "sent late": late, "events": load.kept.count}
                told |= {"sent again": load.again, "delivered again": load.delivered_again}
                print(f"takeover {number + 1}: {shown(told)}", flush=True)
                assert _LEASE / 2 < took <= _WITHIN
                # It may be stopped right before it writes: of one loop, one request. Each origin has one waiting.
                assert late <= 1 < ORIGINS
        finally:
            loading.cancel()
            await asyncio.wait({loading})
        assert await scene.standby.stop() == 0
        assert await scene.active.stop() == 0
        print(f"{await load.stored()} rows", flush=True)
