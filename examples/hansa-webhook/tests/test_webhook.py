"""A killed Hansa loses the webhook nothing, what comes twice has one key, and what is sent is signed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import hansa_webhook
import pytest
from aiohttp import web
from hansa import (
    DeliveryRejected,
    Event,
    HttpResponse,
    Message,
    NativeId,
    Observation,
    RetryLater,
    Span,
    SpanKind,
)
from hansa.testing import until
from pydantic import ValidationError

SECRET = "0123456789abcdef"  # noqa: S105


class Service:
    """A real HTTP server that stores what it gets. ``answer`` decides on each request's status."""

    def __init__(self) -> None:
        self.got: list[dict] = []
        self.answer: Callable[[int], int] = lambda _: 204
        self.asked = 0
        self.port = 0

    async def take(self, request: web.Request) -> web.Response:
        self.asked += 1
        body = await request.read()
        wanted = hansa_webhook.signature(SECRET, request.headers["Hansa-Timestamp"], body)
        assert request.headers["Hansa-Signature"] == wanted
        status = self.answer(self.asked)
        if status == 204:
            found = json.loads(body)
            assert request.headers["Idempotency-Key"] == found["key"]
            self.got.append(found)
        return web.Response(status=status)

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_post("/events", self.take)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield
        finally:
            await runner.cleanup()


@contextlib.asynccontextmanager
async def running(database: Path, service: Service, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Hansa that says so many messages; killed at the end, in whatever it does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("burst.py")),
        str(database),
        f"http://127.0.0.1:{service.port}/events",
        SECRET,
        str(count),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def test_a_kill_in_a_burst_loses_no_event(tmp_path):
    service = Service()
    service.answer = lambda asked: 503 if asked % 40 == 1 else 204
    stored: list[str] = []
    async with service.serve():
        async with running(tmp_path / "hansa.db", service, 1000) as process:
            while len(stored) < 400 or len(service.got) < 20:
                stored.append((await process.stdout.readline()).decode().strip())
        stored += (await process.stdout.read()).decode().split()
        told = {one["id"] for one in service.got}
        assert set(stored) - told, "it was killed too late to show anything"
        async with running(tmp_path / "hansa.db", service, 0):

            async def all_came() -> bool:
                return set(stored) <= {one["id"] for one in service.got}

            await until(all_came, 60, what="every stored event at the service")
    keys = Counter(one["key"] for one in service.got)
    assert len({one["id"] for one in service.got}) == len(keys), "an event has one key, and a key one event"
    for room in {one["room"] for one in service.got}:
        first = list(dict.fromkeys(one["seq"] for one in service.got if one["room"] == room))
        assert first == sorted(first), "in the log's order"
    texts = {one["content"]["text"] for one in service.got if one["kind"] == "message"}
    assert {"message 0", "message 399"} <= texts


class Context:
    """As much of a plugin's context as the webhook uses."""

    id = "archive"
    config = hansa_webhook.Config(url="https://hooks.example/in?a=1", secret=SECRET)

    def __init__(self, status: int, **headers: str) -> None:
        self.answer = HttpResponse(status=status, headers=headers)
        self.clock = self.http = self

    def now(self) -> int:
        return 1_700_000_000_000

    async def request(self, request) -> HttpResponse:
        self.request_made = request
        return self.answer


SAID = Observation(
    key="archive:e1",
    event=Event(
        id="e1",
        room="r1",
        seq=7,
        origin=NativeId("left", "$1"),
        sender=NativeId("left", "ann"),
        content=Message(text="hello *all*", spans=(Span(start=0, end=5, kind=SpanKind.BOLD),)),
        ts=1,
        received=2,
    ),
)


@pytest.mark.parametrize(
    ("status", "headers", "raised", "after"),
    [
        (200, {}, None, 0),
        (503, {}, RetryLater, 0),
        (429, {"retry-after": "7"}, RetryLater, 7),
        (429, {"retry-after": "999999"}, RetryLater, 3600),
        (503, {"retry-after": "9" * 8000}, RetryLater, 3600),
        (401, {}, RetryLater, 0),
        (302, {}, RetryLater, 0),
        (400, {}, DeliveryRejected, 0),
        (410, {}, DeliveryRejected, 0),
    ],
)
async def test_the_status_decides_whether_it_comes_again(status, headers, raised, after):
    context = Context(status, **headers)
    observed = hansa_webhook.Webhook(context).observe(SAID)
    if raised is None:
        await observed
    else:
        with pytest.raises(raised) as caught:
            await observed
        assert getattr(caught.value, "after", 0) == after
    made = context.request_made
    assert (made.host, made.port, made.tls_name, made.target) == (
        "hooks.example",
        443,
        "hooks.example",
        "/in?a=1",
    )
    body = json.loads(made.body)
    assert body["content"]["text"] == "hello *all*"
    assert body["markdown"] == "**hello** \\*all\\*"
    assert body["confined"] is False


def test_what_no_other_network_gets_is_marked():
    event = replace(SAID.event, withheld_from=(("*", ""),))
    assert json.loads(hansa_webhook.body_of(replace(SAID, event=event)))["confined"] is True


@pytest.mark.parametrize("url", ["ftp://a/", "https://user:pw@a/", "https://", "a"])
def test_an_address_of_another_kind_is_refused(url):
    with pytest.raises(ValidationError):
        hansa_webhook.Config(url=url, secret=SECRET)
