"""From one person to another on two servers: Hansa to Hansa, and Synapse to Synapse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hansa import Message
from peers.ca import PrivateCA
from peers.scripted_hansa import ScriptedHansa
from peers.synapse import MatrixUser, Synapse
from peers.waiting import until

from bench.comparison import Pairs, compared, say
from bench.measure import percentile

_SAMPLES, _EVERY = 400, 0.25
_ROMEO, _JULIET = "romeo@montague", "juliet@capulet"


class _Samples:
    """When each text was said and seen."""

    def __init__(self) -> None:
        self.said: dict[str, float] = {}
        self.seen: dict[str, float] = {}
        self.whole = asyncio.Event()

    def saw(self, text: str) -> None:
        if text in self.said and text not in self.seen:
            self.seen[text] = time.perf_counter()
            if len(self.seen) == _SAMPLES:
                self.whole.set()

    async def take(self, say_: Callable[[str], Awaitable[Any]]) -> list[float]:
        """Say one every quarter of a second, whatever became of the ones before; the seconds of each."""
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(_SAMPLES):
                await asyncio.sleep(max(0.0, began + number * _EVERY - time.perf_counter()))
                text = f"sample {number}"
                self.said[text] = time.perf_counter()
                tasks.create_task(_awaited(say_(text)))
        async with asyncio.timeout(30):
            await self.whole.wait()
        return [self.seen[text] - at for text, at in self.said.items()]


async def _awaited(work: Awaitable[Any]) -> None:
    await work


async def _hansa(folder: Path, ca: PrivateCA) -> list[float]:
    async with AsyncExitStack() as cleanup:
        both = []
        for name in ("one", "two"):
            stage = ScriptedHansa(folder / name, ca)
            cleanup.push_async_callback(stage.stop)
            both.append(await stage.start())
        here, there = both
        await here.run("rooms", "create", "matrix:#lobby", "stage:lobby")
        await there.run("rooms", "create", f"matrix:#lobby:{here.name}", "stage:lobby")
        await here.actor.join("lobby", _ROMEO, "Romeo")
        await there.actor.join("lobby", _JULIET, "Juliet")
        await there.actor.say("lobby", _JULIET, "ready")
        await here.actor.until("lobby", 1)
        samples = _Samples()
        shown = there.actor.send

        async def seen(delivery: Any) -> Any:
            result = await shown(delivery)
            if isinstance(delivery.event.content, Message):
                samples.saw(delivery.event.content.text)
            return result

        there.actor.send = seen  # type: ignore[method-assign]
        return await samples.take(lambda text: here.actor.say("lobby", _ROMEO, text))


async def _synapse(folder: Path, ca: PrivateCA) -> list[float]:
    async with AsyncExitStack() as cleanup:
        users: list[MatrixUser] = []
        for name in ("one", "two"):
            synapse = Synapse(folder / f"synapse-{name}", ca)
            cleanup.callback(synapse.stop)
            await synapse.start()
            user = await synapse.user(name)
            cleanup.push_async_callback(user.close)
            users.append(user)
        romeo, juliet = users
        room = await romeo.create_room()
        await juliet.join(room, via=romeo.id.partition(":")[2])
        await juliet.say(room, "ready")

        async def ready() -> bool:
            return "ready" in await romeo.bodies(room)

        await until("both are there", ready)
        samples = _Samples()
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(_watch(juliet, room, samples))
            found = await samples.take(lambda text: romeo.say(room, text))
            watching.cancel()
        return found


async def _watch(user: MatrixUser, room: str, samples: _Samples) -> None:
    since = (await user.call("GET", "/sync?timeout=0"))["next_batch"]
    while True:
        got = await user.call("GET", f"/sync?timeout=30000&since={quote(since, safe='')}")
        since = got["next_batch"]
        for event in got.get("rooms", {}).get("join", {}).get(room, {}).get("timeline", {}).get("events", ()):
            samples.saw(event["content"].get("body", ""))


async def latency(folder: Path, ca: PrivateCA, runs: int, *, synapse: bool) -> Pairs:
    """Four messages a second, 400 of them, once: ``runs`` changes nothing."""
    del runs
    found: dict[str, list[float]] = {}
    say("400 messages from Hansa to Hansa")
    found["Hansa"] = await _hansa(folder, ca)
    if synapse:
        say("400 messages from Synapse to Synapse")
        found["Synapse"] = await _synapse(folder, ca)
    return [
        (
            f"from said to shown on the other server, p{int(100 * part)}",
            compared({k: percentile(v, part) for k, v in found.items()}, lambda s: f"{1000 * s:.1f} ms"),
        )
        for part in (0.5, 0.95)
    ]
