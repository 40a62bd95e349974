"""A message that is retracted from another network: Matrix keeps none of its words, nor those of its edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hansa import Content, Edit, Event, Message, NativeId, Reaction, Retraction, Submission
from matrix.test_kinds_cross import House, linked


def together(
    house: House, contents: Sequence[Content], name: str, *, native: bool = True
) -> list[Submission]:
    """Submissions of Juliet's, whose native ids are ``NAME-0`` and so on; they name events by these if
    ``native``.
    """
    ctx = house.stage.ctx
    return [
        Submission(
            origin=NativeId(ctx.id, f"{name}-{number}"),
            room=NativeId(ctx.id, "lobby"),
            sender=NativeId(ctx.id, "juliet@x"),
            content=content,
            ts=ctx.clock.now(),
            native_targets=native,
        )
        for number, content in enumerate(contents)
    ]


async def submit(house: House, items: Sequence[Submission]) -> list[Event]:
    events = list[Event]()
    for at in range(0, len(items), 50):
        for result in await house.stage.ctx.submit(items[at : at + 50]):
            assert result.event is not None, result.refusal
            events.append(result.event)
    return events


async def on_matrix(house: House, event: Event) -> dict[str, Any]:
    native = await house.ctx.native_id(event)
    assert native is not None
    content: dict[str, Any] = (await house.pdu(native))["content"]
    return content


async def test_all_edits_of_a_retracted_message_lose_their_words_in_matrix(tmp_path):
    async with linked(tmp_path) as house:
        said, _ = await house.says(Message(text="one"))
        edits = [Edit(target=said.id, message=Message(text=f"secret {n}")) for n in range(120)]
        events = await submit(house, together(house, edits, "edit", native=False))
        assert (await on_matrix(house, events[-1]))["m.new_content"]["body"] == "secret 119"
        await house.says(Retraction(target=said.id))
        for event in (said, *events):
            assert await on_matrix(house, event) == {}


@pytest.mark.parametrize("before", [True, False], ids=["said before", "said in the same turn"])
async def test_a_message_its_edit_and_its_retraction_in_one_turn_leave_no_words_in_matrix(tmp_path, before):
    async with linked(tmp_path) as house:
        contents: list[Content] = [
            Message(text="secret"),
            Edit(target="talk-0", message=Message(text="more secret")),
            Retraction(target="talk-0"),
        ]
        items = together(house, contents, "talk")
        events = await submit(house, items[:1]) if before else []
        events += await submit(house, items[1:] if before else items)
        assert await on_matrix(house, events[0]) == {}
        assert await on_matrix(house, events[1]) == {}


async def test_what_concerns_a_message_of_the_same_turn_names_it_in_matrix(tmp_path):
    async with linked(tmp_path) as house:
        contents: list[Content] = [
            Message(text="one"),
            Reaction(target="talk-0", key="+1"),
            Message(text="two", reply_to="talk-0"),
        ]
        said, reaction, reply = await submit(house, together(house, contents, "talk"))
        native = await house.ctx.native_id(said)
        assert (await on_matrix(house, reaction))["m.relates_to"]["event_id"] == native
        assert (await on_matrix(house, reply))["m.relates_to"]["m.in_reply_to"]["event_id"] == native
        assert [one.seq for one in (said, reaction, reply)] == sorted([said.seq, reaction.seq, reply.seq])
