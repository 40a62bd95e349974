"""Events that cannot be fetched or verified are passed over: the events that build on them go on."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import hansa_governance
import pytest
from hansa import Backoff, HttpRequest
from hansa.setup import PolicySetup
from hansa.testing import ManualClock, until
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.signing import with_signature
from hansa_matrix.rooms.inbound import room_queue
from hansa_matrix.rooms.state import holes as known_holes
from hansa_matrix.rooms.state import state_propagation
from hansa_matrix.rooms.state.holes import MAX_HOLES, MAX_HOLES_OF_ONE, TRIES, Hole, Holes, Suspects, Why
from matrix.server_with_peer import THEIRS, V1, ServerWithPeer, server_with_peer
from peers.event_forge import EventForge, JoinedRoom

#: The server whose keys are not available.
MUTE = "127.0.0.3:3"
USER = f"@x:{MUTE}"


class World:
    """The forger's server, which has everything of ``room``, and a second server ``mute`` with a person."""

    def __init__(self, house: ServerWithPeer) -> None:
        self.house, self.mute = house, EventForge(MUTE)
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
        store = house.matrix.store
        async with asyncio.timeout(10):
            while True:
                row = await store.get("pdu", (name,))
                if row is not None and row.fields["after"]:
                    self.had(raw)
                    return str(row.fields["status"])
                await asyncio.sleep(0.005)

    @property
    def room(self) -> Any:
        return self.house.matrix.get_room(self.house.room.room_id)

    async def holes(self) -> dict[str, str]:
        """``event -> why`` as `rooms check` says."""
        check = self.house.matrix.network.admin_commands()["rooms check"]
        found = await check({"room": self.house.room.room_id})
        return {one["event"]: one["why"] for one in found["holes"]}

    async def stored(self, name: str) -> Any:
        return await self.house.matrix.store.get("pdu", (name,))


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
def _at_once(monkeypatch) -> None:
    monkeypatch.setattr(room_queue, "RETRY", Backoff(first=0.01, most=0.01))


@pytest.mark.parametrize("version", ["1", "6", "12"])
@pytest.mark.parametrize("how", LOST)
async def test_what_follows_a_lost_event_goes_on(tmp_path, how, version, caplog):
    lose, why = LOST[how]
    async with server_with_peer(tmp_path, version, gap_patience=0.0, **_options(how)) as house:
        world = World(house)
        if how == "distrusted":
            keyring = house.matrix.keyring
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
        said = [
            r
            for r in caplog.records
            if r.levelname == "WARNING" and "the events after it are processed" in r.message
        ]
        assert len(said) == 1


# What is dropped in another way has its place, or is had once it is allowed.


def rejected(world: World) -> str:
    return world.had(world.say("x", sender=f"@stranger:{THEIRS}"))


def barred(world: World) -> str:
    """Its own server may not send it to us; another of the room has it."""
    return world.had(world.join())


def blocked(world: World) -> str:
    return world.had(world.say("said while nobody here listened"))


def refused(world: World) -> str:
    return world.had(world.say("x", prev_events=list(world.house.other.tips)))


@pytest.mark.parametrize("version", ["6", "12"])
@pytest.mark.parametrize(
    ("lose", "status"), [(rejected, "rejected"), (barred, "accepted"), (blocked, "accepted")]
)
async def test_what_follows_an_event_that_was_dropped_at_the_gate_goes_on(tmp_path, lose, status, version):
    async with server_with_peer(tmp_path, version, gap_patience=0.0) as house:
        world = World(house)
        matrix = house.matrix
        assert await world.placed(world.say("before")) == "accepted"
        before = set(world.events)
        lost = lose(world)
        raw = world.events[lost]
        if lose is barred:
            acl = {"allow": ["*"], "deny": [MUTE.rpartition(":")[0], MUTE]}
            await matrix.local_events.send_state(house.room.room_id, "m.room.server_acl", "", acl)
        if lose is blocked:
            await matrix.network.admin_commands()["rooms block"]({"room": house.room.room_id})
        signing = {"origin": MUTE, "key": world.mute.key} if lose is barred else {}
        path = f"{V1}/send/{secrets.token_hex(4)}"
        assert (await house.ask("PUT", path, {"pdus": [raw]}, **signing))[0] == 200
        if lose is blocked:
            await matrix.network.admin_commands()["rooms unblock"]({"room": house.room.room_id})
        assert await world.placed(world.say("after")) == "accepted"
        assert (await world.stored(lost)).fields["status"] == status
        assert await world.holes() == {} and set(world.events) > before


