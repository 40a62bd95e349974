"""Networks are reloaded, and rooms unlinked, while people talk: nothing is lost, nobody is sent anything twice."""

from __future__ import annotations

import asyncio
from typing import Any

from core.test_network_reload import Config, Counted, made, plugin  # noqa: F401  # fixtures
from hansa import Edit, Event, Message, NativeId, Retraction, SubmitResult
from hansa.setup import NetworkSetup
from hansa.testing import run_hansa, until

COUNT = 200


def event_of(result: SubmitResult) -> Event:
    assert result.event is not None, result.refusal
    return result.event


def shown(instances: list[Counted], room: str) -> list[str]:
    """The texts that the instances of one network were given, in order."""
    return [text for one in instances for text in one.texts(room)]


async def test_networks_that_are_reloaded_in_the_middle_of_a_burst_lose_and_repeat_nothing(
    made: Any,  # noqa: F811
    plugin: Any,  # noqa: F811
):
    networks = {name: (plugin, Config(server_name=name)) for name in ("left", "right")}
    async with run_hansa(networks, rooms=[["left:a", "right:b"]]) as app:

        async def talk() -> None:
            for number in range(COUNT):
                event_of(await made["left"][-1].say("a", "ann@x", f"m{number}"))
                await asyncio.sleep(0)

        async def reload() -> None:
            for number in range(5):
                await until(lambda number=number: len(shown(made["right"], "b")) >= 20 * number)
                left = next(one for one in app.setup.networks if one.id == "left")
                right = NetworkSetup(
                    id="right", module=plugin, options=Config(word=f"w{number}", server_name="right")
                )
                assert await app.reload_networks([left, right]) == {"right": ""}

        async with asyncio.timeout(30):
            await asyncio.gather(talk(), reload())
            await until(lambda: len(shown(made["right"], "b")) >= COUNT)
        assert shown(made["right"], "b") == [f"m{number}" for number in range(COUNT)]
        assert len(made["right"]) == 6


async def test_a_room_that_is_unlinked_in_the_middle_of_a_burst_ends_at_one_place(
    made: Any,  # noqa: F811
    plugin: Any,  # noqa: F811
):
    networks = {name: (plugin, Config(server_name=name)) for name in ("left", "right", "third")}
    async with run_hansa(networks, rooms=[["left:a", "right:b", "third:c"]]) as app:
        left, right, third = (made[name][0] for name in ("left", "right", "third"))
        await right.join("b", "bob@y")

        async def talk() -> None:
            for number in range(COUNT):
                event_of(await left.say("a", "ann@x", f"m{number}"))

        async def unlink() -> None:
            await until(lambda: len(right.texts("b")) >= 20)
            await app.linker.unlink_room(app.rooms.link(NativeId("right", "b")))

        async with asyncio.timeout(30):
            await asyncio.gather(talk(), unlink())
            await third.until("c", COUNT)
        told = right.texts("b")
        assert third.texts("c") == [f"m{number}" for number in range(COUNT)]
        assert told == [f"m{number}" for number in range(len(told))]
        room = app.rooms.room_of(NativeId("left", "a"))
        assert room.view.membership(NativeId("right", "bob@y")) is not None
        assert not [person for person in room.view.joined() if person.user.network == "right"]
        assert not await app.core.scan("dead")


async def test_what_is_edited_and_retracted_while_its_network_is_reloaded_is_shown_as_it_is(
    made: Any,  # noqa: F811
    plugin: Any,  # noqa: F811
):
    networks = {name: (plugin, Config(server_name=name)) for name in ("left", "right")}
    async with run_hansa(networks, rooms=[["left:a", "right:b"]]) as app:
        left = made["left"][-1]
        others = [one for one in app.setup.networks if one.id == "left"]
        said = event_of(await left.say("a", "ann@x", "secret"))
        assert await app.reload_networks(others) == {"right": ""}
        event_of(await left.do("a", "ann@x", Edit(target=said.id, message=Message(text="more secret"))))
        event_of(await left.do("a", "ann@x", Retraction(target=said.id)))
        event_of(await left.say("a", "ann@x", "end"))
        fresh = NetworkSetup(id="right", module=plugin, options=Config(word="again", server_name="right"))
        before = shown(made["right"], "b")
        assert await app.reload_networks([*others, fresh]) == {"right": ""}
        await made["right"][-1].until("b", 1)
        assert made["right"][-1].texts("b") == ["end"]
        assert "more secret" not in before
