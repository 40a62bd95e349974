"""One queue per destination, which is a cursor on one stream of our events.

An event names the set of servers it goes to; a server reads the sets it is in. One transaction is under way
per server, of at most 50 events, repeated with the same id until it is taken. SPEC: server-server API,
"Transactions"; T-10 to T-15.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from hansa import (
    Append,
    Destination,
    LocalProtocolError,
    NetworkContext,
    Put,
    RemoteProtocolError,
    Row,
    Value,
    Write,
)

from hansa_matrix.federation.client import Client, Refused, Unreachable, path
from hansa_matrix.proto.transactions import MAX_EDUS, MAX_PDUS

_FIRST, _MOST_EARLY, _EARLY, _MOST = 1.0, 60.0, 3600.0, 3600.0
#: Of a backlog longer than this in one room, only the newest event is sent: the peer pages back itself.
_CATCH_UP = 1000


@dataclass(slots=True)
class _Peer:
    server: str
    position: int = 0
    sets: set[int] = field(default_factory=set)
    failures: int = 0
    failing_since: float = 0.0
    waiting_since: int = 0
    reason: str = ""
    task: asyncio.Task[None] | None = None
    #: What is to be told besides events, the last of each kind, room and person.
    edus: OrderedDict[tuple[str, ...], dict[str, Any]] = field(default_factory=OrderedDict)
    told: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    heard: asyncio.Event = field(default_factory=asyncio.Event)


class Sender:
    """All destinations of one server."""

    def __init__(self, ctx: NetworkContext, client: Client, server: str) -> None:
        self._ctx = ctx
        self._client = client
        self._server = server
        self._peers: dict[str, _Peer] = {}
        self._sets: dict[int, tuple[str, ...]] = {}
        #: Those whose row is committed.
        self._stored: set[int] = set()
        self._boot = ctx.random.bytes(4).hex()

    async def load(self) -> None:
        """Take up every destination where it stood."""
        after: int | None = None
        while page := await self._ctx.store.scan("recipients", after=after, limit=5000):
            for row in page:
                self._learn(int(row.key[0]), tuple(orjson.loads(row.body)))
                self._stored.add(int(row.key[0]))
            after = int(page[-1].key[0])
        for peer in self._peers.values():
            kept = await self._ctx.store.get("destination", (peer.server,))
            peer.position = int(kept.fields["position"] or 0) if kept else 0
            peer.wake.set()

    def start(self) -> None:
        """Begin to send what waits."""
        for peer in self._peers.values():
            self._run(peer)

    def _learn(self, set_id: int, servers: tuple[str, ...]) -> None:
        self._sets[set_id] = servers
        for server in servers:
            self._peers.setdefault(server, _Peer(server)).sets.add(set_id)

    def _named(self, servers: Iterable[str]) -> tuple[int, tuple[str, ...]]:
        """``(set id, servers)`` without us; the id is 0 for nobody."""
        names = tuple(sorted(set(servers) - {self._server}))
        digest = hashlib.sha256("\0".join(names).encode()).digest()
        return int.from_bytes(digest[:6]) if names else 0, names

    def writes(self, event_id: str, room_id: str, servers: Iterable[str]) -> list[Write]:
        """The writes that put an event on its way; nothing for an event that goes nowhere.

        A set is learned here and not when it is committed: a server's reading that comes in between would
        pass the set's first event over.
        """
        set_id, names = self._named(servers)
        if not set_id:
            return []
        self._learn(set_id, names)
        fields: dict[str, Value] = {"recipients": set_id, "event_id": event_id, "room_id": room_id}
        writes: list[Write] = [Append("out", b"", fields)]
        if set_id not in self._stored:
            writes.append(Put("recipients", (set_id,), orjson.dumps(names)))
        return writes

    def sent(self, servers: Iterable[str]) -> None:
        """Events for these servers were committed."""
        set_id, names = self._named(servers)
        if not set_id:
            return
        self._learn(set_id, names)
        self._stored.add(set_id)
        for name in names:
            peer = self._peers[name]
            self._run(peer)
            peer.wake.set()

    def heard_from(self, server: str) -> None:
        """The server is alive: try at once what waits for it."""
        peer = self._peers.get(server)
        if peer is not None and peer.failures:
            peer.failures = 0
            peer.heard.set()

    def _run(self, peer: _Peer) -> None:
        if peer.task is None or peer.task.done():
            peer.task = self._ctx.spawn(self._send_all(peer), f"send to {peer.server}")

    async def _send_all(self, peer: _Peer) -> None:
        while True:
            peer.wake.clear()
            rows = await self._next(peer)
            if not rows and peer.edus:
                await self._deliver(peer, [], self._edus(peer))
                continue
            if not rows:
                peer.waiting_since, peer.reason = 0, ""
                await peer.wake.wait()
                continue
            peer.waiting_since = peer.waiting_since or self._ctx.clock.now()
            chosen = self._caught_up(rows)
            for at in range(0, len(chosen), MAX_PDUS):
                await self._deliver(peer, chosen[at : at + MAX_PDUS], self._edus(peer))
            peer.position = rows[-1].position
            peer.waiting_since = 0
            put = Put("destination", (peer.server,), b"", {"position": peer.position})
            await self._ctx.store.commit([put], durability="lazy")

    async def _next(self, peer: _Peer) -> list[Row]:
        """What to send next: a transaction's worth, or a backlog that is too long to be sent whole."""
        waiting = await self._waiting(peer)
        return waiting if len(waiting) > _CATCH_UP else waiting[:MAX_PDUS]

    async def _waiting(self, peer: _Peer) -> list[Row]:
        """What lies behind a server's cursor, in order; at least the first 1,001 of it. Read up to one point
        of the stream: what is committed while one set is read would else hide behind what another set has.
        """
        upto = await self._ctx.store.position()
        found: list[Row] = []
        for set_id in list(peer.sets):
            found += await self._ctx.store.scan(
                "out",
                index=("recipients", "position"),
                equal=(set_id,),
                after=peer.position,
                upto=upto,
                limit=_CATCH_UP + 1,
            )
        found.sort(key=lambda row: row.position)
        return found

    @staticmethod
    def _caught_up(rows: Sequence[Row]) -> list[Row]:
        """All of a short backlog; of a room with a long one the newest event."""
        if len(rows) <= MAX_PDUS:
            return list(rows)
        newest = {str(row.fields["room_id"]): row for row in rows}
        return sorted(newest.values(), key=lambda row: row.position)

    def tell(self, servers: Iterable[str], name: tuple[str, ...], edu: dict[str, Any]) -> None:
        """Tell servers what is no event: in memory, once, and the last of a ``name`` only. Who cannot be
        reached is not told.
        """
        for server in sorted(set(servers) - {self._server}):
            peer = self._peers.setdefault(server, _Peer(server))
            if peer.failures:
                continue
            peer.edus.pop(name, None)
            peer.edus[name] = edu
            if len(peer.edus) > MAX_EDUS:
                peer.edus.popitem(last=False)
                self._ctx.count("matrix_edus_dropped")
            self._run(peer)
            peer.wake.set()

    @staticmethod
    def _edus(peer: _Peer) -> list[dict[str, Any]]:
        taken = list(peer.edus.values())
        peer.edus.clear()
        return taken

    async def _deliver(self, peer: _Peer, rows: Sequence[Row], edus: Sequence[dict[str, Any]] = ()) -> None:
        """Send one transaction until it is taken; what the peer cannot stand is bisected and dropped. One
        without events is tried once.
        """
        keys = [(str(row.fields["event_id"]),) for row in rows]
        stored = await self._ctx.store.get_many("pdu", keys)
        pdus = [orjson.loads(stored[key].body) for key in keys if key in stored]
        peer.told += 1
        span = f"{rows[0].position}-{rows[-1].position}" if rows else f"edus{peer.told}"
        txn = f"{self._boot}{span}e{peer.told}" if rows and edus else f"{self._boot}{span}"
        body: dict[str, Any] = {
            "origin": self._server,
            "origin_server_ts": self._ctx.clock.now(),
            "pdus": pdus,
        }
        if edus:
            body["edus"] = list(edus)
        target = path("_matrix", "federation", "v1", "send", txn)
        if not rows:
            try:
                await self._client.request("PUT", peer.server, target, body, seconds=60.0)
            except (Unreachable, RemoteProtocolError) as error:
                self._ctx.count("matrix_edus_dropped")
                self._ctx.log.info("%s was not told: %s", peer.server, error)
            return
        while True:
            try:
                await self._client.request("PUT", peer.server, target, body, seconds=60.0)
            except Refused as error:
                if edus and error.hint not in {401, 403, 404}:
                    # It may be an EDU that they will not have: no event is given up for that.
                    self._ctx.count("matrix_edus_dropped")
                    await self._deliver(peer, rows)
                    return
                if error.hint in {401, 403, 404} or len(rows) == 1:
                    peer.reason = f"refused with {error.hint} {error.code}: {error.reason}"
                    if error.hint in {401, 403, 404}:
                        await self._pause(peer, 0.0)
                        continue
                    self._ctx.count("matrix_poison_events")
                    self._ctx.log.warning("%s will not take %s: %s", peer.server, keys[0][0], error.reason)
                    return
                half = len(rows) // 2
                await self._deliver(peer, rows[:half])
                await self._deliver(peer, rows[half:])
                return
            except Unreachable as error:
                peer.reason = str(error)
                await self._pause(peer, error.retry_after)
            except RemoteProtocolError as error:
                peer.reason = error.reason
                await self._pause(peer, 0.0)
            else:
                if peer.failures:
                    peer.failures = 0
                    self._alarm()
                peer.reason = ""
                return

    async def _pause(self, peer: _Peer, asked: float) -> None:
        now = self._ctx.clock.monotonic()
        if not peer.failures:
            peer.failing_since = now
        peer.failures += 1
        self._alarm()
        most = _MOST_EARLY if now - peer.failing_since < _EARLY else _MOST
        wait = asked or min(most, _FIRST * float(1 << min(peer.failures - 1, 20)))
        wait *= 0.9 + 0.2 * self._ctx.random.uniform()
        peer.heard.clear()
        try:
            async with asyncio.timeout(wait):
                await peer.heard.wait()
        except TimeoutError:
            pass

    def _alarm(self) -> None:
        """How many servers cannot be reached, and how many not for an hour: what an operator is woken for."""
        now = self._ctx.clock.monotonic()
        failing = [peer for peer in self._peers.values() if peer.failures]
        gone = [peer for peer in failing if now - peer.failing_since > _EARLY]
        self._ctx.gauge("matrix_destinations_failing", len(failing))
        self._ctx.gauge("matrix_destinations_gone", len(gone))

    def _known(self, server: str) -> _Peer:
        peer = self._peers.get(server)
        if peer is None:
            raise LocalProtocolError(f"nothing was ever sent to {server}: `hansa matrix destinations ls`")
        return peer

    async def retry(self, server: str) -> None:
        """Try at once what waits for a server, and one that is failing from the beginning."""
        peer = self._known(server)
        peer.failures = 0
        self._alarm()
        peer.heard.set()
        self._run(peer)
        peer.wake.set()

    async def reset(self, server: str) -> int:
        """Forget what waits for a server: how many events it will have to fetch by itself."""
        peer = self._known(server)
        waiting = await self._waiting(peer)
        if peer.task is not None:
            peer.task.cancel()
            await asyncio.gather(peer.task, return_exceptions=True)
        if waiting:
            peer.position = await self._ctx.store.position()
            put = Put("destination", (server,), b"", {"position": peer.position})
            await self._ctx.store.commit([put])
            self._ctx.log.warning("%d events for %s are given up by command", len(waiting), server)
        peer.edus.clear()
        peer.waiting_since = 0
        await self.retry(server)
        return len(waiting)

    async def where(self, event_id: str) -> list[Destination]:
        """How far each server is that an event was meant for."""
        found: list[Destination] = []
        for row in await self._ctx.store.scan("out", index=("event_id",), equal=(event_id,)):
            for server in self._sets.get(int(row.fields["recipients"] or 0), ()):
                peer = self._peers[server]
                found.append(self._standing(peer, int(peer.position < row.position)))
        return found

    async def destinations(self) -> list[Destination]:
        """Every destination with its backlog and trouble."""
        found = [self._standing(peer, len(await self._waiting(peer))) for peer in self._peers.values()]
        return sorted(found, key=lambda one: one.name)

    @staticmethod
    def _standing(peer: _Peer, waiting: int) -> Destination:
        if not waiting:
            return Destination(name=peer.server, state="delivered")
        return Destination(
            name=peer.server,
            state="failed" if peer.failures else "waiting",
            since=peer.waiting_since,
            reason=peer.reason,
            failures=peer.failures,
            waiting=waiting,
        )