@pytest.mark.parametrize("version", ["6", "12"])
async def test_what_follows_a_refused_event_goes_on(tmp_path, version):
    """It follows an event of another room, and so has no state."""
    async with server_with_peer(tmp_path, version, gap_patience=0.0) as house:
        world = World(house)
        assert await world.placed(world.say("before")) == "accepted"
        lost = refused(world)
        assert await house.fate(world.events[lost]) == "refused"
        assert await world.placed(world.say("after")) == "accepted"
        assert await world.holes() == {lost: "refused"}


async def test_soft_failed_events_have_their_place_and_what_follows_them_goes_on(tmp_path):
    async with server_with_peer(tmp_path, gap_patience=0.0) as house:
        world = World(house)
        user = house.room.user
        assert await world.placed(world.join()) == "accepted"
        tips = dict(house.room.tips)
        leave = house.forger.draft(house.room, "m.room.member", {"membership": "leave"}, user)
        assert await world.placed(house.forger.finish(house.room, leave)) == "accepted"
        house.room.tips = tips
        assert await world.placed(world.say("I am gone already")) == "soft_failed"
        guest = JoinedRoom(house.room.room_id, "12", USER)
        guest.state, guest.tips = house.room.state, house.room.tips
        guest.state = {**guest.state, ("m.room.member", USER): next(iter(world.events))}
        assert await world.placed(world.mute.message(guest, "after")) == "accepted"
        assert await world.holes() == {}


# What cites a hole as authority, and what comes of a key that is known later.


def spoken(world: World, text: str) -> dict[str, Any]:
    """The mute server's person speaks, who joined by the newest of its events."""
    guest = JoinedRoom(world.house.room.room_id, world.house.room.version.id, USER)
    joined = next(e for e, raw in world.events.items() if raw.get("state_key") == USER)
    guest.state = {**world.house.room.state, ("m.room.member", USER): joined}
    guest.tips = world.house.room.tips
    return world.mute.message(guest, text)


def kicked(world: World) -> dict[str, Any]:
    """Returns an event of a member that cites that join: its sender bans the user who joined by it."""
    house, room = world.house, world.house.room
    joined = next(e for e, raw in world.events.items() if raw.get("state_key") == USER)
    guest = JoinedRoom(room.room_id, room.version.id, room.user)
    guest.state, guest.tips = {**room.state, ("m.room.member", USER): joined}, room.tips
    draft = house.forger.draft(guest, "m.room.member", {"membership": "leave"}, USER)
    return house.forger.finish(guest, draft)


