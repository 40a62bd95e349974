"""Content that names events by native ids: the room's turn finds them, also those of the same batch."""

from __future__ import annotations

from typing import Any

from hansa import Content, Edit, Message, NativeId, Reaction, RefusalCode, Retraction, Submission
from hansa.testing import run_hansa
from hansa.testing.actor import Actor, Config, module

ROOM = (("left:a", "right:b"), ("left:other",))


def networks(made: dict[str, Actor]) -> dict[str, Any]:
    return dict.fromkeys(("left", "right"), (module(made), Config()))


def said(origin: str, content: Content, room: str = "a") -> Submission:
    return Submission(
        origin=NativeId("left", origin),
        room=NativeId("left", room),
        sender=NativeId("left", "ann@x"),
        content=content,
        ts=1,
        native_targets=True,
    )


async def test_an_edit_and_its_target_come_in_one_batch():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        left, right = made["left"], made["right"]
        first, edit, answer = await left.ctx.submit(
            [
                said("$1", Message(text="helo", thread="$none")),
                said("$2", Edit(target="$1", message=Message(text="hello", thread="$1"))),
                said("$3", Message(text="hi", reply_to="$1", thread="$1")),
            ]
        )
        assert first.event is not None and edit.event is not None and answer.event is not None
        core = first.event.id
        assert first.event.content == Message(text="helo")
        assert edit.event.content == Edit(target=core, message=Message(text="hello", thread=core))
        assert answer.event.content == Message(text="hi", reply_to=core, thread=core)
        await right.until_shown("b", lambda shown: len(shown) == 3)
        assert [d.target.id for d in right.got["b"] if d.target] == [core, core]


async def test_an_event_is_named_later_by_any_of_its_ids_and_only_in_its_room():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        left, right = made["left"], made["right"]
        theirs = await right.say("b", "bob@y", "hello")
        await left.until_shown("a", lambda shown: len(shown) == 1)
        [mark] = await left.ctx.submit([said("$1", Reaction(target="left-sent-0", key="x"))])
        assert mark.event is not None and theirs.event is not None
        assert mark.event.content == Reaction(target=theirs.event.id, key="x")
        for wrong in (
            said("$2", Reaction(target="left-sent-0", key="x"), "other"),
            said("$3", Reaction(target=theirs.event.id, key="x")),
        ):
            [refused] = await left.ctx.submit([wrong])
            assert refused.refusal is not None and refused.refusal.code is RefusalCode.NOT_FOUND
        [reply] = await left.ctx.submit([said("$4", Message(text="re", reply_to="$none"))])
        assert reply.event is not None and reply.event.content == Message(text="re")


async def test_what_was_taken_back_in_the_batch_is_no_target_of_an_edit():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        results = await made["left"].ctx.submit(
            [
                said("$1", Message(text="secret")),
                said("$2", Retraction(target="$1")),
                said("$3", Edit(target="$1", message=Message(text="secret"))),
            ]
        )
        assert [r.refusal.code if r.refusal else None for r in results] == [None, None, RefusalCode.INVALID]
