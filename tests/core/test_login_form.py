"""The form of a login on the public port, over real HTTP."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
from core.logins_rig import ANN, BASE, SECRET, Accounts, People, logins_rig
from hansa.app import App
from hansa.http.listener import Dispatcher, Listener
from hansa.logins.flows import FLOW_TTL_S
from hansa.logins.form_endpoint import MAX_BODY
from hansa.testing import ManualClock, until

GONE = "This link was used, or has ended."


@dataclass
class FormRig:
    app: App
    left: People
    right: Accounts
    clock: ManualClock
    http: aiohttp.ClientSession
    base: str

    async def link(self) -> str:
        """A person asks for a login; the path of its form."""
        self.clock.advance(100)
        answer = await self.left.ctx.answer_command(ANN.id, "!hansa login right")
        found = re.search(r"https://chat\.example(/_hansa/login/\S+)", answer or "")
        assert found, answer
        return found[1]

    async def get(self, path: str) -> tuple[int, str]:
        async with self.http.get(self.base + path) as answer:
            return answer.status, await answer.text()

    async def post(self, path: str, headers: dict[str, str] | None = None, **fields: str) -> tuple[int, str]:
        async with self.http.post(self.base + path, data=fields, headers=headers) as answer:
            return answer.status, await answer.text()

    async def filled(self, path: str, password: str = SECRET) -> dict[str, str]:
        """The fields of a form as its page has them, and the answers."""
        status, page = await self.get(path)
        assert status == 200
        key = re.search(r'name="form_key" value="([^"]+)"', page)
        assert key is not None
        return {"form_key": key[1], "account": "annette", "password": password}


@asynccontextmanager
async def form_rig() -> AsyncIterator[FormRig]:
    clock = ManualClock()
    async with logins_rig(clock=clock) as (app, left, right):
        left.private = False
        listener = Listener(Dispatcher(app.routers, app.count), "127.0.0.1", 0)
        await listener.start()
        port = listener.port
        try:
            async with aiohttp.ClientSession() as http:
                yield FormRig(app, left, right, clock, http, f"http://127.0.0.1:{port}")
        finally:
            await listener.stop()


@pytest.fixture
async def rig() -> AsyncIterator[FormRig]:
    async with form_rig() as made:
        yield made


async def test_a_form_logs_a_person_in(rig):
    path = await rig.link()
    async with rig.http.get(rig.base + path) as answer:
        page, headers = await answer.text(), answer.headers
    assert "<strong>ann@x</strong> will speak on right (right.example)" in page
    assert '<input id="password" name="password" type="password"' in page
    assert headers["content-security-policy"].startswith("default-src 'none'; form-action 'self'")
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"
    assert headers["content-type"].startswith("text/html")
    status, page = await rig.post(path, **await rig.filled(path))
    assert (status, "You are logged in to right as annette." in page) == (200, True)
    await until(lambda: ANN in rig.right.logins)
    assert rig.right.logins[ANN].secret == SECRET
    assert (await rig.get(path))[0] == 404


async def test_a_link_is_used_up_by_one_of_two_posts_and_by_no_look(rig):
    path = await rig.link()
    for _ in range(3):
        assert (await rig.get(path))[0] == 200
    fields = await rig.filled(path)
    rig.right.gate = asyncio.Event()
    both = [asyncio.ensure_future(rig.post(path, **fields)) for _ in range(2)]
    await until(lambda: any(one.done() for one in both))
    rig.right.gate.set()
    statuses = sorted(status for status, _ in await asyncio.gather(*both))
    assert statuses == [200, 404]
    assert len(rig.right.tried) == 1


async def test_a_link_ends(rig):
    path = await rig.link()
    fields = await rig.filled(path)
    rig.clock.advance(FLOW_TTL_S + 1)
    for status, page in (await rig.get(path), await rig.post(path, **fields)):
        assert status == 404 and GONE in page
    newer = await rig.link()
    newest = await rig.link()  # the person begins again: the former link opens nothing
    assert (await rig.get(newer))[0] == 404
    assert (await rig.get(newest))[0] == 200
    for wrong in ("/_hansa/login/x", newest + "x", newest[:-1]):
        assert (await rig.get(wrong))[0] == 404
    assert not rig.right.tried


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
    ],
)
async def test_another_site_cannot_send_the_form(rig, headers):
    path = await rig.link()
    fields = await rig.filled(path)
    status, _ = await rig.post(path, headers, **fields)
    assert status == 403 and not rig.right.tried
    status, _ = await rig.post(path, {"Sec-Fetch-Site": "same-origin", "Origin": "null"}, **fields)
    assert status == 200  # as a browser sends it under no-referrer


async def test_what_is_not_the_form_uses_nothing_up(rig):
    path = await rig.link()
    fields = await rig.filled(path)
    url = rig.base + path
    bad = [
        {"json": fields},
        {"data": b"account"},
        {"data": b"\xff=1", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"data": [*fields.items(), ("account", "other")]},
        {"data": {**fields, **{f"x{number}": "1" for number in range(20)}}},
        {"data": {**fields, "password": ""}},
        {"data": {**fields, "password": "a\nb"}},
        {"data": {**fields, "password": "a" * 501}},
    ]
    for number, one in enumerate(bad):
        rig.clock.advance(10)
        async with rig.http.post(url, **one) as answer:
            assert (number, answer.status) == (number, 400)
    async with rig.http.post(url, data={**fields, "password": "a" * MAX_BODY}) as answer:
        assert answer.status == 413
    assert (await rig.post(path, **{**fields, "form_key": "x"}))[0] == 403
    assert not rig.right.tried
    assert (await rig.post(path, **fields))[0] == 200


async def test_a_page_shows_what_others_wrote_as_text(rig):
    path = await rig.link()
    opened = rig.app.logins.flows.find_form(path.rpartition("/")[2])
    assert opened is not None and opened.step is not None
    object.__setattr__(opened.step, "text", "<script>alert(1)</script>")
    _, page = await rig.get(path)
    assert "<script>" not in page and "&lt;script&gt;" in page


async def test_an_address_that_asks_on_and_on_is_held_back(rig):
    statuses = [(await rig.get("/_hansa/login/x"))[0] for _ in range(30)]
    assert statuses[:20] == [404] * 20 and statuses[25:] == [429] * 5
    path = await rig.link()
    assert (await rig.get(path))[0] == 200  # after some time


async def test_a_posted_secret_is_in_no_log_and_no_page(rig, caplog):
    caplog.set_level(logging.DEBUG)
    pages = []
    for account, password in (("annette", "wrong-" + SECRET), ("broken", SECRET)):
        path = await rig.link()
        fields = {**await rig.filled(path, password), "account": account}
        pages.append((await rig.post(path, **fields))[1])
    assert len(rig.right.tried) == 2
    assert SECRET not in caplog.text and not any(SECRET in page for page in pages)
    assert path.rpartition("/")[2] not in caplog.text
    assert BASE not in caplog.text


async def test_without_logins_there_is_no_form():
    async with logins_rig(commands=None) as (app, _, _right):
        listener = Listener(Dispatcher(app.routers, app.count), "127.0.0.1", 0)
        await listener.start()
        try:
            async with aiohttp.ClientSession() as http:
                url = f"http://127.0.0.1:{listener.port}/_hansa/login/x"
                async with http.get(url) as answer:
                    assert answer.status == 404 and "json" in answer.headers["content-type"]
        finally:
            await listener.stop()