@pytest.mark.parametrize("version", ["1", "6", "12"])
async def test_a_key_that_is_known_later_fills_the_hole(tmp_path, version):
    """The join of a person whose server was mute, and what that person said, in their places after all."""
    async with server_with_peer(tmp_path, version, gap_patience=0.0) as house:
        world = World(house)
        await allow_kicks(house)
        matrix = house.matrix
        assert await world.placed(world.say("before")) == "accepted"
        joined = keyless(world)
        said = [world.had(spoken(world, f"m{n}")) for n in range(3)]
        assert await world.placed(world.say("after")) == "accepted"
        cites = kicked(world)
        assert await world.placed(cites) == "rejected"
        assert await world.placed(world.say("goes on")) == "accepted"
        assert (await world.holes())[joined] == "keyless"
        assert ("m.room.member", USER) not in await world.room.state()
        # Everything of it is in the store: a restart knows it.
        again = Holes(house.room.room_id)
        await again.load(matrix.store)
        assert again.by_id == {e: h for e, h in world.room.holes.by_id.items() if h.group or h.rejects}
        world.speaks = True
        await matrix.keyring.ask_again([MUTE])
        async with asyncio.timeout(10):
            while world.room.holes.by_id:  # the network was told of the key
                await asyncio.sleep(0.01)
        for name in (joined, *said):
            assert (await world.stored(name)).fields["status"] == "accepted"
        assert (await world.stored(event_id(cites, house.room.version))).fields["status"] == "accepted"
        assert (await world.room.state())["m.room.member", USER] == event_id(cites, house.room.version)
        assert await matrix.store.scan("hole", limit=5) == []
        assert await world.placed(world.say("the end")) == "accepted"


@pytest.mark.parametrize("version", ["6", "12"])
@pytest.mark.parametrize("most", [20, 5000])
async def test_late_state_counts_however_much_follows_it(tmp_path, monkeypatch, version, most):
    """The events behind it are recomputed if they are few enough; otherwise the late event is a branch of its
    own.
    """
    monkeypatch.setattr(state_propagation, "_MAX_EVENTS", most)
    monkeypatch.setattr(state_propagation, "_PAGE_SIZE", 10)
    async with server_with_peer(tmp_path, version, gap_patience=0.0) as house:
        world = World(house)
        matrix = house.matrix
        assert await world.placed(world.say("before")) == "accepted"
        joined = keyless(world)
        for number in range(40):
            assert await world.placed(world.say(f"after {number}")) == "accepted"
        assert ("m.room.member", USER) not in await world.room.state()
        world.speaks = True
        await matrix.keyring.ask_again([MUTE])
        await until(lambda: not world.room.holes.by_id)
        assert (await world.room.state())["m.room.member", USER] == joined
        assert (joined in world.room.head.extremities) is (most == 20)
        assert await world.placed(world.say("the end")) == "accepted"
        assert (await world.room.state())["m.room.member", USER] == joined


async def test_what_nobody_has_is_asked_of_few(tmp_path, caplog):
    """Events that cite ids out of the air, many each: others of the room are not made to look for them all."""
    async with server_with_peer(tmp_path, "11", gap_patience=0.0) as house:
        world = World(house)
        assert await world.placed(world.join()) == "accepted"
        tips = list(house.room.tips)
        for number in range(5):
            before = len(house.peer.asked)
            air = [f"${secrets.token_urlsafe(32)}" for _ in range(19)]
            assert await world.placed(world.say(f"m{number}", prev_events=[*air, *tips])) == "accepted"
            asked = [r.host_header for r in house.peer.asked[before:]]
            assert asked.count(MUTE) <= 6 * TRIES
            assert asked.count(THEIRS) <= 30 * TRIES
        said = [
            r
            for r in caplog.records
            if r.levelname == "WARNING" and "the events after it are processed" in r.message
        ]
        assert len(said) == 1


async def allow_kicks(house: ServerWithPeer) -> None:
    """The forger's person may remove others."""
    matrix = house.matrix
    room = matrix.get_room(house.room.room_id)
    (levels,) = (
        pdu
        for key, pdu in (await room.events_of(await room.state(), [("m.room.power_levels", "")])).items()
        if key[1] == "" and key[0] == "m.room.power_levels"
    )
    users = {**levels.content.get("users", {}), house.room.user: 50}
    content = {**levels.content, "users": users}
    name = await matrix.local_events.send_state(house.room.room_id, "m.room.power_levels", "", content)
    pdu = (await room.events.load([name], room.version))[name].pdu
    house.room.keep(pdu)


