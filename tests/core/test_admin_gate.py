"""Changes by an operator are asked about; reading, and reloading the policies, never is."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hansa import (
    Action,
    AdminChange,
    Argument,
    Command,
    Commands,
    NativeId,
    PeerConnect,
    Reason,
    RemoteProtocolError,
    RoomMember,
    Verdict,
    ViewDelta,
)
from hansa.admin.api import AdminApi
from hansa.admin.policy_gate import FREE, AdminGate
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.cli import show
from hansa.environment import Request
from hansa.model.content import Membership
from hansa.testing import run_hansa
from hansa.testing.actor import Actor, Config, module
from orjson import dumps, loads


class Strict:
    """Denies every change, and the server ``evil``."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def check(self, crossing: Any) -> Verdict | None:
        self.asked.append(crossing)
        reason = Reason(code="NO", policy="strict", rule="r", text="two persons are needed")
        denied = isinstance(crossing, AdminChange) or getattr(crossing, "server", "") == "evil"
        return Verdict(Action.DENY, (reason,)) if denied else None


class _Routes:
    def __init__(self) -> None:
        self.found: dict[tuple[str, str], Any] = {}

    def add(self, method: str, pattern: str, endpoint: Any, **_: Any) -> None:
        self.found[method, pattern] = endpoint


def routes(operations: AdminApi, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], Any]:
    made = _Routes()
    monkeypatch.setattr("hansa.admin.api.Router", lambda: made)
    operations.routes()
    return made.found


def request(body: Any = None, **path: str) -> Request:
    return Request(method="POST", target="/", host="", path=path, body=dumps(body or {}))


def networks(made: dict[str, Actor]) -> dict[str, Any]:
    plugin = module(made)
    return {"left": (plugin, Config()), "right": (plugin, Config())}


async def _nothing_to_reload() -> tuple[list[str], list[str]]:
    return ["again"], []


async def test_every_change_is_asked_about_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Actor] = {}
    strict = Strict()
    async with run_hansa(networks(made), rooms=[("left:a", "right:b")]) as app:
        found = routes(AdminApi(app, _nothing_to_reload, lambda: None), monkeypatch)
        app.decisions.replace([InstalledPolicy(name="strict", policy=strict)])
        free = {pattern for method, pattern in found if method != "POST"} | FREE
        assert {"/reload", "/policy/test", "/drain", "/promote"} == FREE, (
            "or an operator is locked out, or a change slips by"
        )
        for (method, pattern), endpoint in found.items():
            if pattern == "/metrics":
                continue
            strict.asked.clear()
            named = dict.fromkeys(("room", "event", "decision", "plugin"), "governance")
            body = {"room": "left:a", "sender": "left:ann@x", "words": "do", "links": [], "link": "left:a"}
            refused = ""
            try:
                await endpoint(request({**body, "arguments": {}}, **named))
            except RemoteProtocolError as error:
                refused = f"{error.hint} {error.code}"
            changes = [c for c in strict.asked if isinstance(c, AdminChange)]
            assert bool(changes) is (pattern not in free), f"{method} {pattern}"
            assert (refused == "403 policy") is (pattern not in free), f"{method} {pattern}: {refused}"
        assert app.rooms.link(NativeId("left", "a")) is not None, "the link stands that was to be untied"


async def test_a_change_is_refused_with_its_decision_and_done_once_the_policy_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=[("left:a", "right:b")]) as app:
        unlink = routes(AdminApi(app, _nothing_to_reload, lambda: None), monkeypatch)["POST", "/rooms/unlink"]
        app.decisions.replace([InstalledPolicy(name="strict", policy=Strict())])
        with pytest.raises(RemoteProtocolError, match=r"two persons are needed \[d-"):
            await unlink(request({"link": "right:b"}))
        (decided,) = await app.decisions.log(5)
        assert decided["facts"]["command"] == "rooms unlink" and "right:b" in str(decided["facts"])
        app.decisions.replace([])
        assert loads((await unlink(request({"link": "right:b"}))).body) == {"unlinked": "right:b"}


async def test_a_plugins_command_is_named_without_its_secrets_and_looking_is_free() -> None:
    def register_commands(commands: Commands) -> None:
        secret = Argument(name="--pass-word", help="x", secret=True)
        commands.add(Command(words="user add", help="x", arguments=(Argument(name="name", help="x"), secret)))
        commands.add(Command(words="user ls", help="x", changes=False))

    plugin: Any = ModuleType("hansa_with_commands")
    plugin.register_commands = register_commands
    strict = Strict()
    decisions = SimpleNamespace(policies=[strict], judge_and_store=lambda crossing: _judged(strict, crossing))
    gate = AdminGate(decisions, {"x": plugin}.__getitem__)  # type: ignore[arg-type]
    done: list[str] = []

    async def work(_: Request, body: Any) -> None:
        done.append(body["words"])

    asked = gate.behind("POST", "/operate/{plugin}", work)
    body = {"words": "user add", "arguments": {"name": "ann", "pass_word": "hunter2", "long": "x" * 999}}
    with pytest.raises(RemoteProtocolError):
        await asked(request(plugin="x"), body)
    (change,) = strict.asked
    assert change.command == "x user add"
    assert dict(change.arguments) == {"name": "ann", "long": "x" * 200}
    await asked(request(plugin="x"), {"words": "user ls", "arguments": {}})
    assert done == ["user ls"]
    with pytest.raises(RemoteProtocolError):  # what nobody declared may hold a secret anywhere
        await asked(request(plugin="x"), {"words": "odd", "arguments": {"a": "hunter2"}})
    assert strict.asked[-1].arguments == ()
    sys.modules.pop("hansa_with_commands", None)


async def _judged(strict: Strict, crossing: Any) -> Verdict:
    return await strict.check(crossing) or Verdict()


async def test_a_denied_server_in_a_room_is_named_and_nothing_is_kept_of_looking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=[("left:a", "right:b")]) as app:
        room_of = routes(AdminApi(app, _nothing_to_reload, lambda: None), monkeypatch)["GET", "/rooms/{room}"]
        people = [
            RoomMember(user=NativeId("left", f"p@{server}"), membership=Membership.JOIN, server=server)
            for server in ("good", "evil")
        ]
        await made["left"].ctx.reconcile_view("a", ViewDelta(upserts=tuple(people)))
        assert loads((await room_of(request(room="left:a"))).body)["denied"] == []
        strict = Strict()
        app.decisions.replace([InstalledPolicy(name="strict", policy=strict)])
        found = loads((await room_of(request(room="left:a"))).body)
        assert found["denied"] == [{"network": "left", "server": "evil", "because": "strict: r"}]
        assert "evil" in show.room(found).partition("Denied servers")[2]
        assert all(isinstance(c, PeerConnect) and c.outbound for c in strict.asked)
        assert await app.decisions.log(5) == []
