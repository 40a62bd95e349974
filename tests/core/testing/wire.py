"""A network that keeps its contract, for tests of the kit: others are broken in one way each."""

from __future__ import annotations

import asyncio
import sys
import types
from typing import ClassVar

from hansa import (
    Busy,
    Features,
    Kind,
    Level,
    Message,
    NativeId,
    RemoteProtocolError,
    RetryLater,
    Submission,
    hookimpl,
)
from hansa.testing import NetworkSuite
from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    greeting: str


class Peer:
    """The other end, which outlives the network. ``native`` is what it was told, per room."""

    now: ClassVar[Peer]

    def __init__(self):
        self.native, self.sent, self.heard = {}, {}, 0
        self.open()

    def open(self):
        self.listening, self.lost = True, asyncio.Event()

    def close(self):
        self.listening = False
        self.lost.set()


class Wire:
    """A network that keeps its contract."""

    features = Features(
        levels={
            Kind.MESSAGE: Level.FULL,
            Kind.MEMBER: Level.FULL,
            Kind.TOPIC: Level.FULL,
            Kind.EDIT: Level.FULL,
            Kind.NAME: Level.FALLBACK,
            Kind.ENCRYPTED: Level.FALLBACK,
            Kind.CUSTOM: Level.FALLBACK,
            Kind.REACTION: Level.FALLBACK,
        }
    )

    def __init__(self, ctx):
        self.ctx, self.peer = ctx, Peer.now
        self.native, self.sent = self.peer.native, self.peer.sent

    async def start(self):
        self.greeting = self.ctx.config.greeting
        self.ctx.spawn(self.stay_connected(), "connection")

    async def stop(self):
        await asyncio.sleep(0)

    async def stay_connected(self):
        while True:
            while not self.peer.listening:
                self.ctx.report_status("connecting")
                await asyncio.sleep(0.02)
            self.ctx.report_status("up")
            await self.peer.lost.wait()

    async def send(self, delivery):
        if not self.peer.listening:
            raise RetryLater("the peer is away")
        if delivery.key not in self.sent:
            self.tell(delivery.link.native.id, delivery.content)
            self.sent[delivery.key] = f"sent-{len(self.sent)}"
        return self.sent[delivery.key]

    def tell(self, room, content):
        self.native.setdefault(room, []).append(content)

    def read(self, raw):
        kind, _, text = raw.partition(":")
        if kind != "say":
            raise RemoteProtocolError(f"{kind!r} is no command")
        return text

    async def hear(self, room, sender, content):
        self.peer.heard += 1
        await self.submit(room, sender, content, f"heard-{self.peer.heard}")

    async def submit(self, room, sender, content, origin):
        inbound = Submission(
            origin=NativeId(self.ctx.id, origin),
            room=NativeId(self.ctx.id, room),
            sender=NativeId(self.ctx.id, sender),
            content=content,
            ts=0,
        )
        while True:
            try:
                await self.ctx.submit([inbound])
            except Busy as busy:
                await self.wait_busy(busy)
            else:
                return

    async def wait_busy(self, busy):
        await asyncio.sleep(busy.after)


def module_of(network, config=Config):
    """The plugin module of a network."""
    module = types.ModuleType(f"wire_{network.__name__}_{config.__name__}")
    module.api, module.Config = 1, config
    module.open_network = hookimpl(lambda ctx: network(ctx))
    sys.modules[module.__name__] = module
    return module


class WireStage:
    """The peer and the times of a suite."""

    options: ClassVar = {"greeting": "hi"}
    within = 2.0
    close_within = 0.5
    peer = None

    async def start_peer(self):
        if self.peer is None:
            self.peer = Peer.now = Peer()
        self.peer.open()

    async def stop_peer(self):
        self.peer.close()

    def shown(self, stage):
        return self.peer.native.get(stage.room, [])


def suite_of(network, config=Config):
    class Suite(WireStage, NetworkSuite):
        plugin = module_of(network, config)
        acknowledges = True
        stop_within = 0.2
        block_within = 0.2
        away_s = 0.2

        async def inject(self, net, room, sender, text):
            await net.hear(room, sender, Message(text=net.read(f"say:{text}")))

        async def inject_content(self, net, room, sender, content):
            await net.hear(room, sender, content)

        def malformed(self, net):
            return [lambda: net.read("shout:x"), lambda: net.read("")]

    return Suite