async def test_an_operator_who_allows_a_server_has_its_hole_filled(tmp_path):
    async with server_with_peer(tmp_path, gap_patience=0.0, **_options("denied")) as house:
        world = World(house)
        assert await world.placed(world.say("before")) == "accepted"
        joined = denied(world)
        assert await world.placed(world.say("after")) == "accepted"
        assert await world.holes() == {joined: "denied"}
        await house.app.reload_policies([])
        matrix = house.matrix
        matrix.keyring._absent.clear()
        matrix.keyring.heard_from(MUTE)
        world.room.holes.by_id[joined] = replace(world.room.holes.by_id[joined], again=0)
        await matrix.hole_filler.fill_due_holes()
        assert await world.holes() == {}
        assert (await world.room.state())["m.room.member", USER] == joined


async def test_a_hole_that_stays_is_tried_again_more_and_more_seldom(tmp_path):
    async with server_with_peer(tmp_path, gap_patience=0.0) as house:
        world = World(house)
        assert await world.placed(world.say("before")) == "accepted"
        lost = not_found(world)
        assert await world.placed(world.say("after")) == "accepted"
        matrix = house.matrix
        now, waits = matrix.ctx.clock.now(), []
        for _ in range(3):
            hole = replace(world.room.holes.by_id[lost], again=0)
            world.room.holes.by_id[lost] = hole
            await matrix.hole_filler.fill_due_holes()
            waits.append(world.room.holes.by_id[lost].again - now)
        assert waits[0] < waits[1] / 1.5 < waits[2] / 2.25
        asked = len(world.asked)
        await matrix.hole_filler.fill_due_holes()
        assert len(world.asked) == asked  # it is not due


async def test_a_hole_whose_event_came_at_the_same_time_ends(tmp_path):
    """A push placed it while it was being fetched: no turn fills it any more."""
    async with server_with_peer(tmp_path, gap_patience=0.0) as house:
        world = World(house)
        raw = world.say("pushed")
        assert await world.placed(raw) == "accepted"
        name = event_id(raw, house.room.version)
        world.room.holes.add(replace(hole(name, THEIRS), room_id=house.room.room_id))
        await house.matrix.hole_filler.fill_due_holes()
        assert world.room.holes.by_id == {}
        assert await world.placed(world.say("after")) == "accepted"


# Where the past is not available, servers of the room must agree.


async def said_by(tmp_path, answers: dict[str, Any], monkeypatch) -> str:
    """Servers answer with those states at a hole; the state after what follows it, and that of before."""
    async with server_with_peer(tmp_path, gap_patience=0.0) as house:
        world = World(house)
        matrix = house.matrix
        assert await world.placed(world.say("before")) == "accepted"
        topic = house.forger.finish(
            house.room,
            house.forger.draft(
                house.room, "m.room.member", {"membership": "join", "displayname": "new"}, house.room.user
            ),
        )
        new = world.had(topic)
        lost = not_found(world)
        full = [*house.room.state.values()]
        changed = [new if e == house.room.state["m.room.member", house.room.user] else e for e in full]
        del world.states[lost]
        claims = {"new": changed, "old": full}
        monkeypatch.setattr(matrix.missing_events, "candidate_servers", lambda *_: list(answers))
        plain = world.__call__

        def answer(request: HttpRequest) -> tuple[int, Any] | None:
            path, _, query = unquote(request.target).partition("?")
            if "/state_ids/" in path and query.endswith(lost):
                claim = answers[request.host_header]
                if claim is None:
                    return 404, {"errcode": "M_NOT_FOUND", "error": "no such event"}
                return 200, {"pdu_ids": claims[claim], "auth_chain_ids": claims[claim]}
            return plain(request)

        house.peer.answer = answer
        key = ("m.room.member", house.room.user)
        before = (await world.room.state())[key]
        following = world.say("after")
        assert await world.placed(following) == "accepted"
        stored = (
            await world.room.events.load([event_id(following, house.room.version)], world.room.version)
        ).popitem()[1]
        state = await world.room.groups.load(stored.before)
        assert state[key] in {before, new}
        return "new" if state[key] == new else "old"


