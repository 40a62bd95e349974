"""Commands in a chat: who may, what stays where, and which messages are not commands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from core.command_stage import command_stage
from hansa import (
    Action,
    AdminChange,
    Attachment,
    Crossing,
    Edit,
    EventIn,
    LocalProtocolError,
    Membership,
    Message,
    NativeId,
    NetworkCommand,
    Placement,
    Reason,
    Retraction,
    RoomMember,
    Span,
    SpanKind,
    Style,
    Submission,
    Verdict,
    ViewDelta,
)
from hansa.admin.deliveries import DeliveryCommands
from hansa.admin.rooms import RoomCommands
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.environment import Request
from hansa.host.room_names import RoomNames
from hansa.model.chat_commands import ChatCommand, CommandSettings, is_command, is_linkable, read_command
from hansa.testing import until


def test_what_is_a_command() -> None:
    assert is_command(Message(text="!hansa"), "!hansa")
    assert is_command(Message(text="!hansa help"), "!hansa")
    quote = (Span(start=0, end=11, kind=SpanKind.QUOTE),)
    file = Attachment(source=NativeId("x", "y"), name="a", media_type="text/plain")
    for content in (
        Message(text="!hansas help"),
        Message(text=" !hansa help"),
        Message(text="> !hansa help"),
        Message(text="!hansa help", style=Style.NOTICE),
        Message(text="!hansa help", style=Style.EMOTE),
        Message(text="!hansa help", reply_to="e"),
        Message(text="!hansa help", spans=quote),
        Message(text="!hansa help", attachments=(file,)),
        Edit(target="e", message=Message(text="!hansa help")),
    ):
        assert not is_command(content, "!hansa"), content


def test_what_a_command_says() -> None:
    assert read_command("!hansa", "!hansa") == ChatCommand(name="help")
    assert read_command("!hansa  Link  a:b ", "!hansa") == ChatCommand(name="link", words=("a:b",))
    assert read_command("status", "!hansa") == ChatCommand(name="status")
    assert read_command("!hansa " + "x" * 493, "!hansa") is not None
    for text in ("!hansa " + "x" * 494, "!hansa a\nb", "!hansa a\x00b", "!hansa" + " x" * 22):
        assert read_command(text, "!hansa") is None


@pytest.mark.parametrize(
    ("glob", "covered", "others"),
    [
        ("xmpp:open-*", ["xmpp:open-", "xmpp:open-tea"], ["xmpp:open-tea@evil.example", "irc:open-"]),
        ("xmpp:*@gw.example", ["xmpp:tea@gw.example"], ["xmpp:tea@evil@gw.example", "xmpp:tea"]),
        ("matrix:#open-*:a.example", ["matrix:#open-tea:a.example"], ["matrix:#open-tea:b:a.example"]),
        ("irc:#open-?", ["irc:#open-a"], ["irc:#open-@", "irc:#open-:"]),
    ],
)
def test_a_wildcard_of_linkable_stands_for_no_other_server(
    glob: str, covered: list[str], others: list[str]
) -> None:
    assert [spec for spec in (*covered, *others) if is_linkable(spec, [glob])] == covered


async def test_a_command_and_its_answer_stay_on_the_network_of_the_person() -> None:
    async with command_stage() as stage:
        assert "!hansa who" in await stage.ask(stage.left, "ann@x", "!hansa help")
        assert "!hansa who" in await stage.ask(stage.right, "bob@y", "!hansa help")
        await stage.left.say("home", "ann@x", "after")
        assert await stage.right.until("away", 1) == ["after"]
        log = await stage.left.ctx.read_history("home", limit=50)
        said = [event.content.text for event in log if isinstance(event.content, Message)]
        assert said == [
            "!hansa help",
            "after",
        ]  # the command of the network that decides stands in its history
        other = await stage.right.ctx.read_history("away", limit=50)
        assert [e.content.text for e in other if isinstance(e.content, Message)] == ["after"]
        await stage.app.link_room(["right:later"], stage.view.room, create=True)
        later = await stage.right.ctx.read_history("later", limit=50)
        assert "!hansa help" not in [getattr(event.content, "text", "") for event in later]


async def test_without_the_setting_a_command_is_a_message() -> None:
    async with command_stage(CommandSettings()) as stage:
        await stage.left.say("home", "ann@x", "!hansa help")
        assert await stage.right.until("away", 1) == ["!hansa help"]
        assert stage.left.told == []


async def test_who_and_status() -> None:
    async with command_stage() as stage:
        assert await stage.ask(stage.left, "ann@x", "!hansa who") == "left (1): Ann\nright (2): Bob, Olga"
        assert await stage.ask(stage.right, "bob@y", "!hansa status") == "left: up\nright: up"


async def test_mistakes_are_answered() -> None:
    async with command_stage() as stage:
        assert "no command sing" in await stage.ask(stage.left, "ann@x", "!hansa sing")
        assert await stage.ask(stage.left, "ann@x", "!hansa link") == "Write !hansa link NETWORK:ADDRESS"
        assert "one line" in await stage.ask(stage.left, "ann@x", "!hansa who\nall")
        assert "not in this room" in await stage.ask(stage.right, "stranger@z", "!hansa who")


async def test_an_operator_links_and_unlinks() -> None:
    async with command_stage() as stage:
        assert "is linked to third:new" in await stage.ask(stage.right, "olga@y", "!hansa link third:new")
        assert "third:new" in stage.links()
        assert "not linked" in await stage.ask(stage.right, "olga@y", "!hansa unlink third:new")
        assert "third:new" not in stage.links()
        assert "not linked to right:no" in await stage.ask(stage.right, "olga@y", "!hansa unlink right:no")
        assert "command line" in await stage.ask(stage.right, "olga@y", "!hansa unlink right:away")
        assert stage.links() == {"left:home", "right:away"}


async def test_an_owner_on_the_network_that_decides_links_what_may_be_linked() -> None:
    async with command_stage() as stage:
        assert "Only an owner" in await stage.ask(stage.left, "ann@x", "!hansa link right:open-1")
        await stage.make_owner("left", "home", "ann@x")
        assert "is linked" in await stage.ask(stage.left, "ann@x", "!hansa link right:open-1")
        assert "an operator" in await stage.ask(stage.left, "ann@x", "!hansa link right:secret")
        assert stage.links() == {"left:home", "right:away", "right:open-1"}


async def test_a_rank_that_another_network_gives_does_not_count() -> None:
    async with command_stage() as stage:
        await stage.make_owner("right", "away", "bob@y")
        assert "Only an operator" in await stage.ask(stage.right, "bob@y", "!hansa link right:open-1")
        assert "Only an operator" in await stage.ask(stage.right, "bob@y", "!hansa unlink left:home")
        assert stage.links() == {"left:home", "right:away"}


async def test_a_room_is_not_taken_from_another_one() -> None:
    async with command_stage() as stage:
        await stage.app.link_room(["left:second", "right:open-2"], create=True)
        await stage.make_owner("left", "home", "ann@x")
        assert "linked to another room" in await stage.ask(stage.left, "ann@x", "!hansa link right:open-2")
        assert "linked to another room" in await stage.ask(stage.right, "olga@y", "!hansa link right:open-2")
        assert stage.links() == {"left:home", "right:away"}


async def test_an_invite_is_the_persons_own() -> None:
    async with command_stage() as stage:
        assert await stage.ask(stage.right, "bob@y", "!hansa invite left:zoe@x") == "left:zoe@x is invited."
        assert stage.view.membership(NativeId("left", "zoe@x")) is Membership.INVITE
        answer = await stage.ask(stage.left, "ann@x", "!hansa invite right:yan@y")
        assert answer == "Invite ghost.right.yan@y as your client does: this is right:yan@y."
        assert "not linked to gone" in await stage.ask(stage.left, "ann@x", "!hansa invite gone:a")
        assert "not NETWORK:USER" in await stage.ask(stage.right, "bob@y", "!hansa invite zoe")


async def test_one_person_does_not_flood_the_bridge() -> None:
    async with command_stage() as stage:
        for _ in range(5):
            await stage.ask(stage.right, "bob@y", "!hansa status")
        await stage.right.say("away", "bob@y", "!hansa status")
        await until(lambda: stage.counted("rate") == 1)
        await stage.ask(stage.right, "olga@y", "!hansa status")  # another person has a share of their own
        stage.clock.advance(5.0)
        await stage.ask(stage.right, "bob@y", "!hansa status")
        assert len(stage.right.told) == 7


async def test_history_is_not_carried_out() -> None:
    async with command_stage() as stage:
        for ts, placement in (
            (stage.clock.now() - 300_001, Placement.LIVE),
            (stage.clock.now(), Placement.GAP),
        ):
            for actor, room, person in ((stage.left, "home", "ann@x"), (stage.right, "away", "olga@y")):
                await actor.ctx.submit(
                    [
                        Submission(
                            origin=NativeId(actor.ctx.id, f"old {ts} {person}"),
                            room=NativeId(actor.ctx.id, room),
                            sender=NativeId(actor.ctx.id, person),
                            content=Message(text="!hansa link right:open-9"),
                            ts=ts,
                            placement=placement,
                        )
                    ]
                )
        assert stage.counted("old") == 4
        assert (stage.left.told, stage.right.told) == ([], [])


async def test_the_same_command_again_is_carried_out_once() -> None:
    async with command_stage() as stage:
        for _ in range(2):
            await stage.left.say("home", "ann@x", "!hansa who", origin="same")
            await stage.right.say("away", "bob@y", "!hansa who", origin="same")
        await until(lambda: stage.counted("repeated") == 1)
        await until(lambda: stage.counted("done") == 2)
        assert (len(stage.left.told), len(stage.right.told)) == (1, 1)


async def test_commands_of_yesterday_are_forgotten() -> None:
    async with command_stage() as stage:
        for number in range(60):
            stage.clock.advance(6.0)
            await stage.ask(stage.right, "bob@y", "!hansa status")
            assert await stage.app.core.count("command") == number + 1
        stage.clock.advance(86_500.0)
        for _ in range(2):
            await stage.ask(stage.right, "bob@y", "!hansa status")
        assert await stage.app.core.count("command") == 2


class _Denies:
    """Denies crossings of one kind."""

    def __init__(self, kind: type) -> None:
        self.kind, self.seen = kind, list[Crossing]()

    async def check(self, crossing: Crossing) -> Verdict | None:
        if not isinstance(crossing, self.kind):
            return None
        self.seen.append(crossing)
        return Verdict(Action.DENY, (Reason(code="NO", text="the policy says no"),))


async def test_policies_judge_the_command_and_the_change() -> None:
    async with command_stage() as stage:
        policy = _Denies(AdminChange)
        stage.app.decisions.replace([InstalledPolicy(name="no", policy=policy)])
        assert "the policy says no" in await stage.ask(stage.right, "olga@y", "!hansa link right:new")
        (change,) = policy.seen
        assert isinstance(change, AdminChange)
        assert (change.command, dict(change.arguments)["by"]) == ("rooms link", "right:olga@y")
        policy = _Denies(EventIn)
        stage.app.decisions.replace([InstalledPolicy(name="no", policy=policy)])
        told = len(stage.right.told)
        refused = (await stage.right.say("away", "olga@y", "!hansa link right:new")).refused
        assert refused is not None
        assert await stage.right.ctx.answer_command("olga@y", "help") is None
        assert stage.counted("denied") == 1
        assert len(stage.right.told) == told
        assert "right:new" not in stage.links()


async def test_a_direct_chat_with_the_bridge() -> None:
    async with command_stage() as stage:
        answer = await stage.right.ctx.answer_command("bob@y", "help")
        assert answer is not None
        assert "!hansa status" in answer
        assert "!hansa who" not in answer
        assert (
            await stage.right.ctx.answer_command("bob@y", "!hansa status") == "left: up\nright: up\nthird: up"
        )
        assert await stage.right.ctx.answer_command("bob@y", "who") == "Write this command in a room."
    async with command_stage(CommandSettings()) as stage:
        assert await stage.right.ctx.answer_command("bob@y", "help") is None


async def test_in_a_room_without_an_authority_only_operators_change_links() -> None:
    async with command_stage(decides=False) as stage:
        await stage.make_owner("left", "home", "ann@x")
        assert "Only an operator" in await stage.ask(stage.left, "ann@x", "!hansa link right:open-1")
        assert "is linked" in await stage.ask(stage.right, "olga@y", "!hansa link right:open-1")
        log = await stage.left.ctx.read_history("home", limit=50)
        assert not [e for e in log if isinstance(e.content, Message)]


async def test_a_network_that_fails_to_answer_is_logged() -> None:
    async with command_stage() as stage:

        async def fail(*_: Any) -> None:
            raise RuntimeError("no")

        stage.right.answer_command = fail  # type: ignore[method-assign]
        await stage.right.say("away", "bob@y", "!hansa who")
        await until(lambda: stage.counted("unanswered") == 1)


async def test_what_is_confined_is_refused_where_another_network_decides() -> None:
    async with command_stage() as stage:
        inbound = Submission(
            origin=NativeId("right", "a secret"),
            room=NativeId("right", "away"),
            sender=NativeId("right", "bob@y"),
            content=Message(text="between us"),
            ts=stage.clock.now(),
            confined=True,
        )
        (outcome,) = await stage.right.ctx.submit([inbound])
        assert outcome.refusal is not None
        assert outcome.refusal.code == "unsupported"


async def test_an_operator_sees_that_a_command_is_confined() -> None:
    async with command_stage() as stage:
        await stage.ask(stage.left, "ann@x", "!hansa who")
        (event,) = [
            event
            for event in await stage.left.ctx.read_history("home", limit=50)
            if isinstance(event.content, Message)
        ]
        commands = DeliveryCommands(stage.app, RoomNames(stage.app))
        request = Request(method="GET", target="", host="", path={"event": event.id})
        states = {
            one["destination"]: (one["state"], one.get("reason"))
            for one in (await commands.where(request, {}))["destinations"]
        }
        assert states["right:away"] == ("withheld", "confined to its network")


async def test_the_events_of_a_room_are_counted_without_confined_ones() -> None:
    async with command_stage() as stage:
        room = stage.app.rooms.room_of(NativeId("left", "home"))

        async def count_events() -> int:
            request = Request(method="GET", target="", host="", path={"room": room.id})
            shown = await RoomCommands(stage.app, RoomNames(stage.app)).room(request, {})
            return int(shown["events"])

        before, head = await count_events(), room.head
        await stage.ask(stage.left, "ann@x", "!hansa who")
        assert (await count_events(), room.head > head) == (before, True)
        (command,) = [event for event in room.tail if isinstance(event.content, Message)]
        await stage.left.do("home", "ann@x", Retraction(target=command.id))
        assert await count_events() == before
        await stage.app.rooms.reload(room)
        await stage.right.say("away", "bob@y", "hello")
        assert await count_events() == before + 1


async def test_in_a_large_room_who_tells_numbers() -> None:
    async with command_stage() as stage:
        rows = [
            RoomMember(user=NativeId("left", f"p{n}@x"), membership=Membership.JOIN, server="x")
            for n in range(2000)
        ]
        await stage.left.ctx.reconcile_view("home", ViewDelta(upserts=tuple(rows)))
        assert await stage.ask(stage.right, "bob@y", "!hansa who") == "left (2001)\nright (2)"


async def test_a_network_has_commands_of_its_own() -> None:
    async with command_stage() as stage:
        asked: list[tuple[NativeId, Sequence[str]]] = []

        async def greet(person: NativeId, words: Sequence[str]) -> str:
            asked.append((person, words))
            if not words:
                raise LocalProtocolError("Greet whom?")
            return f"hello {words[0]}"

        command = NetworkCommand(usage="NAME", help="greets", run=greet)
        stage.left.chat_commands = lambda: {"greet": command}  # type: ignore[attr-defined]
        assert await stage.ask(stage.right, "bob@y", "!hansa left Greet Zoe") == "hello Zoe"
        assert asked == [(NativeId("right", "bob@y"), ("Zoe",))]
        assert await stage.ask(stage.right, "bob@y", "!hansa left greet") == "Greet whom?"
        assert "left has these commands: greet" in await stage.ask(stage.right, "bob@y", "!hansa left")
        assert "no command right" in await stage.ask(stage.right, "bob@y", "!hansa right greet")
        assert "!hansa left greet NAME: greets" in await stage.ask(stage.right, "bob@y", "!hansa help")
        assert "not in this room" in await stage.ask(stage.right, "eve@z", "!hansa left greet Zoe")
        assert len(asked) == 2


async def test_one_server_does_not_take_every_place_of_commands() -> None:
    async with command_stage() as stage:
        going_on, waiting = asyncio.Event(), list[NativeId]()

        async def wait(person: NativeId, words: Sequence[str]) -> str:
            waiting.append(person)
            await going_on.wait()
            return "waited"

        stage.left.chat_commands = lambda: {  # type: ignore[attr-defined]
            "wait": NetworkCommand(usage="", help="waits", run=wait)
        }
        for name in "defghijkl":
            await stage.right.join("away", f"{name}@evil", name)
            await stage.right.say("away", f"{name}@evil", "!hansa left wait")
        await until(lambda: len(waiting) + stage.counted("busy") == 9)
        assert "right (" in await stage.ask(stage.right, "bob@y", "!hansa who")
        going_on.set()
        await until(lambda: len(stage.right.told) == len(waiting) + 1)
        before = len(waiting)
        await stage.ask(stage.right, "d@evil", "!hansa left wait")  # the places are free again
        assert len(waiting) == before + 1
