"""People of an XMPP room while the database goes away, tells late or does not say what it kept."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from hansa import NetworkContext, hookimpl
from hansa.setup import NetworkSetup
from hansa.store.memory import MemoryDisk
from hansa.testing.sim import Simulation, seeds, simulate
from hansa_xmpp import Config
from hansa_xmpp.network import XmppNetwork
from sim.databases import Database, forgive
from sim.federation import Server
from sim.scripted import Stage, said
from xmpp.stanzas import GW, groupchat, join, local_name
from xmpp.xmpp_server import ScriptedLink

pytestmark = pytest.mark.sim

PEOPLE = ("ann@x.example/a", "bob@y.example/b")


class Stream(ScriptedLink):
    """The link of one boot. ``kept`` is asked of each word that is shown whether the disk has it."""

    def __init__(self, room: Room) -> None:
        super().__init__()
        self.room = room
        self.online = set(PEOPLE)
        #: What each occupant was shown, in order.
        self.shown: dict[str, list[str]] = {full: [] for full in PEOPLE}

    def _sent(self, e: Element) -> None:
        if self.room.stream is not self or not self.room.machine.alive:
            self.room.sim.network.late.append(f"{e.attrib} is sent over XMPP by a process that has ended")
        super()._sent(e)
        to, body = e.get("to", ""), e.findtext("{*}body") or ""
        if e.get("type") == "error" and local_name(e.tag) in {"message", "presence"}:
            error = e.find("{*}error")
            assert error is not None and error.get("type") == "wait", e.attrib
            self.room.refused.add(e.get("id", ""))
        elif body and e.get("type") == "groupchat":
            assert body in self.room.kept(), f"{body} is shown and not kept"
            if e.find("{urn:xmpp:delay}delay") is None:
                self.shown[to].append(body)
        elif local_name(e.tag) == "presence" and "110" in [s.get("code") for s in e.iter() if s.get("code")]:
            self.room.inside.add(to)


class Room:
    """One Hansa with a room over XMPP and on a scripted network beside it."""

    name = "one"

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.stage = Stage()
        #: What was tried to be said, and what of it was refused.
        self.words: list[str] = []
        self.never: set[str] = set()
        self.streams: list[Stream] = []
        self.refused: set[str] = set()
        self.inside: set[str] = set()
        self._asked = 0

        def open_network(ctx: NetworkContext) -> XmppNetwork:
            self.streams.append(Stream(self))
            self.inside.clear()
            return XmppNetwork(ctx, self.streams[-1])

        module: Any = SimpleNamespace(__name__="x", open_network=hookimpl(open_network))
        networks = [
            NetworkSetup(id="xmpp", module=module, options=Config(component=GW, secret="s")),
            self.stage.setup("chat"),
        ]
        self.machine = sim.machine("one", networks, rooms=[["xmpp:lobby", "chat:lobby"]])

    @property
    def stream(self) -> Stream:
        return self.streams[-1]

    @property
    def disk(self) -> MemoryDisk:
        return self.machine.disk

    def kept(self) -> list[str]:
        """The words in the log, in its order."""
        rows = sorted(self.disk.tables.get(("", "event"), {}).items())
        found = []
        for _, row in rows:
            text = row.body.decode()
            found += [word for word in self.words if f'"{word}"' in text]
        return found

    def said_as(self, word: str) -> str:
        self.words.append(word)
        return word

    @property
    def linked(self) -> bool:
        return self.machine.listening and any(len(one.links) == 2 for one in self.machine.running.rooms)

    async def connected(self) -> None:
        """The link is up whenever a process runs."""
        while True:
            if self.machine.listening and self.streams:
                stream = self.stream
                if stream.listener is not None and not stream.is_up:
                    self._call(stream.up)
            await asyncio.sleep(0.05)

    def _call(self, act: Any) -> None:
        async def called() -> None:
            act()

        self.machine.spawn(called())

    async def _ask(self, stanza: str, id_: str, done: Any) -> bool:
        """True if the stanza took effect, False if it was refused or not answered in time."""
        if not (self.machine.listening and self.streams and self.stream.is_up):
            await asyncio.sleep(0.2)
            return False
        stream = self.stream
        self._call(lambda: stream.receive(stanza))
        for _ in range(300):
            if id_ in self.refused:
                return False
            if done(stream):
                return True
            if not self.machine.alive or self.stream is not stream:
                return False
            await asyncio.sleep(0.1)
        raise AssertionError(f"{id_} is never answered")

    async def enter(self, full: str) -> None:
        while full not in self.inside:
            self._asked += 1
            id_ = f"j{self._asked}"
            if await self._ask(join(full, full[:3], id_=id_), id_, lambda _: full in self.inside):
                return
            await asyncio.sleep(self.sim.chance.between(0.1, 1.0))

    async def say(self, full: str, word: str) -> None:
        """Until it is shown to who said it; each try is a word of its own."""
        while True:
            self._asked += 1
            id_, tried = f"m{self._asked}", self.said_as(f"{word} {self._asked}")
            stanza = groupchat(full, f"<body>{tried}</body>", id_)
            if await self._ask(stanza, id_, lambda stream, tried=tried: tried in stream.shown[full]):
                return
            if id_ in self.refused:
                assert tried not in self.kept(), f"{tried} is refused and kept"
                self.never.add(tried)
            await asyncio.sleep(self.sim.chance.between(0.1, 1.0))
            await self.enter(full)

    async def talk(self, full: str, count: int) -> None:
        await self.enter(full)
        for number in range(count):
            await self.say(full, f"{full[:3]}{number}")
            await asyncio.sleep(self.sim.chance.between(0.0, 2.0))

    async def told(self, count: int) -> None:
        for number in range(count):
            word = self.said_as(f"chat{number}")
            inbound = said(self.sim, "chat", "lobby", "cat@chat", word)
            outcome = await Server._insist(self, lambda inbound=inbound: inbound)  # type: ignore[arg-type]
            assert outcome is not None and outcome.event is not None
            await asyncio.sleep(self.sim.chance.between(0.0, 2.0))

    def check(self) -> None:
        log = self.kept()
        assert not self.never & set(log), "what was refused is kept"
        assert max(Counter(log).values()) == 1
        for stream in self.streams:
            for full, shown in stream.shown.items():
                assert len(shown) == len(set(shown)), f"{full} is shown something twice"
                assert [word for word in log if word in shown] == shown, (
                    f"{full} is shown things out of order"
                )
        screen = self.stage.screen("chat").texts("lobby")
        assert screen == [word for word in log if not word.startswith("chat")]


def _chatting(seed: int, _: object = None) -> str:
    async def scenario(sim: Simulation) -> None:
        room = Room(sim)
        database = Database(sim, room.machine, often=0.06)
        await database.start()
        connecting = asyncio.ensure_future(room.connected())
        await sim.until(lambda: room.linked, "the room is made and linked", within=60.0)
        database.trouble = True
        await asyncio.gather(*(room.talk(full, 8) for full in PEOPLE), room.told(8))
        await database.peace()
        for full in PEOPLE:
            await room.enter(full)
        for full in PEOPLE:
            await room.say(full, "last")
        await sim.until(
            lambda: all("last" in " ".join(shown[-2:]) for shown in room.stream.shown.values()),
            "both have the last words",
            within=600.0,
        )
        await asyncio.sleep(30.0)
        room.check()
        database.check()
        connecting.cancel()
        forgive(sim)

    return simulate(scenario, seed)


@pytest.mark.parametrize("seed", seeds(40))
def test_a_stanza_is_kept_and_shown_once_or_refused_for_now(seed: int):
    _chatting(seed)
