"""Matrix servers in a simulation: each a Hansa with the real plugin and a scripted network beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import hansa_matrix
from hansa import (
    Busy,
    Custom,
    Event,
    LocalProtocolError,
    Message,
    NativeId,
    StoreFault,
    Submission,
    SubmitResult,
)
from hansa.setup import NetworkSetup
from hansa.testing.sim import Crashed, Machine, Simulation
from hansa_matrix.crypto import SigningKey
from hansa_matrix.network import MatrixNetwork
from hansa_matrix.rooms.event_store import Status
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.testing import MatrixHarness
from sim.scripted import Stage, said

ALIAS = "#lobby"


class Server:
    """One machine with a Matrix network ``matrix`` and a scripted network ``chat``, linked in one room."""

    def __init__(
        self, sim: Simulation, name: str, keys: Path, *, room: str, version: str, srv: bool = False
    ) -> None:
        self.sim = sim
        self.name = name
        host = f"{name}.test"
        self.server_name = host if srv else f"{host}:8448"
        keys.mkdir(exist_ok=True)
        key = keys / f"{name}.key"
        key.write_text(
            SigningKey.from_seed("ed25519:1", name.encode().ljust(32, b"!")).line(), encoding="ascii"
        )
        key.chmod(0o600)
        options = hansa_matrix.Config(
            server_name=self.server_name, signing_key=key, room_version=version, naming_level=0
        )
        self.stage = Stage()
        matrix = NetworkSetup(id="matrix", module=hansa_matrix, options=options)
        self.machine: Machine = sim.machine(
            name,
            [matrix, self.stage.setup("chat")],
            rooms=[[f"matrix:{room}", "chat:lobby"]],
            listens=[(host, 8448)],
        )
        if srv:
            from hansa import SrvRecord

            sim.network.srv[f"_matrix-fed._tcp.{host}"] = [SrvRecord(0, 0, 8448, host)]
        #: ``text -> event id`` of what was acknowledged.
        self.acknowledged: dict[str, str] = {}
        self._made = 0

    @property
    def matrix(self) -> MatrixHarness:
        network = self.machine.running.network("matrix")
        if not isinstance(network, MatrixNetwork):
            raise Crashed(f"the Matrix network of {self.name} is not open")
        return MatrixHarness(network)

    @property
    def linked(self) -> bool:
        if not self.machine.listening:
            return False
        return any(len(room.links) == 2 for room in self.machine.running.rooms)

    @property
    def room(self) -> MatrixRoom:
        rooms = list(self.matrix.rooms.values())
        if len(rooms) != 1:
            raise Crashed(f"{self.name} has {len(rooms)} rooms now")
        return rooms[0]

    def knows(self, servers: Sequence[Server]) -> bool:
        """True once this server knows that all of these are in the room, and so sends to them."""
        if not self.linked:
            return False
        view = self.machine.running.contexts["matrix"].get_view(next(iter(self.matrix.rooms), ""))
        return view is not None and all(("matrix", s.server_name) in view.joined_servers for s in servers)

    def user(self, local: str) -> str:
        return f"@{local}:{self.server_name}"

    async def _insist(self, make: Callable[[], Submission], patience: int = 400) -> SubmitResult | None:
        for _ in range(patience):
            try:
                inbound = make()
                app = self.machine.running
                return (await self.machine.do(app.contexts[inbound.origin.network].submit([inbound])))[0]
            except (Crashed, Busy, LocalProtocolError, StoreFault):
                await asyncio.sleep(self.sim.chance.between(0.05, 1.0))
        raise AssertionError(f"{self.name} takes nothing any more")

    async def say(self, person: str, text: str) -> SubmitResult:
        """A person of the scripted network speaks, again and again until it is acknowledged."""
        outcome = await self._insist(lambda: said(self.sim, "chat", "lobby", person, text))
        assert outcome.refusal is None, f"{text} by {person}: {outcome.refusal}"
        self.acknowledged[text] = text
        return outcome

    async def act(
        self, local: str, type_: str, state_key: str | None, content: dict[str, Any]
    ) -> SubmitResult:
        """A native person of this server sends an event; a refusal by the rules is an outcome."""
        self._made += 1
        origin = f"local-{self._made}"

        def make() -> Submission:
            return Submission(
                origin=NativeId("matrix", origin),
                room=NativeId("matrix", self.room.room_id),
                sender=NativeId("matrix", self.user(local)),
                content=Message(text=str(content.get("body", "")))
                if type_ == "m.room.message"
                else Custom(type=type_),
                ts=int(self.sim.now * 1000),
                native=(type_, state_key, content),
            )

        return await self._insist(make)

    async def log(self) -> list[Event]:
        app = self.machine.running
        core = app.rooms.room_of(NativeId("matrix", self.room.room_id))
        from hansa.bus import schema

        rows = await app.core.scan("event", equal=(core.id,), limit=10_000)
        return [schema.event_of(row) for row in rows]

    async def texts(self) -> list[str]:
        return [e.content.text for e in await self.log() if isinstance(e.content, Message)]

    async def placed(self) -> dict[str, str]:
        """``event id -> status`` of everything with a place in the DAG."""
        rows = await self.matrix.store.scan("pdu", limit=10_000)
        return {
            str(row.key[0]): str(row.fields["status"])
            for row in rows
            if row.fields["after"] and row.fields["room_id"] == self.room.room_id
        }

    async def view(self) -> dict[str, tuple[Any, ...]]:
        """The core's view by Matrix ids."""
        context = self.machine.running.contexts["matrix"]
        view = context.get_view(self.room.room_id)
        assert view is not None
        found: dict[str, tuple[Any, ...]] = {"": (view.facts,)}
        for person in view.people.values():
            found[await context.get_ghost_id(person.user)] = (person.membership, person.name, person.role)
        return found

    async def recomputed(self) -> dict[str, tuple[Any, ...]]:
        """The view that the Matrix state of now gives."""
        room, matrix = self.room, self.matrix
        state = {p.key: p for p in await room.state_events(await room.state()) if p.state_key is not None}
        levels = room.levels(state["m.room.create", ""], state.get(("m.room.power_levels", "")), room.version)

        async def at_once() -> AsyncIterator[dict[tuple[str, str], Any]]:
            yield state

        change = await matrix.views.whole(at_once(), room.version.id, levels)
        found: dict[str, tuple[Any, ...]] = {"": (change.info,)}
        context = self.machine.running.contexts["matrix"]
        for person in change.upserts:
            found[await context.get_ghost_id(person.user)] = (person.membership, person.name, person.role)
        return found


