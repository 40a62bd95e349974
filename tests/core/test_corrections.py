"""What a network may correct of a room's present: all of it, or what the rules of another network leave."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hansa import Membership, NativeId, OpenedRoom, Role, RoomMember, ViewDelta
from hansa.testing import run_hansa
from hansa.testing.actor import Actor, Config, module

ANN = NativeId("right", "ann@x")


@pytest.mark.parametrize("decides", [True, False])
async def test_ranks_are_those_of_the_network_that_decides(decides: bool, monkeypatch: pytest.MonkeyPatch):
    async def open_room(self: Actor, address: str, *, create: bool) -> OpenedRoom:
        del create
        return OpenedRoom(native=NativeId(self.ctx.id, address), authority=decides and self.ctx.id == "left")

    monkeypatch.setattr(Actor, "open_room", open_room)
    made: dict[str, Any] = {}
    plugin = module(made)
    networks = {"left": (plugin, Config()), "right": (plugin, Config())}
    async with run_hansa(networks, rooms=[("left:a", "right:b")]) as app:
        context = made["right"].ctx
        view = context.get_view("b")
        ann = RoomMember(user=ANN, membership=Membership.JOIN, role=Role.MODERATOR, name="Ann", voice=False)
        moderated = replace(view.facts, moderated=True)
        await context.reconcile_view("b", ViewDelta(upserts=(ann,), info=moderated))
        row = view.person(ANN)
        assert (row.membership, row.name) == (Membership.JOIN, "Ann")
        guest = (Role.MEMBER, True, False)
        own = (Role.MODERATOR, False, True)
        assert (row.role, row.voice, view.facts.moderated) == (guest if decides else own)

        # Who decides says what the rank is, and a guest's correction of a name keeps it.
        owner = replace(row, role=Role.OWNER)
        await made["left"].ctx.reconcile_view("a", ViewDelta(upserts=(owner,)))
        await context.reconcile_view("b", ViewDelta(upserts=(replace(ann, name="Anna"),)))
        assert view.person(ANN).name == "Anna"
        assert view.person(ANN).role is (Role.OWNER if decides else Role.MODERATOR)
        assert app.rooms.room_of(NativeId("left", "a")).view is view
        await context.reconcile_view("b", ViewDelta(removed=(ANN,)))
        assert view.person(ANN) is None
