"""Links: networks are told of them, people come and go with them, and a failure leaves nothing behind."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from core.test_admin_gate import request
from hansa import (
    CannotOpenRoom,
    Link,
    Member,
    Membership,
    NativeId,
    NetworkStatus,
    OpenedRoom,
    Refusal,
    RefusalCode,
    RemoteProtocolError,
    RoomMember,
    RoomView,
    ViewDelta,
    hookimpl,
)
from hansa.admin.rooms import RoomCommands
from hansa.bus import room_removal
from hansa.host.room_names import RoomNames
from hansa.setup import RoomSetup
from hansa.testing import Actor, run_hansa, until
from hansa.testing.actor import Config


class Follower(Actor):
    """Knows who is in its rooms beforehand, is told of links, and may refuse to open a room."""

    def __init__(self, ctx: Any) -> None:
        super().__init__(ctx, hosted=ctx.id == "hosted")
        self.told: list[tuple[str, str, str, set[str]]] = []
        self.there: dict[str, list[str]] = {}
        self.removed: list[str] = []
        self.breaks = False

    async def open_room(self, address: str, *, create: bool) -> OpenedRoom:
        if address == "bad":
            raise CannotOpenRoom(Refusal(code=RefusalCode.FORBIDDEN, text="not here"))
        opened = await super().open_room(address, create=create)
        people = tuple(
            RoomMember(user=NativeId(self.ctx.id, one), membership=Membership.JOIN, name=one.title())
            for one in self.there.get(address, [])
        )
        return OpenedRoom(native=opened.native, hosted=opened.hosted, view_delta=ViewDelta(upserts=people))

    async def remove_room(self, native: str) -> None:
        self.removed.append(native)

    def _tell(self, what: str, own: Link, other: Link, view: RoomView) -> None:
        self.told.append((what, own.id, other.id, {person.user.id for person in view.joined()}))
        if self.breaks:
            raise RuntimeError("not now")

    async def on_link_added(self, own: Link, added: Link, view: RoomView) -> None:
        self._tell("added", own, added, view)

    async def on_link_removed(self, own: Link, removed: Link, view: RoomView) -> None:
        self._tell("removed", own, removed, view)


@pytest.fixture
def made() -> dict[str, Follower]:
    return {}


def plugin(made: dict[str, Follower], kind: type[Follower] = Follower) -> ModuleType:
    found: Any = ModuleType(f"hansa_follower_{id(made)}_{kind.__name__}")
    found.api, found.Config = 1, Config

    @hookimpl
    def open_network(ctx: Any) -> Follower:
        made[ctx.id] = kind(ctx)
        return made[ctx.id]

    found.open_network = open_network
    return found


def networks(made):
    one = plugin(made)
    return {name: (one, Config()) for name in ("left", "right", "hosted")}


def commands(app) -> RoomCommands:
    return RoomCommands(app, RoomNames(app))


async def test_every_network_of_a_room_is_told_of_a_link_and_of_who_is_there(made):
    async with run_hansa(networks(made)) as app:
        left, right = made["left"], made["right"]
        left.there["a"], right.there["b"] = ["ann@x"], ["bob@y"]
        left.breaks = True
        room = await app.link_room(["left:a"])
        await until(lambda: len(list(app.rooms.get(room).view.joined())) == 1)
        await app.link_room(["right:b"], room)
        assert left.told == [
            ("added", "left:a", "left:a", set()),
            ("added", "left:a", "right:b", {"ann@x"}),
        ]
        assert right.told == [("added", "right:b", "right:b", {"ann@x"})]
        await left.until_shown("a", lambda shown: any(isinstance(one, Member) for one in shown))
        came = next(one for one in left.contents("a") if isinstance(one, Member))
        assert (came.user, came.membership, came.name) == (
            NativeId("right", "bob@y"),
            Membership.JOIN,
            "Bob@Y",
        )


async def test_unlinking_has_its_people_leave_the_others_and_tells_it_whom_to_take_out(made):
    async with run_hansa(networks(made), rooms=[("left:a", "right:b", "hosted:c")]) as app:
        for name, room, person in (("left", "a", "ann@x"), ("right", "b", "bob@y"), ("hosted", "c", "cem@z")):
            await made[name].join(room, person)
        await commands(app).unlink(request(), {"link": "hosted:c"})

        def gone(shown):
            return [one.user.id for one in shown if getattr(one, "membership", None) is Membership.LEAVE]

        for name, room in (("left", "a"), ("right", "b")):
            await made[name].until_shown(room, lambda shown: gone(shown) == ["cem@z"])
            assert made[name].told[-1] == ("removed", f"{name}:{room}", "hosted:c", {"ann@x", "bob@y"})
        assert made["hosted"].told[-1] == ("removed", "hosted:c", "hosted:c", {"ann@x", "bob@y"})
        assert gone(made["hosted"].contents("c")) == ["cem@z"], "its own people are shown out too"
        assert app.rooms.link(NativeId("hosted", "c")) is None
        await made["left"].say("a", "ann@x", "still here")
        await made["right"].until("b", 1)
        assert not made["hosted"].texts("c")


async def test_a_room_that_fails_leaves_nothing_behind(made):
    async with run_hansa(networks(made)) as app:
        made["left"].there["a"] = ["ann@x"]
        with pytest.raises(RemoteProtocolError, match="not here"):
            await commands(app).create(request(), {"links": ["left:a", "hosted:c", "right:bad"]})
        assert list(app.rooms) == [] and not app.rooms.links("left") and not app.rooms.links("hosted")
        assert made["left"].removed == ["a"] and made["hosted"].removed == ["c"]
        kept = {"membership_log", "visibility_log", "event", "person", "relation", "alias"}
        assert {name for name, _ in room_removal.OF_ROOM} >= kept
        for collection in ("room", "link", *kept):
            assert await app.core.scan(collection, limit=10) == [], collection
        assert (await commands(app).create(request(), {"links": ["left:a", "right:b"]}))["room"]


async def test_what_was_there_before_a_failure_stays(made):
    async with run_hansa(networks(made), rooms=[("left:a", "right:b")]) as app:
        await made["left"].say("a", "ann@x", "hello")
        with pytest.raises(RemoteProtocolError):
            await commands(app).create(request(), {"links": ["left:a", "hosted:c", "right:bad"]})
        room = app.rooms.room_of(NativeId("left", "a"))
        assert sorted(room.links) == ["left:a", "right:b"] and room.head == 1
        assert made["left"].removed == []


class Away(Follower):
    """Is away at the start."""

    async def start(self) -> None:
        self.ctx.report_status(NetworkStatus.CONNECTING)


async def test_a_configured_room_is_made_of_what_is_up_and_gets_the_rest_when_it_comes(made):
    async with run_hansa(
        {"away": (plugin(made, Away), Config()), **networks(made)},
        kept=[RoomSetup(links=["away:x", "left:a", "right:b"])],
    ) as app:
        links = [NativeId("left", "a"), NativeId("right", "b")]
        await until(lambda: all(app.rooms.link(link) is not None for link in links))
        await made["left"].say("a", "ann@x", "hello")
        assert await made["right"].until("b", 1) == ["hello"]
        assert app.rooms.link(NativeId("away", "x")) is None
        made["away"].ctx.report_status(NetworkStatus.UP)
        await until(lambda: app.rooms.link(NativeId("away", "x")) is not None)
        assert len(app.rooms.room_of(NativeId("away", "x")).links) == 3
        await made["left"].say("a", "ann@x", "again")
        assert await made["away"].until("x", 1) == ["again"]
