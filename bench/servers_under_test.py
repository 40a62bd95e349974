"""The measured servers: a Hansa, a Synapse, the floor, each a real process that the fakes speak to."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from hansa.cli.socket_client import AdminRequestFailed, call
from peers.ca import PrivateCA
from peers.hansa import Hansa
from peers.process import Process, free_port
from peers.synapse import MatrixUser, Refusal, Synapse
from peers.waiting import until

from bench.measure import cpu_seconds
from bench.origin import Origin, keys_file
from bench.room import SAID, FakeRoom

_ROOT = Path(__file__).parent.parent
#: Seconds between two looks, and how long a process must do next to nothing before it is given up.
_ASK, _QUIET = 0.1, 4.0


class Subject(Protocol):
    """``joins`` False: it takes every event without being in the room. ``name`` is its server name."""

    label: str
    name: str
    joins: bool

    @property
    def pid(self) -> int: ...

    async def join(self, room: FakeRoom) -> None: ...

    async def say(self, room: FakeRoom, text: str) -> None:
        """The person of this server in the room sends a state event of type ``SAID``."""
        ...

    async def settled(self, room: FakeRoom, last: Sequence[str]) -> None:
        """Wait until everything up to these events is visible, or until nothing more comes."""
        ...

    async def stop(self) -> None: ...

    def missing(self, acknowledged: Iterable[str]) -> int:
        """How many of these are not in the database of the stopped process as accepted events."""
        ...


def _count_missing(database: Path, sql: str, acknowledged: Iterable[str]) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        return sum(1 for event_id in acknowledged if db.execute(sql, (event_id,)).fetchone() is None)


class HansaSubject:
    """Accepted by Matrix, and in the log of the bus."""

    label = "Hansa"
    joins = True

    def __init__(
        self, folder: Path, ca: PrivateCA, profile: Path | None = None, store: str = "sqlite:hansa.db"
    ) -> None:
        self._hansa = Hansa(folder, ca, store=store)
        self.database = folder / "hansa.db"
        if profile is not None:
            self._hansa.python = (sys.executable, "-m", "cProfile", "-o", str(profile))
        self.name = self._hansa.name

    async def start(self) -> HansaSubject:
        await self._hansa.start()
        return self

    @property
    def pid(self) -> int:
        return self._hansa.pid

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        return await asyncio.to_thread(call, self._hansa.config, method, path, body)

    async def join(self, room: FakeRoom) -> None:
        await self._ask("POST", "/rooms/create", {"links": [f"matrix:{room.alias}"]})

    async def say(self, room: FakeRoom, text: str) -> None:
        arguments = {"room": room.room_id, "type": SAID, "content": json.dumps({"body": text}), "key": ""}
        await self._ask("POST", "/operate/matrix", {"words": "rooms set", "arguments": arguments})

    async def settled(self, room: FakeRoom, last: Sequence[str]) -> None:
        del room

        async def all_there() -> bool:
            try:
                for event_id in last:
                    await self._ask("GET", f"/where/{event_id}")
            except AdminRequestFailed:
                return False
            return True

        await _patiently(self.pid, all_there)

    async def stop(self) -> None:
        await self._hansa.stop()

    def missing(self, acknowledged: Iterable[str]) -> int:
        sql = (
            "SELECT 1 FROM matrix_pdu p"
            " JOIN core_alias a ON a.scope = '' AND a.network = 'matrix' AND a.native = p.event_id"
            " JOIN core_event e ON e.scope = '' AND e.room = a.room AND e.seq = a.seq"
            " WHERE p.scope = 'matrix' AND p.event_id = ? AND p.status = 'accepted' AND p.after > 0"
        )
        return _count_missing(self.database, sql, acknowledged)


class SynapseSubject:
    """Visible to a user of it."""

    label = "Synapse"
    joins = True

    def __init__(self, folder: Path, ca: PrivateCA, postgres: str = "") -> None:
        self.database = folder / "synapse.db"
        self._synapse = Synapse(folder, ca, postgres=postgres)
        self._user: MatrixUser | None = None
        self.name = self._synapse.name

    async def start(self) -> SynapseSubject:
        await self._synapse.start()
        self._user = await self._synapse.user("bench")
        return self

    @property
    def pid(self) -> int:
        return self._synapse.pid

    async def join(self, room: FakeRoom) -> None:
        assert self._user is not None
        await self._user.join(room.alias)

    async def say(self, room: FakeRoom, text: str) -> None:
        assert self._user is not None
        await self._user.set_state(room.room_id, SAID, {"body": text})

    async def settled(self, room: FakeRoom, last: Sequence[str]) -> None:
        async def all_there() -> bool:
            assert self._user is not None
            try:
                for event_id in last:
                    await self._user.call("GET", f"/rooms/{room.room_id}/event/{event_id}")
            except Refusal:
                return False
            return True

        await _patiently(self.pid, all_there)

    async def stop(self) -> None:
        if self._user is not None:
            await self._user.close()
        self._synapse.stop()

    def missing(self, acknowledged: Iterable[str]) -> int:
        sql = (
            "SELECT 1 FROM events e JOIN event_json j USING (event_id) WHERE e.event_id = ? AND NOT e.outlier"
            " AND e.rejection_reason IS NULL AND j.internal_metadata NOT LIKE '%\"soft_failed\":true%'"
        )
        return _count_missing(self.database, sql, acknowledged)


class FloorSubject:
    """See ``bench.baseline``."""

    label = "floor"
    joins = False

    def __init__(self, folder: Path, ca: PrivateCA, origins: Sequence[Origin]) -> None:
        folder.mkdir(parents=True)
        port = free_port()
        self.name = f"127.0.0.1:{port}"
        self._database = folder / "floor.db"
        chain, key = ca.issue(f"floor-{port}", "127.0.0.1")
        files = [str(one) for one in (chain, key, keys_file(origins, folder), self._database)]
        command = [sys.executable, str(_ROOT / "bench" / "baseline.py"), str(port), *files]
        self._process = Process(command, folder)
        self._port = port

    async def start(self) -> FloorSubject:
        async def listens() -> bool:
            if not self._process.running:
                raise RuntimeError(f"the floor ended:\n{self._process.tail()}")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                return False
            writer.close()
            return True

        await until("the floor listens", listens)
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    async def join(self, room: FakeRoom) -> None:
        del room

    async def say(self, room: FakeRoom, text: str) -> None:
        del room, text

    async def settled(self, room: FakeRoom, last: Sequence[str]) -> None:
        del room, last

    async def stop(self) -> None:
        await asyncio.to_thread(self._process.stop)

    def missing(self, acknowledged: Iterable[str]) -> int:
        return _count_missing(self._database, "SELECT 1 FROM pdu WHERE event_id = ?", acknowledged)


async def _patiently(pid: int, condition: Callable[[], Awaitable[bool]]) -> None:
    """Asks now and then, until the process is idle. Giving up is not an error: missing events are counted
    afterwards.
    """
    looked, spent = time.monotonic(), cpu_seconds(pid)
    while not await condition():
        await asyncio.sleep(_ASK)
        if time.monotonic() - looked > _QUIET:
            before, looked, spent = spent, time.monotonic(), cpu_seconds(pid)
            if spent - before < _QUIET / 4:
                return
