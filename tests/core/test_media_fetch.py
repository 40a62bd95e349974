"""Files at URLs that others name: what is fetched, and where nothing is connected to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web
from core.media_rig import MediaRig, media_rig
from hansa import (
    Action,
    Attachment,
    MediaTransfer,
    MediaUnavailable,
    NativeId,
    PeerConnect,
    Reason,
    RefusalCode,
    Verdict,
)
from hansa.http.client import HttpClient
from hansa.media.web_addresses import parse_web_address, resolve_redirect
from hypothesis import given
from hypothesis import strategies as st

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Web:
    """A web server of others, on loopback; ``asked`` are the paths of its requests."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Handler] = {}
        self.base = ""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        return await self.answers[request.path](request)  # type: ignore[arg-type]

    def redirect(self, path: str, location: str, status: int = 302) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(status=status, headers={"Location": location})

        self.answers[path] = answer

    def file(self, path: str, body: bytes, **headers: str) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

        self.answers[path] = answer


@pytest.fixture
async def site() -> AsyncIterator[Web]:
    """Gives a web server."""
    made = Web()
    runner = web.ServerRunner(web.Server(made.answer), shutdown_timeout=0.1)
    await runner.setup()
    place = web.TCPSite(runner, "127.0.0.1", 0)
    await place.start()
    made.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def rig(tmp_path) -> AsyncIterator[MediaRig]:
    """Gives a service that may connect to loopback."""
    http = HttpClient(private_networks=["127.0.0.0/8"])
    async with media_rig(tmp_path / "media", http=http, max_file=100_000) as made:
        yield made
    await http.close()


async def refused(work: Any) -> RefusalCode:
    with pytest.raises(MediaUnavailable) as caught:
        await work
    return caught.value.refusal.code


async def test_a_file_is_fetched_and_stored(rig, site):
    site.file("/a/balcony.png", b"\x89PNG\r\n\x1a\nrest", Content_Type="image/png")
    attachment = await rig.left.ctx.media.fetch(f"{site.base}/a/balcony.png?x=1#part", sender="ann@x")
    assert (attachment.name, attachment.media_type) == ("balcony.png", "image/png")
    async with aclosing((await rig.left.ctx.media.open(attachment)).chunks) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"\x89PNG\r\n\x1a\nrest"


async def test_the_answer_may_name_the_file_and_lies_about_its_type(rig, site):
    site.file(
        "/x", b"<html>", Content_Type="image/png", Content_Disposition='attachment; filename="../c.png"'
    )
    attachment = await rig.left.ctx.media.fetch(f"{site.base}/x")
    assert (attachment.name, attachment.media_type) == ("c.png", "text/html")


async def test_redirects_are_followed_three_times(rig, site):
    site.file("/end", b"words")
    for number in range(3):
        site.redirect(f"/{number}", f"{site.base}/{number + 1}" if number < 2 else "/end")
    attachment = await rig.left.ctx.media.fetch(f"{site.base}/0")
    assert attachment.size == 5
    site.redirect("/before", "/0")
    assert await refused(rig.left.ctx.media.fetch(f"{site.base}/before")) is RefusalCode.UNREACHABLE
    assert rig.app.media.opener.slots.taken == 0


@pytest.mark.parametrize(
    "location",
    [
        "",
        "ftp://x.example/a",
        "http://user:pass@x.example/",
        "file:///etc/passwd",
        "http://[",
        "http://127.0.0.1:22/",
    ],
)
async def test_a_redirect_to_what_is_not_an_address_ends(rig, site, location):
    site.redirect("/r", location)
    assert await refused(rig.left.ctx.media.fetch(f"{site.base}/r")) is RefusalCode.UNREACHABLE


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://x.example/a",
        "gopher://127.0.0.1:6379/_",
        "http://user@x.example/",
        "http://x.example:22/",
        "http:///a",
        "http://x.example\\@127.0.0.1/",
        "http://x.example/\r\nHost: y",
        "http://ä.example/",
        "//x.example/a",
        "http://x.example:99999/",
        "http://" + "x" * 5000,
        "",
    ],
)
async def test_what_is_not_plainly_a_url_is_refused(rig, url):
    assert await refused(rig.left.ctx.media.fetch(url)) is RefusalCode.INVALID


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "10.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "2130706433",
    ],
)
async def test_a_private_address_is_never_connected_to(tmp_path, site, host):
    """Also by a redirect of a public place, which is played by one that is allowed."""
    site.file("/x", b"secret")
    port = site.base.rpartition(":")[2]
    http = HttpClient()
    async with media_rig(tmp_path, http=http) as rig:
        code = await refused(rig.left.ctx.media.fetch(f"http://{host}:{port}/x"))
        assert code in {RefusalCode.FORBIDDEN, RefusalCode.UNREACHABLE, RefusalCode.INVALID}
        assert site.asked == [] and rig.files == []
    await http.close()


