"""Scripted networks whose world outlives the Hansas that show it things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from hansa import Delivery, Message, NativeId, Submission, hookimpl
from hansa.setup import NetworkSetup
from hansa.testing.actor import Actor, Config
from hansa.testing.sim import Simulation


@dataclass
class Screen:
    """The messages that the users of one network saw, over all starts of Hansa: by native room, in the order
    of first showing. ``sends`` counts how often each delivery key arrived.
    """

    shown: dict[str, list[Delivery]] = field(default_factory=dict)
    sends: dict[str, int] = field(default_factory=dict)
    before_send: Callable[[Delivery], None] = lambda _: None

    def take(self, delivery: Delivery) -> None:
        self.before_send(delivery)
        seen = self.sends.get(delivery.key, 0)
        self.sends[delivery.key] = seen + 1
        if not seen:
            self.shown.setdefault(delivery.link.native.id, []).append(delivery)

    def texts(self, room: str) -> list[str]:
        return [d.content.text for d in self.shown.get(room, []) if isinstance(d.content, Message)]

    def seqs(self, room: str) -> list[int]:
        return [d.event.seq for d in self.shown.get(room, [])]


class Stage(ModuleType):
    """A plugin module. ``screens`` and ``actors`` are by network id, the latter those of the newest boot."""

    api = 1
    Config = Config

    def __init__(self, *, hosted: bool = False) -> None:
        super().__init__(f"stage_{id(self)}")
        self.screens: dict[str, Screen] = {}
        self.actors: dict[str, Actor] = {}

        def open_network(ctx: Any) -> Actor:
            actor = Actor(ctx, hosted=hosted)
            actor.before_send = self.screen(ctx.id).take
            self.actors[ctx.id] = actor
            return actor

        self.open_network = hookimpl(open_network)

    def screen(self, network: str) -> Screen:
        return self.screens.setdefault(network, Screen())

    def setup(self, network: str, **more: Any) -> NetworkSetup:
        return NetworkSetup(id=network, module=self, options=Config(), **more)


def said(sim: Simulation, network: str, room: str, person: str, text: str) -> Submission:
    """One message; its text is its origin, so that saying it again is the same event."""
    return Submission(
        origin=NativeId(network, f"o-{text}"),
        room=NativeId(network, room),
        sender=NativeId(network, person),
        content=Message(text=text),
        ts=int(sim.now * 1000),
    )