async def converged(sim: Simulation, servers: Sequence[Server]) -> bool:
    """True if every server has the same extremities and waits for nothing."""
    try:
        ends = {tuple(sorted(s.room.head.extremities)) for s in servers}
        waiting = sum(s.matrix.staging.waiting_count(s.room.room_id) for s in servers)
    except Crashed:
        return False
    return len(ends) == 1 and not waiting


async def tie_together(
    sim: Simulation, servers: Sequence[Server], speak: Callable[[Server, str], Any]
) -> None:
    """After the trouble: one more word from everybody, until all DAGs have one end."""
    for round_ in range(4):
        for server in servers:
            await speak(server, f"end {server.name} {round_}")
            await sim.until(
                lambda: _quiet(servers), "nothing waits to be sent or judged", within=900.0, every=1.0
            )
        if await converged(sim, servers):
            return
    raise AssertionError("\n".join(f"{s.name}: {sorted(s.room.head.extremities)}" for s in servers))


async def _quiet(servers: Sequence[Server]) -> bool:
    for server in servers:
        if any(one.waiting for one in await server.matrix.sender.destinations()):
            return False
        if server.matrix.staging.waiting_count(server.room.room_id):
            return False
    return True


async def same_everywhere(servers: Sequence[Server]) -> None:
    """Events, state, extremities and views are the same on every server, and each view is its state's."""
    first = servers[0]
    ends, state = first.room.head.extremities, await first.room.state()
    placed, view = await first.placed(), await first.view()
    for server in servers:
        assert await server.view() == await server.recomputed(), f"{server.name}: the view is not the state's"
        stored = await server.machine.running.core.count("dead")
        assert stored == 0, f"{server.name} has dead letters"
    for server in servers[1:]:
        names = f"{first.name} and {server.name}"
        assert sorted(server.room.head.extremities) == sorted(ends), f"extremities of {names}"
        mine = await server.room.state()
        differing = {k: (state.get(k), mine.get(k)) for k in {*state, *mine} if state.get(k) != mine.get(k)}
        assert not differing, f"state of {names}: {differing}"
        theirs = await server.placed()
        history = [e for e in theirs if e not in placed]
        assert not history, f"{first.name} lacks events: {history}"
        rejected = {e for e, s in placed.items() if s == Status.REJECTED} ^ {
            e for e, s in theirs.items() if s == Status.REJECTED
        }
        assert not rejected & set(theirs) & set(placed), f"rejected by one of {names}: {rejected}"
        assert await server.view() == view, f"views of {names}"
