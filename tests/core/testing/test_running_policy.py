"""A policy is tested with a clock and HTTP of the test, by names of ``hansa`` and ``hansa.testing`` alone."""

from __future__ import annotations

import ast
import asyncio
import types
from pathlib import Path

import pytest
from hansa import (
    Action,
    Event,
    HttpError,
    HttpRequest,
    HttpResponse,
    Message,
    NativeId,
    PeerConnect,
    Reason,
    Verdict,
    hookimpl,
)
from hansa.testing import ManualClock, ScriptedHttp, run_policy
from pydantic import BaseModel, ConfigDict

ROOT = Path(__file__).parents[3]
CONNECT = PeerConnect(network="one", server="x.example", outbound=True)


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "judge.example"


class Judge:
    """Asks a server whether another may connect, and allows nothing before the first event."""

    def __init__(self, ctx):
        self.ctx = ctx
        self.seen = 0

    @hookimpl
    async def check(self, crossing):
        request = HttpRequest(
            method="GET", host=self.ctx.config.host, port=443, target=f"/may?{crossing.server}"
        )
        try:
            answer = await self.ctx.http.request(request)
        except HttpError as error:
            return Verdict(Action.DENY, (Reason(code="AWAY", text=f"{self.ctx.clock.now()}: {error}"),))
        return None if answer.status == 200 and self.seen else Verdict(Action.DENY, (Reason(code="NO"),))

    @hookimpl
    async def event_committed(self, event):
        if event.content.text == "hang":
            await asyncio.Event().wait()
        self.seen = event.seq


def plugin():
    module = types.ModuleType("judge")
    module.api, module.Config, module.open_policy = 1, Config, hookimpl(lambda ctx: Judge(ctx))
    return module


def event(text):
    return Event(
        id="e1",
        room="r",
        seq=7,
        origin=NativeId("one", "1"),
        sender=NativeId("one", "ann"),
        content=Message(text=text),
        ts=1,
        received=1,
    )


async def test_http_follows_the_script_and_the_policy_observes():
    http = ScriptedHttp({"GET judge.example/may": HttpResponse(status=200)})
    async with run_policy(plugin(), http=http) as running:
        assert [r.code for r in (await running.judge(CONNECT)).reasons] == ["NO"]
        await running.observe(event("hello"))
        assert (await running.judge(CONNECT)).allowed
        assert running.policy.seen == 7
    assert [request.target for request in http.requests] == ["/may?x.example"] * 2


async def test_what_is_not_in_the_script_is_not_reachable_at_the_time_of_the_clock():
    clock = ManualClock(5000)
    failing = ScriptedHttp({"GET other.example/may": HttpError("the line is dead")})
    async with run_policy(plugin(), clock=clock, http=failing) as running:
        assert "5000: cannot be reached" in (await running.judge(CONNECT)).text
        clock.advance(2)
        assert "7000: cannot be reached" in (await running.judge(CONNECT)).text
    async with run_policy(plugin(), {"host": "other.example"}, clock=clock, http=failing) as running:
        assert [r.code for r in (await running.judge(CONNECT)).reasons] == ["AWAY"]
    assert await failing.srv("_x._tcp.example") == []


async def test_an_observer_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("hansa.testing.running_policy.OBSERVER_TIMEOUT_S", 0.01)
    async with run_policy(plugin()) as running:
        with pytest.raises(TimeoutError):
            await running.observe(event("hang"))


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*/tests/test_*.py")), ids=lambda path: path.name)
def test_the_examples_need_public_modules_only(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hansa":
            assert node.module == "hansa" or node.module.startswith("hansa.testing")
