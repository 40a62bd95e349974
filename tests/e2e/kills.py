"""A Hansa under load that is killed again and again: who loads it, and what must hold after each start."""

from __future__ import annotations

import asyncio
import random
import re
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from aiohttp import web
from hansa.cli.socket_client import call
from hansa.store import catalogue, open_store
from hansa.store.base import Collection, Row, Store
from hansa.store.paging import every_page
from hansa_matrix.proto.event import Pdu
from peers.ca import PrivateCA
from peers.hansa import Hansa
from peers.synapse import MatrixUser, Refusal
from peers.waiting import until

from bench.origin import NotTaken, Origin
from bench.room import FakeRoom

#: Aims of the load: servers, people here, events per second of each side.
ORIGINS, _PEOPLE, _RATE = 4, 8, 200
#: PDUs a transaction: small ones are judged at once, others are staged, and wait for each other.
_SIZES = (1, 10, 50, 50)
_MEAN = sum(_SIZES) / len(_SIZES)
_AGAIN = 0.1
_RENAMED_EVERY = 25
_LATER = {429, 502, 503}
_SAID = re.compile(rb"said by [a-z0-9]+ \d+\.")


class Listener(Origin):
    """A fake homeserver that remembers under which transactions it was sent each event, and in which order."""

    def __init__(self, ca: PrivateCA) -> None:
        super().__init__(ca)
        self.transactions: dict[str, set[str]] = {}
        self.order: list[str] = []

    async def _receive(self, request: web.Request) -> web.Response:
        answer = {}
        for raw in orjson.loads(await request.read())["pdus"]:
            room = self._room(raw["room_id"])
            pdu = room.parsed(raw)
            if pdu.event_id not in room.events:
                room.received(raw)
            if pdu.event_id not in self.transactions:
                self.order.append(pdu.event_id)
            self.transactions.setdefault(pdu.event_id, set()).add(request.match_info["txn"])
            answer[pdu.event_id] = {}
        return web.json_response({"pdus": answer})


@dataclass
class Kept:
    """The acknowledged event ids of each sender, in the order of sending."""

    local: dict[str, list[str]] = field(default_factory=dict)
    remote: dict[str, list[str]] = field(default_factory=dict)

    @property
    def senders(self) -> list[list[str]]:
        return [*self.local.values(), *self.remote.values()]

    @property
    def sizes(self) -> tuple[int, int]:
        """How many events of people here, and of others."""
        return sum(map(len, self.local.values())), sum(map(len, self.remote.values()))

    @property
    def count(self) -> int:
        return sum(self.sizes)


