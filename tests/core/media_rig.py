"""Two networks with a room in common, the media service, and its links over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from hansa import Attachment, Event, Message, NativeId, Verdict
from hansa.app import App
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.environment import Environment, Http, SystemRandom
from hansa.http.listener import Dispatcher, Listener
from hansa.media.quotas import MediaLimits
from hansa.store.base import Store
from hansa.store.blobs import FileBlobs
from hansa.testing import ManualClock, run_hansa
from hansa.testing.actor import Actor, Config, module

BASE = "https://chat.example"
LINK = NativeId("right", "b")


class Judge:
    """A policy that denies what ``denies`` says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.denies: Any = lambda _crossing: None

    async def check(self, crossing: Any) -> Verdict | None:
        self.asked.append(crossing)
        verdict: Verdict | None = self.denies(crossing)
        return verdict


@dataclass
class Answer:
    """An answer of the public port."""

    status: int
    headers: dict[str, str]
    body: bytes


class MediaRig:
    def __init__(self, app: App, made: dict[str, Actor], clock: ManualClock, folder: Path, port: int) -> None:
        self.app = app
        self.left, self.right = made["left"], made["right"]
        self.clock = clock
        self.folder = folder
        self.port = port

    @property
    def files(self) -> list[Path]:
        """What is on the disk."""
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def judged(self) -> Judge:
        judge = Judge()
        self.app.decisions.replace([InstalledPolicy(name="judge", policy=judge)])
        return judge

    async def store(
        self, data: bytes, name: str = "a.txt", kind: str = "text/plain", **more: Any
    ) -> Attachment:
        return await self.left.ctx.media.store(pieces(data), name=name, media_type=kind, **more)

    async def send(self, *attachments: Attachment, text: str = "") -> Event:
        """A message of the left network with files, which the right one was shown."""
        result = await self.left.do("a", "ann@x", Message(text=text, attachments=attachments))
        assert result.event is not None
        await self.right.until_shown("b", lambda contents: len(contents) > 0)
        return result.event

    async def linked(self, data: bytes, name: str = "a.txt", kind: str = "text/plain") -> tuple[str, Event]:
        """The link to a new file, for the right network's people, and the event."""
        attachment = await self.store(data, name, kind)
        event = await self.send(attachment)
        return self.right.ctx.media.link(attachment, "b", event.id), event

    async def get(self, url: str, method: str = "GET", **headers: str) -> Answer:
        """Asks the public port."""
        target = url.removeprefix(BASE)
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, f"http://127.0.0.1:{self.port}{target}", headers=headers, allow_redirects=False
            ) as answer,
        ):
            return Answer(
                answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read()
            )


async def pieces(data: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def target_of_link(url: str) -> str:
    return urlsplit(url).path


@asynccontextmanager
async def media_rig(
    folder: Path,
    *,
    http: Http | None = None,
    store: Store | None = None,
    clock: ManualClock | None = None,
    **limits: Any,
) -> AsyncIterator[MediaRig]:
    made: dict[str, Actor] = {}
    plugin, clock = module(made), clock or ManualClock(1_700_000_000_000)
    async with run_hansa(
        {"left": (plugin, Config()), "right": (plugin, Config())},
        rooms=[["left:a", "right:b"]],
        media=MediaLimits(**{"public_url": BASE, "reserve": 0, **limits}),
        blobs=FileBlobs(folder),
        store=store,
        http=http,
        seams=Environment(clock, SystemRandom()),
    ) as app:
        listener = Listener(Dispatcher(app.routers, app.count), "127.0.0.1", 0)
        await listener.start()
        try:
            yield MediaRig(app, made, clock, folder, listener.port)
        finally:
            await listener.stop()
