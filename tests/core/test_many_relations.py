"""A message that much concerns: its retraction takes all of its edits with it."""

from __future__ import annotations

from typing import Any

from hansa import (
    Custom,
    Edit,
    Event,
    Kind,
    Message,
    NativeId,
    Reaction,
    RefusalCode,
    Retraction,
    Submission,
    SubmitResult,
)
from hansa.model.content import REDACTED
from hansa.testing import run_hansa
from hansa.testing.actor import Actor, Config, module

ROOM = (("left:a", "right:b"),)


def networks(made: dict[str, Actor]) -> dict[str, Any]:
    return dict.fromkeys(("left", "right"), (module(made), Config()))


def event_of(result: SubmitResult) -> Event:
    assert result.event is not None, result.refusal
    return result.event


async def submit_all(actor: Actor, contents: list[Any], user: str, name: str) -> None:
    for at in range(0, len(contents), 50):
        items = [
            Submission(
                origin=NativeId(actor.ctx.id, f"{name}-{at + number}"),
                room=NativeId(actor.ctx.id, "a"),
                sender=NativeId(actor.ctx.id, user),
                content=content,
                ts=1,
            )
            for number, content in enumerate(contents[at : at + 50])
        ]
        for result in await actor.ctx.submit(items):
            event_of(result)


async def test_reactions_of_others_do_not_keep_the_words_of_an_edit_from_being_retracted():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        left = made["left"]
        said = event_of(await left.say("a", "ann@x", "one"))
        marks = [Reaction(target=said.id, key=str(number)) for number in range(1010)]
        await submit_all(left, marks, "eve@x", "mark")
        edit = event_of(await left.do("a", "ann@x", Edit(target=said.id, message=Message(text="secret"))))
        assert [one.id async for one in left.ctx.related(said, Kind.EDIT)] == [edit.id]
        event_of(await left.do("a", "ann@x", Retraction(target=said.id)))
        kept = await left.ctx.event_with_id("a", edit.id)
        assert kept is not None and kept.content == Custom(type=REDACTED)
        assert b"secret" not in b"".join(row.body for row in await app.core.scan("event", limit=10_000))


async def test_all_edits_of_a_message_are_retracted_with_it_and_there_are_a_thousand_at_most():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        left = made["left"]
        said = event_of(await left.say("a", "ann@x", "one"))
        edits = [Edit(target=said.id, message=Message(text=f"secret {n}")) for n in range(1000)]
        await submit_all(left, edits, "ann@x", "edit")
        more = await left.do("a", "ann@x", Edit(target=said.id, message=Message(text="secret too")))
        assert more.refusal is not None and more.refusal.code is RefusalCode.TOO_LARGE
        other = event_of(await left.say("a", "ann@x", "two"))
        event_of(await left.do("a", "ann@x", Edit(target=other.id, message=Message(text="three"))))
        event_of(await left.do("a", "ann@x", Retraction(target=said.id)))
        assert b"secret" not in b"".join(row.body for row in await app.core.scan("event", limit=10_000))


async def test_edits_of_an_old_message_are_counted_as_they_come():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        left = made["left"]
        said = event_of(await left.say("a", "ann@x", "one"))
        await submit_all(left, [Reaction(target=said.id, key=f"{n}") for n in range(1000)], "eve@x", "mark")
        edits = [Edit(target=said.id, message=Message(text=f"{n}")) for n in range(1000)]
        await submit_all(left, edits, "ann@x", "edit")
        more = await left.do("a", "ann@x", Edit(target=said.id, message=Message(text="more")))
        assert more.refusal is not None and more.refusal.code is RefusalCode.TOO_LARGE


async def test_who_reacts_and_takes_it_back_again_and_again_hides_nobody_elses_reaction():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        left = made["left"]
        said = event_of(await left.say("a", "ann@x", "one"))
        for number in range(3):
            mark = event_of(await left.do("a", "eve@x", Reaction(target=said.id, key=str(number))))
            event_of(await left.do("a", "eve@x", Retraction(target=mark.id)))
        rows = await app.core.scan("relation", equal=(said.room, said.seq))
        assert all(row.key[2] != Kind.REACTION.value for row in rows)
        kept = event_of(await left.do("a", "bob@x", Reaction(target=said.id, key="x")))
        assert [one.id async for one in left.ctx.related(said, Kind.REACTION)] == [kept.id]


async def test_a_persons_reaction_is_found_among_thousands_of_others():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM):
        left = made["left"]
        said = event_of(await left.say("a", "ann@x", "one"))
        await submit_all(left, [Reaction(target=said.id, key=f"{n}") for n in range(1100)], "eve@x", "mark")
        mine = event_of(await left.do("a", "bob@x", Reaction(target=said.id, key="mine")))
        bob = NativeId("left", "bob@x")
        assert [one.id async for one in left.ctx.related(said, Kind.REACTION, bob)] == [mine.id]
        event_of(await left.do("a", "bob@x", Retraction(target=mine.id)))
        assert [one async for one in left.ctx.related(said, Kind.REACTION, bob)] == []


async def test_a_few_of_many_related_events_are_in_memory_at_a_time(monkeypatch):
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        left = made["left"]
        said = event_of(await left.say("a", "ann@x", "one"))
        edits = [Edit(target=said.id, message=Message(text=f"{n}")) for n in range(200)]
        await submit_all(left, edits, "ann@x", "edit")
        texts = [one.content.message.text async for one in left.ctx.related(said, Kind.EDIT)]
        assert texts == [f"{n}" for n in range(200)]
        read, get_many = list[int](), app.core.get_many

        async def counted(collection, keys):
            read.append(len(keys))
            return await get_many(collection, keys)

        monkeypatch.setattr(app.core, "get_many", counted)
        async for newest in left.ctx.related(said, Kind.EDIT, newest_first=True):
            assert newest.content.message.text == "199"
            break
        assert read == [50]
