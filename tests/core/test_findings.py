"""The interface to an operator's programs: exit codes, the status of ``/health``; and numbers in a readable
form.
"""

from __future__ import annotations

import json

import pytest
from hansa.admin.api import AdminApi
from hansa.app import App
from hansa.cli import show, socket_client
from hansa.cli.main import commands_of, main
from hansa.environment import Environment, Request, SystemClock, SystemRandom
from hansa.model.commands import counted
from hansa.setup import Setup
from hansa.store.faults import FaultKind, StoreFault
from hansa.store.memory import MemoryStore

CHECK = {"room": "!a", "events": 1, "extremities": 1, "statuses": {}, "rejected": {}, "holes": []}
NOTHING = {"missing_prev": [], "missing_auth": [], "missing_state": []}


@pytest.mark.parametrize(
    ("words", "found", "code"),
    [
        (("doctor",), {"server": "a", "healthy": True, "findings": []}, 0),
        (("doctor",), {"server": "a", "healthy": False, "findings": []}, 1),
        (("rooms", "check", "!a"), {**CHECK, **NOTHING}, 0),
        (("rooms", "check", "!a"), {**CHECK, **NOTHING, "missing_auth": ["$x"]}, 1),
        (("rooms", "ls"), [], 0),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_command_that_finds_something_wrong_ends_with_1(words, found, code, as_json, monkeypatch, capsys):
    monkeypatch.setattr(socket_client, "call_with_progress", lambda *_: found)
    assert main(["matrix", *words, *(["--json"] if as_json else [])]) == code
    said = capsys.readouterr().out
    assert json.loads(said) == found if as_json else said


async def test_health_is_200_while_the_store_is_slow_and_503_while_it_fails():
    seams = Environment(SystemClock(), SystemRandom())
    app = App(Setup(store=MemoryStore(), http=None, seams=seams))
    await app.start()

    async def asked() -> tuple[int, str, bool]:
        answer = await AdminApi(app, None, None).health(Request(method="GET", target="/health", host=""))
        body = json.loads(answer.body)
        return answer.status, body["store"], body["ok"]

    assert await asked() == (200, "up", True)
    app.store.health.record_commit_time(3.0)
    assert await asked() == (200, "slow", True)
    app.store.health.record_fault(StoreFault(FaultKind.FORBIDDEN, "no right"))
    app.setup.store.probe = _refused
    assert await asked() == (503, "forbidden", False)
    await app.stop()


async def _refused() -> None:
    raise StoreFault(FaultKind.FORBIDDEN, "no right")


def test_one_thing_is_one():
    assert [counted(n, "event") for n in (0, 1, 2)] == ["0 events", "1 event", "2 events"]
    assert [counted(n, "policy", "policies") for n in (1, 2)] == ["1 policy", "2 policies"]
    room = {"room": "r", "name": "n", "join_rule": "invite", "events": 1, "people": [], "links": []}
    assert "(invite, 1 event)" in show.room({**room, "addresses": [], "topic": ""})
    shown = {command.words: command.show for command in commands_of("matrix")}
    assert shown["rooms check"]({**CHECK, **NOTHING}).startswith("!a: 1 event, 1 extremity\n")
    hole = {"event": "$x", "why": "late", "servers": ["s"], "asked": [], "attempts": 1}
    assert "1 try" in shown["rooms check"]({**CHECK, **NOTHING, "holes": [hole]})
    filled = {"room": "!a", "events": 1, "failed": {}, "complete": True}
    assert "1 past event stored\n" in shown["rooms backfill"](filled)
