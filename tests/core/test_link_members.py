"""Those who are there when a room is linked enter the other side once, over a crash too."""

from __future__ import annotations

import asyncio
from typing import Any

from core.test_room_linker import Follower, networks
from hansa import Crossing, EventIn, Member, Membership, NativeId, Verdict
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.host.link_members import LinkMembers
from hansa.store.memory import MemoryDisk, MemoryStore
from hansa.testing import run_hansa, until

PEOPLE = [f"p{number}@y" for number in range(120)]


def came(actor: Any) -> list[str]:
    shown = [one for one in actor.contents("a") if isinstance(one, Member)]
    return [one.user.id for one in shown if one.membership is Membership.JOIN]


async def link_and_crash(monkeypatch: Any, disk: MemoryDisk, after: int) -> str:
    """Links ``right:b``, in which people are, and ends once ``after`` batches of them were submitted."""
    made: dict[str, Follower] = {}
    submitted = 0
    submit = LinkMembers.submit_row

    async def submit_until_crash(self: Any, *args: Any) -> None:
        nonlocal submitted
        if submitted >= after:
            raise RuntimeError("the process ends here")
        submitted += 1
        await submit(self, *args)
        if submitted == after:  # its row stays
            raise RuntimeError("the process ends here")

    async with run_hansa(networks(made), store=MemoryStore(disk)) as app:
        made["right"].there["b"] = PEOPLE
        room = await app.link_room(["left:a"])
        with monkeypatch.context() as broken:
            broken.setattr(LinkMembers, "submit_row", submit_until_crash)
            await app.link_room(["right:b"], room)
            await until(lambda: submitted >= after and not app.linker.members.running)
        assert await app.core.scan("entering")
    return room


async def test_a_crash_between_a_link_and_its_members_loses_none_of_them(monkeypatch):
    disk, made = MemoryDisk(), dict[str, Follower]()
    room = await link_and_crash(monkeypatch, disk, 0)
    async with run_hansa(networks(made), store=MemoryStore(disk)) as app:
        await until(lambda: len(list(app.rooms.get(room).view.joined())) == len(PEOPLE))
        await until(lambda: len(came(made["left"])) == len(PEOPLE))
        assert came(made["left"]) == PEOPLE
        await until(_is_empty(app))


async def test_members_that_were_submitted_before_a_crash_are_not_submitted_again(monkeypatch):
    disk, made = MemoryDisk(), dict[str, Follower]()
    room = await link_and_crash(monkeypatch, disk, 1)
    async with run_hansa(networks(made), store=MemoryStore(disk)) as app:
        await until(lambda: len(list(app.rooms.get(room).view.joined())) == len(PEOPLE))
        await until(_is_empty(app))
        assert app.rooms.get(room).head == len(PEOPLE)


async def test_who_left_before_they_were_submitted_does_not_come_in(monkeypatch):
    disk, made = MemoryDisk(), dict[str, Follower]()
    room = await link_and_crash(monkeypatch, disk, 0)
    monkeypatch.setattr(LinkMembers, "resume", _nothing)
    async with run_hansa(networks(made), store=MemoryStore(disk)) as app:
        await made["right"].join("b", PEOPLE[0])
        await made["right"].leave("b", PEOPLE[0])
    monkeypatch.undo()
    async with run_hansa(networks(made), store=MemoryStore(disk)) as app:
        await until(_is_empty(app))
        view = app.rooms.get(room).view
        assert view.membership(NativeId("right", PEOPLE[0])) is Membership.LEAVE
        assert len(list(view.joined())) == len(PEOPLE) - 1


async def test_a_link_that_ended_meanwhile_brings_nobody_in(monkeypatch):
    disk, made = MemoryDisk(), dict[str, Follower]()
    room = await link_and_crash(monkeypatch, disk, 0)
    monkeypatch.setattr(LinkMembers, "resume", _nothing)
    async with run_hansa(networks(made), store=MemoryStore(disk)) as app:
        await app.rooms.close_link(NativeId("right", "b"))
    monkeypatch.undo()
    async with run_hansa(networks(made), store=MemoryStore(disk)) as app:
        await until(_is_empty(app))
        assert not list(app.rooms.get(room).view.joined())


async def test_unlinking_forgets_who_did_not_come_in_yet(monkeypatch):
    disk, made = MemoryDisk(), dict[str, Follower]()
    await link_and_crash(monkeypatch, disk, 0)
    monkeypatch.setattr(LinkMembers, "resume", _nothing)
    async with run_hansa(networks(made), store=MemoryStore(disk)) as app:
        await app.linker.unlink_room(app.rooms.link(NativeId("right", "b")))
        assert not await app.core.scan("entering")


async def _nothing(_self: Any) -> None:
    return


def _is_empty(app: Any) -> Any:
    async def check() -> bool:
        return not await app.core.scan("entering")

    return check


async def test_people_whose_entry_is_under_way_leave_with_their_link():
    made: dict[str, Follower] = {}
    held, going_on = asyncio.Event(), asyncio.Event()

    class Holds:
        async def check(self, crossing: Crossing) -> Verdict | None:
            content = crossing.content if isinstance(crossing, EventIn) else None
            if isinstance(content, Member) and content.membership is Membership.JOIN:
                held.set()
                await going_on.wait()
            return None

    async with run_hansa(networks(made)) as app:
        app.decisions.replace([InstalledPolicy(name="holds", policy=Holds())])
        made["right"].there["b"] = PEOPLE
        room = await app.link_room(["left:a"])
        await app.link_room(["right:b"], room)
        await held.wait()
        unlinking = asyncio.ensure_future(app.linker.unlink_room(app.rooms.link(NativeId("right", "b"))))
        await asyncio.wait({unlinking}, timeout=0.3)
        going_on.set()
        await unlinking
        await made["left"].say("a", "ann@x", "after")  # what was submitted before it has an outcome
        assert not list(app.rooms.get(room).view.joined())
        assert not await app.core.scan("entering")
