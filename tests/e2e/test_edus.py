"""Typing and receipts between a real Synapse and a Hansa, both ways."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from e2e.three_servers import wait_matrix_member
from hansa import Receipt, Typing
from peers.scripted_hansa import ScriptedHansa
from peers.synapse import MatrixUser
from peers.waiting import until

pytestmark = pytest.mark.e2e

JULIET = "juliet@capulet"


async def town(stage: Any, alice: MatrixUser, hosted: str) -> tuple[ScriptedHansa, str, str]:
    """A Hansa with Juliet, the room where Alice is too, Juliet's id there."""
    hansa = await stage()
    if hosted == "here":
        await hansa.run("rooms", "create", "matrix:#lobby", "stage:lobby")
        room = await alice.join(f"#lobby:{hansa.name}")
    else:
        alias = f"verona{hansa.hansa.port}"
        room = await alice.create_room("11", room_alias_name=alias)
        await hansa.run("rooms", "create", f"matrix:#{alias}:{alice.id.partition(':')[2]}", "stage:lobby")
    await hansa.actor.join("lobby", JULIET, "Juliet")
    return hansa, room, await wait_matrix_member(alice, room, "Juliet")


class Watch:
    """The ephemeral events that a Matrix user gets in a room, from now on."""

    def __init__(self, user: MatrixUser, room: str) -> None:
        self._user, self._room = user, room
        self._since = ""
        self.last: dict[str, Any] = {}

    async def look(self, kind: str) -> Any:
        """The newest content of a kind."""
        since = f"&since={self._since}" if self._since else ""
        found = await self._user.call("GET", f"/sync?timeout=0{since}")
        self._since = found["next_batch"]
        joined = found.get("rooms", {}).get("join", {}).get(self._room, {})
        for event in joined.get("ephemeral", {}).get("events", []):
            if event["type"] == "m.receipt":
                self.last["m.receipt"] = {**self.last.get("m.receipt", {}), **event["content"]}
            else:
                self.last[event["type"]] = event["content"]
        return self.last.get(kind, {})


@pytest.mark.parametrize("hosted", ["here", "there"])
async def test_typing_both_ways(hosted, stage, matrix_user):
    alice = await matrix_user("alice")
    hansa, room, juliet = await town(stage, alice, hosted)
    target = f"/rooms/{quote(room, safe='')}/typing/{quote(alice.id, safe='')}"
    signals = hansa.actor.signals.setdefault("lobby", [])

    def types(typing: bool) -> Any:
        async def so() -> bool:
            return bool(signals) and isinstance(signals[-1], Typing) and signals[-1].typing is typing

        return so

    await alice.call("PUT", target, {"typing": True, "timeout": 30000})
    await until("Juliet is told that Alice types", types(True))
    assert signals[-1].user.id == alice.id
    await alice.call("PUT", target, {"typing": False})
    await until("Juliet is told that Alice types no more", types(False))

    watch = Watch(alice, room)
    await watch.look("m.typing")

    def seen(who: list[str]) -> Any:
        async def so() -> bool:
            return (await watch.look("m.typing")).get("user_ids", []) == who

        return so

    await hansa.actor.typing("lobby", JULIET)
    await until("Alice sees Juliet type", seen([juliet]))
    await hansa.actor.typing("lobby", JULIET, on=False)
    await until("Alice sees nobody type", seen([]))


@pytest.mark.parametrize("hosted", ["here", "there"])
async def test_receipts_both_ways(hosted, stage, matrix_user):
    alice = await matrix_user("alice")
    hansa, room, juliet = await town(stage, alice, hosted)
    said = (await hansa.actor.say("lobby", JULIET, "read this")).event
    assert said is not None

    async def heard() -> str:
        history = await alice.history(room)
        return next((e["event_id"] for e in history if e["content"].get("body") == "read this"), "")

    event_id = await until("Alice has the message", heard)
    for kind in ("m.read.private", "m.read"):
        where = f"/rooms/{quote(room, safe='')}/receipt/{kind}/{quote(event_id, safe='')}"
        await alice.call("POST", where, {})

    async def told() -> bool:
        return any(isinstance(s, Receipt) for s in hansa.actor.signals.get("lobby", []))

    await until("Juliet is told that Alice has read", told)
    (receipt,) = (s for s in hansa.actor.signals["lobby"] if isinstance(s, Receipt))
    assert (receipt.user.id, receipt.event.id, receipt.thread in {"", "main"}) == (alice.id, said.id, True)

    answered = await alice.say(room, "and this")
    await hansa.actor.until("lobby", 1)
    shown = hansa.actor.got["lobby"][-1].event
    watch = Watch(alice, room)
    await watch.look("m.receipt")
    await hansa.actor.read("lobby", JULIET, shown)

    async def seen() -> bool:
        receipts = await watch.look("m.receipt")
        return juliet in receipts.get(answered, {}).get("m.read", {})

    await until("Alice sees that Juliet has read", seen)
