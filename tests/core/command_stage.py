"""Two linked rooms whose people write commands to the bridge: one of a network that decides, one of another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from hansa import NativeId, OpenedRoom, Prepared, Role, Submission, Verdict, ViewDelta, hookimpl
from hansa.app import App
from hansa.model.chat_commands import CommandSettings
from hansa.testing import ManualClock, run_hansa, until
from hansa.testing.actor import Actor, Config, module

OPERATOR = NativeId("right", "olga@y")
ON = CommandSettings(enabled=True, operators=frozenset({OPERATOR}), linkable=("right:open-*",))


class Deciding(Actor):
    """A network that is the authority of its rooms, and takes everything."""

    async def open_room(self, address: str, *, create: bool) -> OpenedRoom:
        del create
        return OpenedRoom(native=NativeId(self.ctx.id, address), authority=True)

    async def before_turn(self, link: Any, inbound: Any) -> None: ...

    async def fetch_missing(self, link: Any, refs: Any) -> bool:
        raise AssertionError

    async def countersign(self, link: Any, draft: Any) -> Any:
        raise AssertionError

    async def begin_turn(self, link: Any, batch: Any) -> Deciding:
        return self

    async def prepare_event(self, inbound: Submission, verdict: Verdict) -> Prepared:
        return Prepared(native_id=f"pdu of {inbound.origin}")

    def final_writes(self) -> Sequence[Any]:
        return ()

    def on_committed(self) -> None: ...

    def on_rolled_back(self) -> None: ...


def _deciding(made: dict[str, Actor]) -> Any:
    plugin = module(made)
    plugin.__name__ += "_deciding"

    def open_network(ctx: Any) -> Actor:
        made[ctx.id] = Deciding(ctx)
        return made[ctx.id]

    plugin.open_network = hookimpl(open_network)
    return plugin


class CommandStage:
    """Two linked rooms, ``home`` of the network ``left`` which decides, and ``away`` of ``right``."""

    def __init__(self, app: App, made: dict[str, Actor], clock: ManualClock) -> None:
        self.app, self.clock = app, clock
        self.left, self.right = made["left"], made["right"]

    @property
    def view(self) -> Any:
        return self.app.rooms.room_of(NativeId("left", "home")).view

    def links(self) -> set[str]:
        return set(self.app.rooms.room_of(NativeId("left", "home")).links)

    async def ask(self, actor: Actor, person: str, text: str) -> str:
        """The answer to a command."""
        before = len(actor.told)
        await actor.say("home" if actor is self.left else "away", person, text)
        await until(lambda: len(actor.told) > before)
        assert actor.told[-1][0] == person
        return actor.told[-1][1]

    def counted(self, result: str) -> int:
        return self.app.counters.get(("chat_commands", (("result", result),)), 0)

    async def make_owner(self, network: str, room: str, user: str) -> None:
        row = self.view.person(NativeId(network, user))
        actor = self.left if network == "left" else self.right
        await actor.ctx.reconcile_view(room, ViewDelta(upserts=(replace(row, role=Role.OWNER),)))


@asynccontextmanager
async def command_stage(
    settings: CommandSettings = ON, *, decides: bool = True
) -> AsyncIterator[CommandStage]:
    made: dict[str, Actor] = {}
    clock = ManualClock()
    plain = module(made)
    left = _deciding(made) if decides else plain
    networks = {"left": (left, Config()), "right": (plain, Config()), "third": (plain, Config())}
    async with run_hansa(
        networks, rooms=[["left:home", "right:away"]], commands=settings, clock=clock
    ) as app:
        stage = CommandStage(app, made, clock)
        await stage.left.join("home", "ann@x", "Ann")
        await stage.right.join("away", "bob@y", "Bob")
        await stage.right.join("away", "olga@y", "Olga")
        yield stage
