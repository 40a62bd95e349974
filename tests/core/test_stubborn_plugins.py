"""A plugin whose tasks swallow their cancellation does not keep Hansa from its end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
from hansa import Delivery, hookimpl
from hansa.host import supervisor
from hansa.setup import NetworkSetup
from hansa.testing import run_hansa, until
from hansa.testing.actor import Actor, Config, module
from pydantic import BaseModel

SCRIPT = """
import asyncio
from hansa import serve

async def immortal():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

async def main():
    if {immortal}:
        asyncio.create_task(immortal(), name="mine: reader")
    await asyncio.sleep(0)
    return await serve._exit_code(0, print)

raise SystemExit(asyncio.run(main()))
"""


class Stubborn(Actor):
    """Neither its task nor its stop ends before it may."""

    may_end: asyncio.Event

    async def _hold_out(self) -> None:
        while not self.may_end.is_set():
            try:
                await self.may_end.wait()
            except asyncio.CancelledError:
                continue

    async def start(self) -> None:
        self.may_end = asyncio.Event()
        self.ctx.spawn(self._hold_out(), "reader")

    async def stop(self) -> None:
        await self._hold_out()


async def test_hansa_stops_without_a_network_that_does_not(monkeypatch, caplog):
    monkeypatch.setattr(supervisor, "_STOP_TIMEOUT_S", 0.05)
    monkeypatch.setattr(supervisor, "_CANCEL_TIMEOUT_S", 0.05)
    made: dict[str, Any] = {}

    async with asyncio.timeout(20):
        async with run_hansa({"mine": (module(made, Stubborn), Config())}) as app:
            await app.runners["mine"].up()
    assert "stop takes longer than" in caplog.text
    assert "mine: reader, mine: stop do not end when they are cancelled: a fault of the plugin" in caplog.text
    made["mine"].may_end.set()
    left = [task for task in asyncio.all_tasks() if task.get_name().startswith("mine: ")]
    await asyncio.gather(*left)


class Holding(Stubborn):
    """Does not let go of a send, nor of its start after the first one."""

    async def start(self) -> None:
        self.may_end = asyncio.Event()
        if self.ctx.config.word == "starting":
            await self._hold_out()

    async def send(self, delivery: Delivery) -> str:
        await self._hold_out()
        return await super().send(delivery)

    async def stop(self) -> None:
        """Stops at once."""


class Worded(BaseModel):
    word: str = ""


@pytest.mark.parametrize("word", ["", "starting"])
async def test_a_reload_replaces_a_network_that_holds_on_to_a_send_or_to_its_start(monkeypatch, caplog, word):
    for name in ("_END_TIMEOUT_S", "_CANCEL_TIMEOUT_S"):
        monkeypatch.setattr(f"hansa.bus.delivery.{name}", 0.05)
    monkeypatch.setattr("hansa.app._CANCEL_TIMEOUT_S", 0.05)
    opened: list[Holding] = []

    def open_network(ctx: Any) -> Holding:
        opened.append(Holding(ctx))
        return opened[-1]

    plugin: Any = ModuleType("hansa_holding")
    plugin.api, plugin.Config, plugin.open_network = 1, Worded, hookimpl(open_network)
    made: dict[str, Actor] = {}
    networks = {"mine": (plugin, Worded(word=word)), "other": (module(made), Config())}
    async with asyncio.timeout(20):
        async with run_hansa(networks, rooms=[["mine:a", "other:b"]]) as app:
            await until(lambda: hasattr(opened[0], "may_end"))
            await made["other"].say("b", "ann@x", "one")
            others = [one for one in app.setup.networks if one.id != "mine"]
            fresh = NetworkSetup(id="mine", module=plugin, options=Worded(word="again"))
            assert await app.reload_networks([*others, fresh]) == {"mine": ""}
            assert len(opened) == 2
            await until(lambda: hasattr(opened[1], "may_end"))
            for one in opened:
                one.may_end.set()
            assert await opened[1].until("a", 1) == ["one"]
    assert "when it is cancelled: a fault of the plugin" in caplog.text


def _end(*, immortal: bool) -> tuple[int, str]:
    script = SCRIPT.format(immortal=immortal)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout


def test_the_process_ends_and_says_what_did_not():
    assert _end(immortal=False) == (0, "")
    code, said = _end(immortal=True)
    assert code == 1
    assert (
        "ended without mine: reader, which does not end when it is cancelled: a fault of the plugin" in said
    )
