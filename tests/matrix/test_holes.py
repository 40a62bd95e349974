"""What cannot be had or verified is passed over: what others build on it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import hansa_governance
import pytest
from hansa import HttpRequest
from hansa.app import PolicySetup
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.signing import with_signature
from hansa_matrix.room import line
from hansa_matrix.room.holes import Why
from matrix.inbound import THEIRS, Inbound, inbound
from peers.forger import Forger, JoinedRoom

#: The server whose keys are not to be had.
MUTE = "127.0.0.3:3"
USER = f"@x:{MUTE}"


class World:
    """The forger's server, which has everything of ``room``, and a second server ``mute`` with a person."""

    def __init__(self, house: Inbound) -> None:
        self.house, self.mute = house, Forger(MUTE)
        self.speaks = True
        self.events: dict[str, dict[str, Any]] = {}
        self.states: dict[str, list[str]] = {}
        self.asked: list[str] = []
        house.peer.answer = self
        house.peer.keys = self.keys

    def keys(self, request: HttpRequest) -> Any:
        if request.host_header != MUTE:
            return 200, self.house.forger.keys()
        return (200, self.mute.keys()) if self.speaks else None

    def had(self, raw: dict[str, Any], name: str = "") -> str:
        """Everybody else has an event, and what comes next follows it."""
        room = self.house.room
        name = name or event_id(raw, room.version)
        self.events[name] = raw
        self.states[name] = list(room.state.values())
        room.tips = {name: raw["depth"] if isinstance(raw.get("depth"), int) else 60}
        return name

    def __call__(self, request: HttpRequest) -> tuple[int, Any] | None:
        path, _, query = unquote(request.target).partition("?")
        self.asked.append(path)
        if "/get_missing_events/" in path:
            return 200, {"events": list(self.events.values())[-20:]}
        if "/state_ids/" in path and (state := self.states.get(query.partition("=")[2])) is not None:
            return 200, {"pdu_ids": state, "auth_chain_ids": state}
        if "/event/" in path and (raw := self.events.get(path.rpartition("/event/")[2])) is not None:
            return 200, {"pdus": [raw]}
        return None

    def join(self) -> dict[str, Any]:
        """The mute server's person joins."""
        room = self.house.room
        guest = JoinedRoom(room.room_id, room.version.id, USER)
        guest.state, guest.tips = room.state, room.tips
        return self.mute.finish(guest, self.mute.draft(guest, "m.room.member", {"membership": "join"}, USER))

    def say(self, text: str, **over: Any) -> dict[str, Any]:
        return self.house.forger.message(self.house.room, text, **over)

    async def placed(self, raw: dict[str, Any]) -> str:
        """Send an event that follows what came last, and wait for its place."""
        house, name = self.house, event_id(raw, self.house.room.version)
        assert (await house.send(raw))[0] == 200
        store = house.app.network("matrix")._ctx.store
        async with asyncio.timeout(10):
            while True:
                row = await store.get("pdu", (name,))
                if row is not None and row.fields["after"]:
                    self.had(raw)
                    return str(row.fields["status"])
                await asyncio.sleep(0.005)

    @property
    def room(self) -> Any:
        return self.house.app.network("matrix").get(self.house.room.room_id)

    async def holes(self) -> dict[str, str]:
        """``event -> why`` as `rooms check` says."""
        check = self.house.app.network("matrix").operations()["rooms check"]
        found = await check({"room": self.house.room.room_id})
        return {one["event"]: one["why"] for one in found["holes"]}

    async def stored(self, name: str) -> Any:
        return await self.house.app.network("matrix")._ctx.store.get("pdu", (name,))


def keyless(world: World) -> str:
    world.speaks = False
    return world.had(world.join())


def denied(world: World) -> str:
    return world.had(world.join())


def unsigned(world: World) -> str:
    raw = world.say("x")
    return world.had(with_signature({**raw, "signatures": {}}, THEIRS, "ed25519:now", "A" * 86))


def oversized(world: World) -> str:
    return world.had(world.say("x" * 70_000))


def malformed(world: World) -> str:
    room = world.house.room
    draft = {**world.house.forger.draft(room, "m.room.message", {"body": "x"}), "depth": -1}
    return world.had(world.house.forger.finish(room, draft))


def wrong_room(world: World) -> str:
    return world.had(world.say("x", room_id=world.house.other.room_id))


def not_found(world: World) -> str:
    raw = world.say("x")
    name = world.had(raw)
    del world.events[name]
    return name


#: How an event is lost, and what the hole says. The network's options are in ``_options``.
LOST: dict[str, tuple[Callable[[World], str], Why]] = {
    "keyless": (keyless, Why.KEYLESS),
    "denied": (denied, Why.DENIED),
    "distrusted": (denied, Why.DISTRUSTED),
    "unsigned": (unsigned, Why.UNSIGNED),
    "oversized": (oversized, Why.OVERSIZED),
    "malformed": (malformed, Why.MALFORMED),
    "wrong room": (wrong_room, Why.WRONG_ROOM),
    "not found": (not_found, Why.NOT_FOUND),
}


def _options(how: str) -> dict[str, Any]:
    if how != "denied":
        return {}
    config = hansa_governance.Config(deny_servers=[MUTE])
    return {"policies": [PolicySetup(name="gov", module=hansa_governance, options=config)]}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(line, "RETRY", (0.01,))


@pytest.mark.parametrize("version", ["1", "6", "12"])
@pytest.mark.parametrize("how", LOST)
async def test_what_follows_a_lost_event_goes_on(tmp_path, how, version, caplog):
    lose, why = LOST[how]
    async with inbound(tmp_path, version, gap_patience=0.0, **_options(how)) as house:
        world = World(house)
        if how == "distrusted":
            keyring = house.app.network("matrix")._keyring
            keyring._distrusted = frozenset({world.mute.key.public})
        assert await world.placed(world.say("before")) == "accepted"
        state = await world.room.state()
        lost = lose(world)
        for number in range(3):
            assert await world.placed(world.say(f"after {number}")) == "accepted"
        assert await world.holes() == {lost: why.value}
        assert await world.stored(lost) is None
        assert await world.room.state() == state
        ends = list(world.room.head.extremities)
        assert ends[-1:] == list(house.room.tips)
        if version != "1" and why in {Why.KEYLESS, Why.DENIED, Why.DISTRUSTED, Why.UNSIGNED}:
            assert len(ends) == 1  # it is certain what the hole follows
        counted = {
            dict(labels)["why"] for (name, labels), n in house.app.counters.items() if name == "matrix_holes"
        }
        assert counted == {why.value}
        said = [r for r in caplog.records if r.levelname == "WARNING" and "passed over" in r.message]
        assert len(said) == 1
