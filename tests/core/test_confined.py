"""What is confined to a network stays there, with everything that is said about it."""

from __future__ import annotations

import pytest
from core.command_stage import CommandStage, command_stage
from hansa import Busy, Content, Edit, Event, Kind, Message, Reaction, Report, Retraction
from hansa.testing import until


async def _confined_event(stage: CommandStage) -> Event:
    """A command that stands in the history of the network that decides."""
    result = await stage.left.say("home", "ann@x", "!hansa search people secret@y")
    assert result.event is not None
    return result.event


def _about(kind: Kind, target: str) -> Content:
    match kind:
        case Kind.EDIT:
            return Edit(target=target, message=Message(text="!hansa search people other@y"))
        case Kind.REACTION:
            return Reaction(target=target, key="secret")
        case Kind.RETRACTION:
            return Retraction(target=target, reason="secret")
        case _:
            return Report(target=target, reason="secret")


@pytest.mark.parametrize("kind", [Kind.EDIT, Kind.REACTION, Kind.RETRACTION, Kind.REPORT])
async def test_what_is_said_about_a_command_stays_on_its_network(kind: Kind) -> None:
    async with command_stage() as stage:
        target = await _confined_event(stage)
        said = await stage.left.do("home", "ann@x", _about(kind, target.id))
        assert said.event is not None
        of_this = await stage.left.do("home", "ann@x", _about(Kind.EDIT, said.event.id))
        await stage.left.say("home", "ann@x", "after")
        await stage.right.until("away", 1)
        shown = [one for one in stage.right.contents("away") if not isinstance(one, Message)]
        assert [one for one in shown if one.kind is not Kind.MEMBER] == []
        await stage.app.link_room(["third:later"], stage.view.room, create=True)
        for actor, room in ((stage.right, "away"), (stage.app.network("third"), "later")):
            log = await actor.ctx.read_history(room, limit=50)  # type: ignore[union-attr]
            assert said.event.id not in [event.id for event in log]
            assert of_this.event is None or of_this.event.id not in [event.id for event in log]
        assert said.event.id in [event.id for event in await stage.left.ctx.read_history("home", limit=50)]


async def test_a_reply_to_a_command_does_not_quote_it() -> None:
    async with command_stage() as stage:
        target = await _confined_event(stage)
        await stage.left.do("home", "ann@x", Message(text="what did it find?", reply_to=target.id))
        await stage.right.until("away", 1)
        (delivery,) = [one for one in stage.right.got["away"] if isinstance(one.content, Message)]
        assert delivery.target is None
        assert await stage.right.ctx.event_with_id("away", target.id) is None


async def test_a_receipt_does_not_carry_what_is_withheld() -> None:
    async with command_stage() as stage:
        target = await _confined_event(stage)
        await stage.left.read("home", "ann@x", target)
        after = await stage.left.say("home", "ann@x", "after")
        assert after.event is not None
        await stage.left.read("home", "ann@x", after.event)
        assert [one.event.id for one in stage.right.signals["away"]] == [after.event.id]  # type: ignore[union-attr]


async def test_a_command_of_a_network_that_restarts_does_not_cross() -> None:
    async with command_stage() as stage:

        async def crash() -> None:
            raise RuntimeError("the network crashes")

        stage.right.ctx.spawn(crash(), "crash")
        await until(lambda: stage.app.network("right") is None)
        with pytest.raises(Busy):
            await stage.right.say("away", "bob@y", "!hansa search people secret@y")
        assert (await stage.right.say("away", "bob@y", "after")).event is not None
        log = await stage.left.ctx.read_history("home", limit=50)
        assert [one.content.text for one in log if isinstance(one.content, Message)] == ["after"]
