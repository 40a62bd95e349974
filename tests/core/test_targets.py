"""Edits, reactions, retractions and replies on the bus: what they concern, who may, and what is left."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from core.ruling import ruling
from hansa import (
    Action,
    Attachment,
    Crossing,
    Custom,
    Delivery,
    Edit,
    Event,
    EventOut,
    Features,
    Kind,
    Level,
    LocalProtocolError,
    Membership,
    Message,
    NativeId,
    PollAnswer,
    PollEnd,
    PollStart,
    Reaction,
    Reason,
    RefusalCode,
    Retraction,
    RetryLater,
    Role,
    RoomMember,
    Submission,
    SubmitResult,
    Verdict,
    ViewDelta,
    hookimpl,
)
from hansa.model.content import REDACTED
from hansa.setup import PolicySetup
from hansa.store.memory import MemoryDisk, MemoryStore
from hansa.testing import run_hansa, until
from hansa.testing.actor import Actor, Config, module

ROOM = (("left:a", "right:b"),)


def networks(made: dict[str, Actor]) -> dict[str, Any]:
    return dict.fromkeys(("left", "right"), (module(made), Config()))


def event_of(result: SubmitResult) -> Event:
    assert result.event is not None, result.refusal
    return result.event


async def logged(actor: Actor, room: str, event: Event) -> Event | None:
    return await actor.ctx.event_with_id(room, event.id)


async def test_an_edit_a_reaction_and_a_reply_name_their_event_on_both_sides():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        left, right = made["left"], made["right"]
        said = event_of(await left.say("a", "ann@x", "helo"))
        await left.do("a", "ann@x", Edit(target=said.id, message=Message(text="hello")))
        await right.until_shown("b", lambda shown: len(shown) == 2)
        target = right.got["b"][1].target
        assert target is not None and target.id == said.id
        seen = await right.ctx.event_by("right-sent-0")
        assert seen is not None and seen.id == said.id
        await right.do("b", "bob@y", Reaction(target=seen.id, key="👍"))
        await right.do("b", "bob@y", Message(text="hi", reply_to=seen.id))
        await left.until_shown("a", lambda shown: len(shown) == 2)
        assert [d.target.id for d in left.got["a"] if d.target] == [said.id, said.id]
        assert await left.ctx.native_ids(said) == ["left-said-1"]
        assert [e.content.kind async for e in left.ctx.related(said, Kind.EDIT)] == [Kind.EDIT]
        assert [e.sender.id async for e in left.ctx.related(said, Kind.REACTION)] == ["bob@y"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (Edit(target="?", message=Message(text="mine")), RefusalCode.FORBIDDEN),
        (Retraction(target="?"), RefusalCode.FORBIDDEN),
        (Edit(target="nothing", message=Message(text="x")), RefusalCode.NOT_FOUND),
        (Reaction(target="nothing", key="x"), RefusalCode.NOT_FOUND),
        (Retraction(target="nothing"), RefusalCode.NOT_FOUND),
    ],
)
async def test_what_concerns_nothing_or_is_somebody_elses_is_refused(content, code):
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        said = event_of(await made["left"].say("a", "ann@x", "hello"))
        if content.target == "?":
            content = replace(content, target=said.id)
        result = await made["right"].do("b", "eve@y", content)
        assert result.refusal is not None and result.refusal.code is code
        kept = await logged(made["left"], "a", said)
        assert kept is not None and kept.content == Message(text="hello")


async def test_a_poll_is_ended_by_who_began_it_or_a_moderator():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        left, right = made["left"], made["right"]
        poll = PollStart(question="when?", answers=(PollAnswer(id="1", text="now"),))
        begun = event_of(await left.do("a", "ann@x", poll))
        end = PollEnd(target=begun.id, text="now wins")
        refused = await right.do("b", "eve@y", end)
        assert refused.refusal is not None and refused.refusal.code is RefusalCode.FORBIDDEN
        event_of(await left.do("a", "ann@x", end))
        mod = RoomMember(user=NativeId("right", "mod@y"), membership=Membership.JOIN, role=Role.MODERATOR)
        await right.join("b", "mod@y")
        await right.ctx.reconcile_view("b", ViewDelta(upserts=(mod,)))
        event_of(await right.do("b", "mod@y", end))


async def test_an_event_of_another_room_is_no_target():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=(*ROOM, ("left:c", "right:d"))):
        said = event_of(await made["left"].say("a", "ann@x", "secret"))
        result = await made["left"].do("c", "ann@x", Reaction(target=said.id, key="x"))
        assert result.refusal is not None and result.refusal.code is RefusalCode.NOT_FOUND
        assert await made["left"].ctx.event_with_id("c", said.id) is None
        reply = event_of(await made["left"].do("c", "ann@x", Message(text="re", reply_to=said.id)))
        assert reply.content == Message(text="re")


async def test_a_retraction_takes_the_words_and_those_of_the_edits_and_tells_everybody():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        left, right = made["left"], made["right"]
        said = event_of(await left.say("a", "ann@x", "secret"))
        edit = event_of(await left.do("a", "ann@x", Edit(target=said.id, message=Message(text="secrets"))))
        event_of(await left.do("a", "ann@x", Retraction(target=said.id, reason="oops")))
        shown = await right.until_shown("b", lambda shown: len(shown) == 3)
        assert shown[-1] == Retraction(target=said.id, reason="oops", of=Kind.MESSAGE)
        for event in (said, edit):
            kept = await logged(left, "a", event)
            assert kept is not None and kept.content == Custom(type=REDACTED)
        assert [one async for one in left.ctx.related(said, Kind.EDIT)] == []
        again = await left.do("a", "ann@x", Edit(target=said.id, message=Message(text="x")))
        assert again.refusal is not None and again.refusal.code is RefusalCode.INVALID


async def test_a_retraction_of_a_reaction_says_what_it_was_on():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        left, right = made["left"], made["right"]
        said = event_of(await left.say("a", "ann@x", "hello"))
        mark = event_of(await left.do("a", "ann@x", Reaction(target=said.id, key="👍")))
        await left.do("a", "ann@x", Retraction(target=mark.id))
        shown = await right.until_shown("b", lambda shown: len(shown) == 3)
        assert shown[-1] == Retraction(target=mark.id, of=Kind.REACTION, of_target=said.id)
        assert [one async for one in left.ctx.related(said, Kind.REACTION)] == []


async def test_a_moderator_may_take_back_what_others_said():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        left = made["left"]
        await left.join("a", "mod@x")
        mod = RoomMember(user=NativeId("left", "mod@x"), membership=Membership.JOIN, role=Role.MODERATOR)
        await left.ctx.reconcile_view("a", ViewDelta(upserts=(mod,)))
        await left.join("a", "ann@x")
        said = event_of(await left.say("a", "ann@x", "spam"))
        event_of(await left.do("a", "mod@x", Retraction(target=said.id)))


async def test_what_is_taken_back_stays_so_over_a_restart():
    made: dict[str, Actor] = {}
    disk = MemoryDisk()
    async with run_hansa(networks(made), rooms=ROOM, store=MemoryStore(disk)):
        said = event_of(await made["left"].say("a", "ann@x", "secret"))
        await made["left"].do("a", "ann@x", Retraction(target=said.id))
    async with run_hansa(networks(made), rooms=ROOM, store=MemoryStore(disk)) as app:
        kept = await logged(made["left"], "a", said)
        assert kept is not None and kept.content == Custom(type=REDACTED)
        assert b"secret" not in b"".join(row.body for row in await app.core.scan("event"))


async def submit(actor: Actor, content: Message, origin: str, **more: Any) -> Event:
    inbound = Submission(
        origin=NativeId(actor.ctx.id, origin),
        room=NativeId(actor.ctx.id, "a"),
        sender=NativeId(actor.ctx.id, "ann@x"),
        content=content,
        ts=1,
        **more,
    )
    return event_of((await actor.ctx.submit([inbound]))[0])


async def test_a_payload_comes_back_to_its_network_alone_and_leaves_with_the_words():
    made: dict[str, Actor] = {}
    networks_ = {"left": (module(made, hosted=True), Config()), "right": (module(made), Config())}
    async with run_hansa(networks_, rooms=ROOM):
        left, right = made["left"], made["right"]
        said = await submit(left, Message(text="x"), "o1", payload=b"<x/>")
        await right.until("b", 1)
        await left.until("a", 1)
        assert [d.event.payload for d in right.got["b"]] == [b""]
        assert [d.event.payload for d in left.got["a"]] == [b"<x/>"]
        await left.do("a", "ann@x", Reaction(target=said.id, key="x"))
        await right.until_shown("b", lambda shown: len(shown) == 2)
        await left.until_shown("a", lambda shown: len(shown) == 2)
        told = [one.target for one in (right.got["b"][1], left.got["a"][1])]
        assert [one.payload for one in told if one is not None] == [b"", b"<x/>"]
        await left.do("a", "ann@x", Retraction(target=said.id))
        kept = await logged(left, "a", said)
        assert kept is not None and kept.payload == b""
        with pytest.raises(LocalProtocolError, match="65536"):
            await submit(left, Message(text="x"), "o2", payload=b"x" * 65_537)


async def test_names_that_a_sender_chose_are_theirs_and_the_latest_counts():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        left = made["left"]
        await submit(left, Message(text="one"), "o1", chosen_ids=("1",), aliases=("stanza-1",))
        second = await submit(left, Message(text="two"), "o2", chosen_ids=("1",))
        ann, eve = NativeId("left", "ann@x"), NativeId("left", "eve@x")
        assert await left.ctx.event_by_chosen_id("a", ann, "1") == second
        assert await left.ctx.event_by_chosen_id("a", eve, "1") is None
        first = await left.ctx.event_by("stanza-1")
        assert first is not None and first.content == Message(text="one")
        with pytest.raises(LocalProtocolError, match="too many names"):
            await submit(left, Message(text="x"), "o3", chosen_ids=tuple(map(str, range(9))))


class KeepsSecrets:
    """Denies the way out to ``right`` for what says ``secret``."""

    async def check(self, crossing: Crossing) -> Verdict | None:
        secret = isinstance(crossing, EventOut) and crossing.content == Message(text="secret")
        if secret and crossing.link.native.network == "right":
            return Verdict(Action.DENY, (Reason(code="SECRET", policy="p", rule="secret"),))
        return None


def keeps_secrets() -> PolicySetup:
    plugin: Any = ModuleType("keeps_secrets")
    plugin.api, plugin.Config, plugin.open_policy = 1, Config, hookimpl(lambda ctx: KeepsSecrets())
    return PolicySetup(name="p", module=plugin, options=Config())


async def test_a_reply_and_a_reaction_do_not_tell_what_their_reader_may_not_know(monkeypatch):
    monkeypatch.setattr(Actor, "features", Features(levels=dict.fromkeys(Kind, Level.FALLBACK)))
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM, policies=[keeps_secrets()]):
        left, right = made["left"], made["right"]
        said = event_of(await left.say("a", "ann@x", "secret"))
        open_ = event_of(await left.say("a", "ann@x", "open"))
        for target in (said, open_):
            await left.do("a", "ann@x", Message(text="re", reply_to=target.id))
            await left.do("a", "ann@x", Reaction(target=target.id, key="👍"))
        shown = await right.until("b", 4)
        assert shown == ["open", "re", "> ann: open\nre", "[reacted with 👍 to “open”]"]


async def test_a_long_text_comes_in_parts_with_keys_of_their_own(monkeypatch):
    monkeypatch.setattr(Actor, "features", Features(levels={Kind.MESSAGE: Level.FULL}, max_text=12))
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        await made["left"].say("a", "ann@x", "one two three four five")
        assert "".join(await made["right"].until("b", 3)) == "one two three four five"
        keys = [d.key for d in made["right"].got["b"]]
        assert keys == ["right:b#1", "right:b#1.1", "right:b#1.2"]
        seen = await made["right"].ctx.event_by("right-sent-0")
        assert seen is not None and seen.seq == 1


async def test_a_file_has_a_line_of_its_own_where_a_network_has_no_files(monkeypatch):
    monkeypatch.setattr(Actor, "features", Features(levels={Kind.MESSAGE: Level.FULL}))
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        picture = Attachment(name="a.png", media_type="image/png", size=1_500_000)
        await made["left"].do("a", "ann@x", Message(text="look", attachments=(picture,)))
        assert await made["right"].until("b", 1) == ["look\n[picture a.png, 2 MB]"]


@pytest.mark.parametrize("in_words", [False, True])
async def test_what_is_retracted_while_it_waits_is_not_sent_nor_quoted(in_words, monkeypatch):
    if in_words:
        monkeypatch.setattr(Actor, "features", Features(levels={Kind.MESSAGE: Level.FULL}))
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        left, right = made["left"], made["right"]
        away = True

        def fail(_: Delivery) -> None:
            if away:
                raise RetryLater("away", after=0.01)

        right.before_send = fail
        said = event_of(await left.say("a", "ann@x", "secret"))
        await left.do("a", "bob@x", Message(text="what?", reply_to=said.id))
        await until(lambda: right.attempts > 1)
        await left.do("a", "ann@x", Retraction(target=said.id))
        away = False
        await left.say("a", "ann@x", "fence")
        await right.until_shown("b", lambda shown: Message(text="fence") in shown)
        assert "secret" not in str(right.got["b"])
        assert right.texts("b")[-2:] == ["what?", "fence"]


async def test_what_was_found_before_it_was_retracted_is_not_remembered():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        left = made["left"]
        said = event_of(await left.say("a", "ann@x", "secret"))
        edit = event_of(await left.do("a", "ann@x", Edit(target=said.id, message=Message(text="secrets"))))
        for number in range(130):  # more than are in memory anyway
            await left.say("a", "ann@x", str(number))
        assert app.rooms.room_of(NativeId("left", "a")).tail[0].seq > edit.seq
        assert (await logged(left, "a", said), await logged(left, "a", edit)) == (said, edit)
        await left.do("a", "ann@x", Retraction(target=said.id))
        for event in (said, edit):
            kept = await logged(left, "a", event)
            assert kept is not None and kept.content == Custom(type=REDACTED)


async def test_where_another_network_decides_only_the_author_or_a_moderator_retracts():
    made: dict[str, Any] = {}
    both = {"left": (ruling(made), Config()), "right": (module(made), Config())}
    async with run_hansa(both, rooms=ROOM) as app:
        left, right = made["left"], made["right"]
        for user in ("ann@y", "bob@y", "may@y"):
            await right.join("b", user)
        moderator = RoomMember(
            user=NativeId("right", "may@y"), membership=Membership.JOIN, role=Role.MODERATOR
        )
        room = app.rooms.room_of(NativeId("right", "b"))
        await app.pipeline.correct(room.id, ViewDelta(upserts=(moderator,)))
        first, second, third = [event_of(await right.say("b", "ann@y", text)) for text in "123"]
        by_other = await right.do("b", "bob@y", Retraction(target=first.id))
        assert by_other.refusal is not None and by_other.refusal.code is RefusalCode.FORBIDDEN
        event_of(await right.do("b", "ann@y", Retraction(target=first.id)))
        event_of(await right.do("b", "may@y", Retraction(target=second.id)))
        # The network that decides may retract whatever its own rules let it.
        event_of(await left.stands(Retraction(target=third.id)))