async def test_a_redirect_into_a_private_network_is_not_followed(tmp_path, site):
    site.redirect("/x", f"http://127.0.0.2:{site.base.rpartition(':')[2]}/secret")
    http = HttpClient(private_networks=["127.0.0.1/32"])
    async with media_rig(tmp_path, http=http) as rig:
        assert await refused(rig.left.ctx.media.fetch(f"{site.base}/x")) is RefusalCode.FORBIDDEN
        assert site.asked == ["/x"]
    await http.close()


@pytest.mark.parametrize("stated", [True, False])
async def test_a_file_that_is_too_large_is_refused(rig, site, stated):
    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        if stated:
            answer.content_length = 10**9
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b"x" * 10_000)
        except ConnectionError:
            return answer

    site.answers["/big"] = endless
    assert await refused(rig.left.ctx.media.fetch(f"{site.base}/big")) is RefusalCode.TOO_LARGE
    assert rig.files == [] and rig.app.media.opener.slots.taken == 0


async def test_a_broken_answer_leaves_nothing(rig, site):
    async def broken(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        answer.content_length = 90_000
        await answer.prepare(request)
        await answer.write(b"x" * 80_000)
        assert request.transport is not None
        request.transport.abort()
        return answer

    site.answers["/b"] = broken
    assert await refused(rig.left.ctx.media.fetch(f"{site.base}/b")) is RefusalCode.UNREACHABLE
    assert rig.files == []


async def test_a_page_that_is_not_there(rig, site):
    async def absent(_: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    site.answers["/n"] = absent
    assert await refused(rig.left.ctx.media.fetch(f"{site.base}/n")) is RefusalCode.NOT_FOUND


@pytest.mark.parametrize("kind", [PeerConnect, MediaTransfer])
async def test_the_policies_judge_each_host_and_the_file(rig, site, kind):
    site.file("/f.png", b"x", Content_Type="text/plain")
    judge = rig.judged()
    await rig.left.ctx.media.fetch(f"{site.base}/f.png", sender="ann@x")
    transfers = [one for one in judge.asked if isinstance(one, MediaTransfer)]
    assert [(one.server, one.type, one.name, one.outbound) for one in transfers] == [
        ("127.0.0.1", "", "", False),
        ("127.0.0.1", "text/plain", "f.png", False),
    ]
    site.asked.clear()
    reason = Reason(code="NO", policy="judge", rule="r", text="no")
    judge.denies = lambda one: Verdict(Action.DENY, (reason,)) if isinstance(one, kind) else None
    assert await refused(rig.left.ctx.media.fetch(f"{site.base}/f.png")) is RefusalCode.POLICY
    assert site.asked == []


async def test_an_attachment_at_a_url_is_opened_for_other_networks(rig, site):
    site.file("/f", b"0123456789", Content_Type="text/plain")
    attachment = Attachment(name="f", source=NativeId("left", f"{site.base}/f"))
    for first, last, found in ((0, None, b"0123456789"), (3, 5, b"345"), (9, None, b"9"), (0, 0, b"0")):
        stream = await rig.right.ctx.media.open(attachment, first=first, last=last)
        async with aclosing(stream.chunks) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == found
    unread = await rig.right.ctx.media.open(attachment)
    await unread.chunks.aclose()
    assert rig.app.media.opener.slots.taken == 0


async def test_a_cancelled_fetch_gives_its_slot_back(rig, site):
    reached = asyncio.Event()

    async def hanging(request: web.Request) -> web.StreamResponse:
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    site.answers["/h"] = hanging
    task = asyncio.ensure_future(rig.left.ctx.media.fetch(f"{site.base}/h"))
    await reached.wait()
    task.cancel()
    await asyncio.wait({task})
    assert rig.app.media.opener.slots.taken == 0


def test_a_redirect_never_leaves_tls():
    start = parse_web_address("https://a.example/x/y")
    assert start is not None
    assert str(resolve_redirect(start, "../z?q=1#f")) == "https://a.example/z?q=1"
    assert resolve_redirect(start, "http://a.example/") is None
    assert str(resolve_redirect(start, "//b.example:8080/")) == "https://b.example:8080/"


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_an_address_or_none(host, path):
    address = parse_web_address(f"http://{host}/{path}")
    assert address is None or str(address).isascii()
    if address is not None:
        assert parse_web_address(str(address)) == address
        resolve_redirect(address, path)
