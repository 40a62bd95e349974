"""A change of the present that no event says is shown to the networks that show it, also over a crash."""

from __future__ import annotations

import asyncio
from typing import Any

from hansa import Link, Membership, NativeId, Role, RoomMember, ViewDelta
from hansa.store.memory import MemoryDisk, MemoryStore
from hansa.testing import run_hansa, until
from hansa.testing.actor import Actor, Config, module

ROOM = (("left:a", "right:b"),)
ANN = NativeId("left", "ann@x")


def networks(made: dict[str, Actor]) -> dict[str, Any]:
    return dict.fromkeys(("left", "right"), (module(made), Config()))


class Screen:
    """What a network shows of a room: the ranks of its people. ``broken``: it fails instead."""

    def __init__(self) -> None:
        self.broken = False
        self.shown: list[dict[str, Role]] = []

    def install(self, monkeypatch: Any) -> None:
        async def show_present(actor: Actor, link: Link) -> None:
            if actor.ctx.id != "right":
                return
            if self.broken:
                raise RuntimeError("no screen")
            view = actor.ctx.get_view(link.native.id)
            assert view is not None
            self.shown.append({user.id: person.role for user, person in view.people.items()})

        monkeypatch.setattr(Actor, "show_present", show_present, raising=False)


async def promote(actor: Actor, role: Role) -> None:
    person = RoomMember(user=ANN, membership=Membership.JOIN, role=role)
    await actor.ctx.reconcile_view("a", ViewDelta(upserts=(person,)))


async def test_a_correction_is_shown_and_its_mark_goes(monkeypatch):
    made: dict[str, Actor] = {}
    screen = Screen()
    screen.install(monkeypatch)
    async with run_hansa(networks(made), rooms=ROOM) as app:
        await promote(made["left"], Role.MODERATOR)
        await until(lambda: screen.shown == [{"ann@x": Role.MODERATOR}])
        async with asyncio.timeout(10):
            while await app.core.scan("unshown"):
                await asyncio.sleep(0)
        await made["left"].say("a", "ann@x", "hello")
        assert not await app.core.scan("unshown")


async def test_what_a_crash_left_unshown_is_shown_at_the_next_start(monkeypatch):
    made: dict[str, Actor] = {}
    disk, screen = MemoryDisk(), Screen()
    screen.install(monkeypatch)
    screen.broken = True
    async with run_hansa(networks(made), rooms=ROOM, store=MemoryStore(disk)) as app:
        await promote(made["left"], Role.OWNER)
        assert [row.key for row in await app.core.scan("unshown")]
    screen.broken = False
    async with run_hansa(networks(made), rooms=ROOM, store=MemoryStore(disk)):
        await until(lambda: bool(screen.shown))
        assert screen.shown[-1] == {"ann@x": Role.OWNER}
