"""All destinations, each a cursor on one stream of our events and one of the EDUs that may not be lost.

What is sent names the set of servers it goes to; a server reads the sets it is in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson
from hansa import (
    Append,
    Delete,
    DestinationStatus,
    LocalProtocolError,
    NetworkContext,
    Put,
    Row,
    StoreFault,
    StreamTail,
    Value,
    Write,
    pages,
    pieces,
    scan_all,
)

from hansa_matrix.federation.client import FederationClient
from hansa_matrix.federation.destination_queue import DestinationQueue, QueueServices, destination_set
from hansa_matrix.federation.durable_edus import stored_edu
from hansa_matrix.federation.outbound_pdus import OutboundPdus

#: Failing servers that are tried at a time, however many there are: the others are not kept waiting by them.
_MAX_PROBES = 50
_PAGE_SIZE = 500
#: Seconds after which a set of servers that nothing is for is forgotten, and sets looked at an hour.
UNUSED_FOR, _SETS_AT_ONCE = 3600.0, 2000
#: Seconds after which the cursors of servers that took something are kept.
_SAVE_AFTER_S = 1.0


class FederationSender:
    """All destinations of one server."""

    def __init__(
        self, ctx: NetworkContext, client: FederationClient, server: str, pdus: OutboundPdus
    ) -> None:
        self._ctx = ctx
        self._server = server
        self._peers: dict[str, DestinationQueue] = {}
        self._sets: dict[int, tuple[str, ...]] = {}
        #: Those whose row is committed.
        self._stored: set[int] = set()
        #: When (s) something went to a set last, or it was looked at; and what was used since it was.
        self._used: dict[int, float] = {}
        self._touched: set[int] = set()
        #: The stream's position when a server was forgotten last: what is for one that comes back is later.
        self._floor = 0
        self._post = QueueServices(
            ctx=ctx,
            client=client,
            boot=ctx.random.bytes(4).hex(),
            probes=asyncio.Semaphore(_MAX_PROBES),
            changed=self._update_gauges,
            moved=self._on_advanced,
            recent={
                stream: StreamTail(ctx.store, stream, most, lambda row: row)
                for stream, most in (("out", 1000), ("lasting_edu", 50))
            },
            pdus=pdus,
        )
        #: The queues whose cursor is further than its row says.
        self._ahead: dict[str, DestinationQueue] = {}

    async def load(self) -> None:
        """Take up every destination where it stood."""
        async for row in scan_all(self._ctx.store, "recipients"):
            self._add_set(int(row.key[0]), tuple(orjson.loads(row.body)))
            self._stored.add(int(row.key[0]))
        for peer in self._peers.values():
            await peer.load()
        self._update_gauges()

    def start(self) -> None:
        """Begin to send what waits."""
        for peer in self._peers.values():
            peer.run()

    def _queue_for(self, server: str) -> DestinationQueue:
        if server not in self._peers:
            peer = self._peers[server] = DestinationQueue(server, self._post)
            peer.position = peer.lasting = self._floor
        return self._peers[server]

    def _add_set(self, set_id: int, servers: tuple[str, ...]) -> None:
        self._sets[set_id] = servers
        for server in servers:
            self._queue_for(server).sets.add(set_id)

    def _remote_destination_set(self, servers: Iterable[str]) -> tuple[int, tuple[str, ...]]:
        return destination_set(set(servers) - {self._server})

    def event_writes(self, event_id: str, room_id: str, servers: Iterable[str]) -> list[Write]:
        """The writes that put an event on its way; nothing for an event that goes nowhere. After they are
        committed, ``on_committed``.
        """
        return self._stream_writes("out", b"", servers, {"event_id": event_id, "room_id": room_id})

    def durable_edu_writes(self, edu: dict[str, Any], servers: Iterable[str]) -> list[Write]:
        """As ``event_writes``, for an EDU that may not be lost."""
        return self._stream_writes("lasting_edu", stored_edu(edu, self._ctx.policy_generation), servers, {})

    def _stream_writes(
        self, stream: str, body: bytes, servers: Iterable[str], fields: dict[str, Value]
    ) -> list[Write]:
        """A set is learned here and not when it is committed: a server's reading that comes in between would
        pass the set's first event over.
        """
        set_id, names = self._remote_destination_set(servers)
        if not set_id:
            return []
        self._add_set(set_id, names)
        self._used[set_id] = self._ctx.clock.monotonic()
        self._touched.add(set_id)
        writes: list[Write] = [Append(stream, body, {"recipients": set_id, **fields})]
        if set_id not in self._stored:
            writes.append(Put("recipients", (set_id,), orjson.dumps(names)))
        return writes

    def on_committed(self, servers: Iterable[str]) -> None:
        """Wakes the queues of these servers after a commit."""
        set_id, names = self._remote_destination_set(servers)
        if not set_id:
            return
        self._add_set(set_id, names)
        self._stored.add(set_id)
        for name in names:
            self._peers[name].run()

    def send_ephemeral(self, servers: Iterable[str], name: tuple[str, ...], edu: dict[str, Any]) -> None:
        """Tell servers what may be lost: in memory, once, and the last of a ``name`` only. A server that
        cannot be reached gets none.
        """
        for server in sorted(set(servers) - {self._server}):
            self._queue_for(server).queue_ephemeral(name, edu)

    def _on_advanced(self, peer: DestinationQueue) -> None:
        """Two hundred servers take an event at the same time: one commit keeps all their cursors. A crash
        before it sends them again what they know.
        """
        if not self._ahead:
            self._ctx.spawn(self._save_cursors_soon, "keep the cursors of servers")
        self._ahead[peer.server] = peer

    async def _save_cursors_soon(self) -> None:
        await asyncio.sleep(_SAVE_AFTER_S)
        await self.save_cursors()

    async def save_cursors(self) -> None:
        """Commit where every server stands."""
        ahead, self._ahead = self._ahead, {}
        if not ahead:
            return
        try:
            for piece in pieces([peer.cursor_row() for peer in ahead.values()]):
                await self._ctx.store.commit(piece, durability="lazy")
        except StoreFault:
            self._ahead = ahead | self._ahead
            raise

    def heard_from(self, server: str) -> None:
        """The server is alive: try at once what waits for it."""
        peer = self._peers.get(server)
        if peer is not None:
            peer.heard_from()

    def _update_gauges(self) -> None:
        """How many servers cannot be reached, and how many not for an hour: what an operator is woken for."""
        failing = [peer for peer in self._peers.values() if peer.failures]
        self._ctx.set_gauge("matrix_destinations_failing", len(failing))
        self._ctx.set_gauge("matrix_destinations_gone", sum(peer.is_unreachable() for peer in failing))

    def _require_queue(self, server: str) -> DestinationQueue:
        peer = self._peers.get(server)
        if peer is None:
            raise LocalProtocolError(f"nothing was ever sent to {server}: `hansa matrix destinations ls`")
        return peer

    async def retry_server(self, server: str) -> None:
        """Try at once what waits for a server, and one that is failing from the beginning."""
        peer = self._require_queue(server)
        peer.heard_from()
        peer.run()

    async def discard_backlog(self, server: str) -> int:
        """Forget what waits for a server: how much it will have to fetch by itself."""
        peer = self._require_queue(server)
        given_up = await peer.discard_backlog()
        self._update_gauges()
        if given_up:
            self._ctx.log.warning("%d events and EDUs for %s are given up by command", given_up, server)
        peer.run()
        return given_up

    async def sweep(self) -> None:
        """Removes rows that all their servers have got: EDUs at once, events after a time."""
        await self._purge_stream("lasting_edu", None, lambda peer: peer.lasting)
        aged = await self._expired_position()
        if aged:
            await self._purge_stream("out", aged, lambda peer: peer.position)
        await self._forget_sets()
        await self._forget_servers()

    async def _forget_sets(self) -> None:
        """Forget sets of servers that nothing is for any more, some at a time."""
        now = self._ctx.clock.monotonic()
        idle = [one for one in self._stored if self._used.get(one, now - UNUSED_FOR) <= now - UNUSED_FOR]
        gone: list[int] = []
        self._touched.clear()
        for set_id in sorted(idle, key=lambda one: self._used.get(one, 0.0))[:_SETS_AT_ONCE]:
            self._used[set_id] = now  # looked at; it is its turn again after the others
            if (
                await self._first_position("out", set_id) is None
                and await self._first_position("lasting_edu", set_id) is None
            ):
                gone.append(set_id)
        gone = [set_id for set_id in gone if set_id not in self._touched]
        if not gone:
            return
        for set_id in gone:
            for server in self._sets.pop(set_id):
                self._peers[server].sets.discard(set_id)
            self._stored.discard(set_id)
            del self._used[set_id]
        # Nothing is awaited in between: what a later writer keeps of a set is committed after this.
        await self._ctx.store.commit([Delete("recipients", (set_id,)) for set_id in gone])

    async def _forget_servers(self) -> None:
        """Forgets servers without pending rows and without failures."""
        self._floor = await self._ctx.store.position()
        gone = [peer for peer in self._peers.values() if not peer.sets and peer.is_idle]
        for peer in gone:
            del self._peers[peer.server]
            self._ahead.pop(peer.server, None)
        for piece in pieces([Delete("destination", (peer.server,)) for peer in gone]):
            await self._ctx.store.commit(piece, durability="lazy")
        self._update_gauges()

    async def _purge_stream(
        self, stream: str, upto: int | None, cursor: Callable[[DestinationQueue], int]
    ) -> None:
        async for page in pages(self._ctx.store, stream, upto=upto, size=_PAGE_SIZE):
            await self._read_sets(page)
            gone = [Delete(stream, row.key) for row in page if self._is_delivered(row, cursor)]
            if gone:
                await self._ctx.store.commit(gone, durability="lazy")

    async def _read_sets(self, rows: Sequence[Row]) -> None:
        """Learn the sets of some rows that another process stored, and send to their servers. A server's
        cursor may be beyond the first event of such a set, and a new server's cursor is.
        """
        named = {int(row.fields["recipients"] or 0) for row in rows}
        missing = [(set_id,) for set_id in sorted(named - self._sets.keys())]
        for row in (await self._ctx.store.get_many("recipients", missing) if missing else {}).values():
            set_id, servers = int(row.key[0]), tuple(orjson.loads(row.body))
            event, edu = (
                await self._first_position("out", set_id),
                await self._first_position("lasting_edu", set_id),
            )
            if set_id not in self._sets:
                self._add_set(set_id, servers)
                self._stored.add(set_id)
                for server in servers:
                    self._peers[server].return_to(event=event, edu=edu)
                    self._peers[server].run()

    async def _first_position(self, stream: str, set_id: int) -> int | None:
        """The position of the first row of a set."""
        index = ("recipients", "position")
        rows = await self._ctx.store.scan(stream, index=index, equal=(set_id,), limit=1)
        return rows[0].position if rows else None

    def _is_delivered(self, row: Row, cursor: Callable[[DestinationQueue], int]) -> bool:
        """True if every server of a row has got it. For an unknown set of servers it is False."""
        servers = self._sets.get(int(row.fields["recipients"] or 0))
        if servers is None:
            self._ctx.count("matrix_recipients_unknown")
            return False
        return all(cursor(self._peers[server]) >= row.position for server in servers)

    async def _expired_position(self) -> int:
        """The position up to which our events are old enough to be forgotten; 0 if none is."""
        now = self._ctx.clock.now()
        writes: list[Write] = [
            Put("out_mark", (now,), b"", {"position": await self._ctx.store.position()}),
        ]
        until = now - self._ctx.config.delivery_status_ttl * 1000
        old = [mark async for mark in scan_all(self._ctx.store, "out_mark", upto=until)]
        writes += [Delete("out_mark", mark.key) for mark in old]
        await self._ctx.store.commit(writes, durability="lazy")
        return max((int(mark.fields["position"] or 0) for mark in old), default=0)

    async def delivery_status(self, event_id: str) -> list[DestinationStatus]:
        """How far each server is that an event was meant for."""
        found: list[DestinationStatus] = []
        rows = await self._ctx.store.scan("out", index=("event_id",), equal=(event_id,))
        await self._read_sets(rows)
        for row in rows:
            for server in self._sets.get(int(row.fields["recipients"] or 0), ()):
                peer = self._peers[server]
                found.append(peer.destination_status(int(peer.position < row.position)))
        return found

    async def destinations(self) -> list[DestinationStatus]:
        """Every destination with its backlog and trouble."""
        found = [peer.destination_status(await peer.backlog_size()) for peer in self._peers.values()]
        return sorted(found, key=lambda one: one.name)
