"""While the database is away a request is answered in time, and its work goes on."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from hansa.environment import Request, Response
from hansa.http import detached_requests
from hansa.http.listener import Dispatcher
from hansa.http.router import Router
from hansa.testing import until


class Desk:
    """One route whose work waits."""

    def __init__(self) -> None:
        self.away = False
        self.go = asyncio.Event()
        self.done: list[str] = []
        self.counted: list[str] = []
        router = Router()
        router.add("PUT", "/wait", self.wait)
        self.dispatcher = Dispatcher(
            {"": router}, lambda name, **_: self.counted.append(name), away=lambda: self.away
        )

    async def wait(self, request: Request) -> Response:
        await self.go.wait()
        self.done.append(request.body.decode())
        return Response(status=200)

    def ask(self, body: str) -> asyncio.Task[Response]:
        async def read(_limit: int) -> bytes:
            return body.encode()

        request = Request(method="PUT", target="/wait", host="x")
        return asyncio.ensure_future(self.dispatcher.answer(request, read))


@pytest.fixture
async def desk(monkeypatch) -> Desk:
    monkeypatch.setattr(detached_requests, "REQUEST_TIMEOUT_S", 0.02)
    monkeypatch.setattr(detached_requests, "_CHECK_INTERVAL_S", 0.01)
    return Desk()


async def test_while_the_database_is_away_a_request_is_answered_and_its_work_goes_on(desk):
    asked = desk.ask("one")
    done, _ = await asyncio.wait({asked}, timeout=0.1)
    assert not done  # nothing is wrong: some calls take long
    desk.away = True
    answer = await asked
    assert (answer.status, orjson.loads(answer.body)["errcode"]) == (503, "M_UNKNOWN")
    assert int(answer.headers["Retry-After"]) > 0
    assert "http_late" in desk.counted
    assert not desk.done
    desk.go.set()
    await until(lambda: desk.done)
    assert desk.done == ["one"]
    await until(lambda: not desk.dispatcher._in_time._behind)


async def test_no_more_than_a_bound_goes_on_behind_its_answer(desk, monkeypatch):
    monkeypatch.setattr(detached_requests, "MAX_BEHIND", 2)
    desk.away = True
    asked = [desk.ask(str(n)) for n in range(5)]
    await until(lambda: sum(one.done() for one in asked) >= 2)
    _, waiting = await asyncio.wait(asked, timeout=0.1)
    assert len(waiting) == 3
    desk.go.set()
    assert {(await one).status for one in waiting} == {200}
    assert sorted(desk.done) == ["0", "1", "2", "3", "4"]


async def test_a_request_whose_client_is_gone_is_cut_off_as_before(desk):
    asked = desk.ask("one")
    await asyncio.sleep(0.05)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    desk.go.set()
    await asyncio.sleep(0.05)
    assert desk.done == []
