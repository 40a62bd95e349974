"""A room elsewhere beside a room whose rules decide: one of them decides, whichever came first."""

from __future__ import annotations

from typing import Any

import pytest
from core.ruling import ANN, Ruling
from core.test_late_authority import Elsewhere
from hansa import Delivery, Message, NativeId
from hansa.store.memory import MemoryDisk, MemoryStore
from hansa.testing import run_hansa, until
from hansa.testing.actor import Config, module


class Plain(Elsewhere):
    """It gets by ``send`` what is not proposed to it."""

    def __init__(self, ctx: Any, *, hosted: bool = False) -> None:
        super().__init__(ctx, hosted=hosted)
        self.sent: list[str] = []

    async def send(self, delivery: Delivery) -> str:
        if isinstance(delivery.content, Message):
            self.sent.append(delivery.content.text)
        return f"sent-{delivery.event.id}"


@pytest.mark.parametrize("links", [("late:a", "left:a"), ("left:a", "late:a")])
async def test_the_rules_of_the_other_room_decide_also_after_a_restart(links):
    disk = MemoryDisk()
    for life in range(2):
        made: dict[str, Any] = {}
        networks = {"late": (module(made, Plain), Config()), "left": (module(made, Ruling), Config())}
        async with run_hansa(networks, store=MemoryStore(disk)) as app:
            room = None
            for spec in links:
                await app.runners[spec.partition(":")[0]].up()
                room = await app.link_room([spec], room, create=True)
                if not life and room is not None and spec == "late:a" == links[0]:
                    assert app.rooms.link(NativeId("late", "a")).authority
            late, left = made["late"], made["left"]
            assert app.rooms.get(room).authority == app.rooms.link(NativeId("left", "a"))
            assert not app.rooms.link(NativeId("late", "a")).authority
            texts = [f"said {number}" for number in range(life + 1)]
            for text in texts:  # the ids of the first life come again
                outcome = await left.stands(Message(text=text))
                assert outcome.event.sender == ANN
            await until(lambda late=late, life=life: late.sent == [f"said {life}"])
            assert late.proposed == []
            assert (await late.say("a", "zoe@there", f"hello {life}")).event is not None


async def test_of_two_rooms_elsewhere_the_first_decides():
    made: dict[str, Any] = {}
    plain = module(made, Plain)
    networks = {"late": (plain, Config()), "right": (plain, Config())}
    async with run_hansa(networks, rooms=[("late:a", "right:b")]) as app:
        await until(lambda: len(app.rooms.links("late")) == len(app.rooms.links("right")) == 1)
        decides = {
            link.native.network: link.authority for link in app.rooms.links("late") + app.rooms.links("right")
        }
        assert sorted(decides.values()) == [False, True]