class Load:
    """Fake homeservers that send signed PDUs, people of this Hansa that send with transaction ids. Each goes on
    until it is acknowledged, with the same transaction, as servers and clients do.
    """

    def __init__(self, server: Hansa, origins: Sequence[Listener], room: FakeRoom, url: str) -> None:
        self._url = url
        self.server, self.origins, self.room = server, origins, room
        self.people: list[MatrixUser] = []
        self.kept = Kept()
        self.again = 0
        #: Seconds under load until a kill, and what was acknowledged in them: local events, and remote ones.
        self.loaded = 0.0
        self.taken = [0, 0]
        self._read: list[str] = []
        self._token = ""
        self._said = 0
        self._open = asyncio.Event()
        self._busy = 0

    async def enter(self) -> None:
        """Link the room, and let people of this server in."""
        links = {"links": [f"matrix:{self.room.alias}"]}
        await asyncio.to_thread(call, self.server.config, "POST", "/rooms/create", links)
        for number in range(_PEOPLE):
            user = await self.server.user(f"person{number}")
            await user.join(self.room.alias)
            self.people.append(user)
        self._token = (await self.people[0].sync())["next_batch"]

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for origin in self.origins:
                group.create_task(self._paced(origin.name, _RATE / _MEAN / ORIGINS, origin))
            for user in self.people:
                group.create_task(self._paced(user.id, _RATE / _PEOPLE, user))

    async def _paced(self, name: str, rate: float, who: Listener | MatrixUser) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._open.wait()
            due = loop.time() + 1 / rate
            self._busy += 1
            try:
                await (self._transaction(who) if isinstance(who, Listener) else self._send(who))
            finally:
                self._busy -= 1
            await asyncio.sleep(max(0.0, due - loop.time()))  # the rate of the load

    def go_on(self) -> None:
        self._open.set()

    async def lasts(self, seconds: float) -> None:
        """So long it goes on, and is measured."""
        before = self.kept.sizes
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(seconds)  # the random moment of a kill
        self.loaded += loop.time() - began
        for side, (now, then) in enumerate(zip(self.kept.sizes, before, strict=True)):
            self.taken[side] += now - then

    @property
    def rates(self) -> str:
        """Events per second: local ones, and remote ones."""
        local, remote = (count / self.loaded if self.loaded else 0 for count in self.taken)
        return f"{local:.0f} + {remote:.0f} a second"

    async def pause(self) -> None:
        """Wait until everything that was begun is acknowledged."""
        self._open.clear()

        async def calm() -> bool:
            return not self._busy

        await until("everything that was sent is acknowledged", calm, 120)

    async def _transaction(self, origin: Listener) -> None:
        pdus = self._pdus(origin)
        target = f"/_matrix/federation/v1/send/{secrets.token_hex(8)}"
        body = {"origin": origin.name, "origin_server_ts": 1, "pdus": [pdu.raw for pdu in pdus]}
        while True:
            try:
                got, _ = await origin.request("PUT", self.server.name, target, body)
            except NotTaken as problem:
                if problem.status not in _LATER:
                    raise
            except (aiohttp.ClientError, TimeoutError):
                pass
            else:
                break
            self.again += 1
            await asyncio.sleep(_AGAIN)  # what a server waits before it asks again
        problems = {e: p for e, p in orjson.loads(got)["pdus"].items() if p}
        assert not problems, problems
        self.room.taken(*pdus)
        self.kept.remote.setdefault(origin.name, []).extend(pdu.event_id for pdu in pdus)

    def _pdus(self, origin: Listener) -> list[Pdu]:
        made: list[Pdu] = []
        prev = dict(self.room.tips)
        people = self.room.people[origin.name]
        for _ in range(random.choice(_SIZES)):
            self._said += 1
            sender = people[self._said % len(people)]
            if self._said % _RENAMED_EVERY:
                content = {"msgtype": "m.text", "body": f"said by remote {self._said}."}
                pdu = self.room.event(origin, "m.room.message", sender, content, prev=prev)
            else:
                content = {"membership": "join", "displayname": f"Renamed {self._said}"}
                pdu = self.room.event(origin, "m.room.member", sender, content, sender, prev=prev)
                self.room.stands(pdu)
            prev = {pdu.event_id: pdu.depth}
            made.append(pdu)
        return made

    async def _send(self, user: MatrixUser) -> None:
        self._said += 1
        content = {"msgtype": "m.text", "body": f"said by local {self._said}."}
        path = f"/rooms/{quote(self.room.room_id, safe='')}/send/m.room.message/{secrets.token_hex(8)}"
        while True:
            try:
                got = await user.call("PUT", path, content)
            except Refusal as refusal:
                if refusal.status not in _LATER:
                    raise
            except (aiohttp.ClientError, TimeoutError):
                pass
            else:
                break
            self.again += 1
            await asyncio.sleep(_AGAIN)  # what a client waits before it asks again
        self.kept.local.setdefault(user.id, []).append(got["event_id"])

    async def holds(self) -> None:
        """While nobody sends: what was acknowledged is in the room once and in order, was delivered once and
        in order, and the state is that of the fake homeservers.
        """
        wanted = {event for events in self.kept.senders for event in events}

        async def in_the_room() -> bool:
            await self._page()
            return wanted <= set(self._read)

        await until("what was acknowledged is in the room", in_the_room, 120)
        in_order(self._read, self.kept.senders, "the room")
        for origin in self.origins:

            async def delivered(origin: Listener = origin) -> bool:
                return all(e in origin.transactions for events in self.kept.local.values() for e in events)

            await until(f"everything was delivered to {origin.name}", delivered, 120)
            in_order(origin.order, list(self.kept.local.values()), origin.name)
        model = {(pdu.type, pdu.state_key): pdu.event_id for pdu in self.room.state.values()}

        async def alike() -> bool:
            found = await self.people[0].call("GET", f"/rooms/{quote(self.room.room_id, safe='')}/state")
            return {(e["type"], e["state_key"]): e["event_id"] for e in found} == model

        await until("the state is that of the fake homeservers", alike, 30)

    @property
    def delivered_again(self) -> int:
        """Events that came to a server in a second transaction: how far it had got is kept now and then, and
        an event that is known already is taken once.
        """
        return sum(len(found) > 1 for origin in self.origins for found in origin.transactions.values())

    async def _page(self) -> None:
        """Read on in the room."""
        while True:
            where = f"/rooms/{quote(self.room.room_id, safe='')}/messages"
            got = await self.people[0].call("GET", f"{where}?dir=f&limit=1000&from={quote(self._token)}")
            self._read += [event["event_id"] for event in got["chunk"]]
            if not got["chunk"] or "end" not in got:
                return
            self._token = got["end"]

    async def stored(self) -> int:
        """After a stop: the same of the rows, and nothing waits any more. How many rows there are."""
        checked = await self.server.run("store", "check")
        assert not checked["wrong"], checked
        store = open_store(self._url, self.server.folder)
        await store.open()
        try:
            rows = await self._rows(store)
        finally:
            await store.close()
        assert not rows["staged"], f"{len(rows['staged'])} staged rows are stuck"
        assert not rows["hole"] and not rows["dead"], (rows["hole"], rows["dead"])
        status = {row.key[0]: row.fields["status"] for row in rows["pdu"]}
        at = {row.key[1]: row.fields["seq"] for row in rows["alias"] if row.key[0] == "matrix"}
        wanted = [event for events in self.kept.senders for event in events]
        bad = {event: status.get(event) for event in wanted if status.get(event) != "accepted"}
        assert not bad, f"acknowledged and not stored: {bad}"
        said = Counter(text for row in rows["event"] for text in set(_SAID.findall(row.body)))
        twice = {text for text, times in said.items() if times > 1}
        assert not twice, f"twice in the log: {twice}"
        log = {row.key[1] for row in rows["event"]}
        assert not [e for e in wanted if at.get(e) not in log], "acknowledged and not in the log"
        in_order(sorted(at, key=at.__getitem__), self.kept.senders, "the log")
        return sum(len(found) for found in rows.values())

    async def _rows(self, store: Store) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        for scope, schema in await catalogue.recorded(store):
            await store.declare(scope, schema)
            for one in schema.collections:
                if (schema.owner, one.name) in _READ:
                    found[one.name] = await _all(store, scope, one)
        return found


_READ = {("matrix", name) for name in ("staged", "hole", "pdu")} | {
    ("core", name) for name in ("event", "alias", "dead")
}


async def _all(store: Store, scope: str, collection: Collection) -> list[Row]:
    return [row async for page in every_page(store, scope, collection) for row in page]


def in_order(found: Sequence[str], senders: Sequence[Sequence[str]], where: str) -> None:
    """Each sender's events are there, once, in the order in which they were said."""
    twice = [event for event, times in Counter(found).items() if times > 1]
    assert not twice, f"twice in {where}: {twice}"
    at = {event: number for number, event in enumerate(found)}
    for events in senders:
        places = [at[event] for event in events]
        assert places == sorted(places), f"out of order in {where}"


async def kill_while_it_starts(server: Hansa, chance: random.Random) -> None:
    """Start, and kill before it is ready, or shortly after."""
    starting = asyncio.ensure_future(server.start())
    await asyncio.wait({starting}, timeout=chance.uniform(0.1, 2.0))
    starting.cancel()
    await asyncio.wait({starting})
    await server.kill()


def shown(found: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in found.items())