A, B = "127.0.0.4:4", "127.0.0.5:5"


@pytest.mark.parametrize(
    ("answers", "taken"),
    [
        ({THEIRS: "new"}, "new"),  # the only other server of the room
        ({THEIRS: "new", A: "new"}, "new"),
        ({THEIRS: "new", A: "old", B: "old"}, "old"),
        ({THEIRS: "old", A: "new", B: "new"}, "new"),
        ({THEIRS: "new", A: "old"}, "old"),  # nobody is believed against another: what we have
        ({THEIRS: "new", A: None, B: None}, "old"),  # they have never heard of that event
    ],
)
async def test_the_state_at_a_hole_is_what_servers_agree_on(tmp_path, answers, taken, monkeypatch):
    assert await said_by(tmp_path, answers, monkeypatch) == taken


# Bounds.


def hole(name: str, origin: str, since: int = 0, **more: Any) -> Hole:
    return Hole(
        room_id="!r",
        event_id=name,
        why=Why.NOT_FOUND,
        cited_by="$x",
        origin=origin,
        since=since,
        again=0,
        **more,
    )


def test_the_holes_of_a_room_are_bounded_and_the_greediest_gives_way():
    holes = Holes("!r")
    for number in range(MAX_HOLES_OF_ONE):
        holes.add(hole(f"$evil{number}", "evil", number))
    for number in range(MAX_HOLES - MAX_HOLES_OF_ONE - 1):
        holes.add(hole(f"$good{number}", "good", number))
    assert holes.excess_holes({"$new": hole("$new", "good", 999)}) == []
    assert [h.event_id for h in holes.excess_holes({"$new": hole("$new", "evil", 999)})] == ["$evil0"]
    holes.add(hole("$good", "other", 0))
    assert [h.origin for h in holes.excess_holes({"$new": hole("$new", "third", 999)})] == ["evil"]


def test_an_event_is_waited_for_so_often_and_so_long():
    clock = ManualClock()
    suspects = Suspects(clock, 45.0)
    assert suspects.tried("!r", "$a", "evil") is True
    assert [suspects.tried("!r", "$a", "evil") for _ in range(TRIES)] == [False] * TRIES
    assert not suspects.is_ripe("!r", "$a")
    clock.advance(45)
    assert suspects.is_ripe("!r", "$a") and not suspects.is_ripe("!r", "$b")
    suspects.tried("!r", "$b", "evil")
    clock.advance(45)
    assert not suspects.is_ripe("!r", "$b")  # asked for too seldom


def test_one_server_makes_nobody_forget_what_is_waited_for_of_others():
    suspects = Suspects(ManualClock(), 0.0)
    suspects.tried("!r", "$good", "good")
    for number in range(2000):
        suspects.tried("!r", f"$e{number}", "evil")
    assert suspects.tries("!r", "$good") == 1 and suspects.tries("!r", "$e1999") == 1
    assert len(suspects._known) == known_holes._SUSPECTS_OF_ONE + 1


async def test_invented_events_cost_few_requests_and_no_room(tmp_path, monkeypatch):
    """A member that cites twenty invented events in each message."""
    monkeypatch.setattr(known_holes, "MAX_HOLES_OF_ONE", 30)
    async with server_with_peer(tmp_path, gap_patience=0.0) as house:
        world = World(house)
        matrix = house.matrix
        for number in range(4):
            invented = ["$" + secrets.token_urlsafe(32) for _ in range(20)]
            world.asked.clear()
            assert await world.placed(world.say(f"m{number}", prev_events=invented)) == "accepted"
            assert len(world.asked) < 60 * TRIES
        assert len(world.room.holes) <= 30
        rows = await matrix.store.scan("hole", limit=500)
        assert len(rows) == len(world.room.holes.by_id)
        assert await world.placed(world.say("goes on")) == "accepted"
