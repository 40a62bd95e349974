"""Edits, reactions, replies and redactions between a Matrix room and another network, in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
from hansa import (
    Attachment,
    Content,
    Custom,
    Edit,
    Event,
    HistoryVisibility,
    JoinRule,
    Kind,
    Location,
    Member,
    Membership,
    Message,
    NativeId,
    PollAnswer,
    PollEnd,
    PollStart,
    PollVote,
    Reaction,
    RefusalCode,
    Retraction,
    Role,
    Standing,
)
from hansa.model.content import REDACTED
from hansa.testing.actor import Actor, Config, module
from hansa_matrix.proto.auth_rules.state_keys import POWER_LEVELS_KEY
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw
from hansa_matrix.proto.room_versions import VERSIONS
from hansa_matrix.texts import texts_of_event
from matrix.server_with_peer import THEIRS, V1, ServerWithPeer, server_with_peer

MAY = f"@m:{THEIRS}"


class House:
    """A room of Matrix that is linked to a room of a scripted network, on ``stage``."""

    def __init__(self, house: ServerWithPeer, stage: Actor) -> None:
        self.peer, self.stage = house, stage
        self.ctx = house.app.contexts["matrix"]

    async def hears(self, type_: str, content: dict[str, Any], **over: Any) -> str:
        """An event of the other server's user arrives; its id."""
        room = self.peer.room
        raw = self.peer.forger.finish(room, self.peer.forger.draft(room, type_, content, **over))
        assert await self.peer.fate(raw) == "accepted"
        room.keep(pdu_from_raw(raw, room.version))
        return event_id(raw, room.version)

    async def core(self, native: str) -> Event:
        event = await self.ctx.event_by(native)
        assert event is not None
        return event

    async def shown(self, count: int) -> list[Content]:
        """What the other network is shown, once it is so much, without who came and went."""

        def said(shown: list[Content]) -> list[Content]:
            return [one for one in shown if not isinstance(one, Member)]

        return said(await self.stage.until_shown("lobby", lambda shown: len(said(shown)) >= count))

    async def says(self, content: Content) -> tuple[Event, dict[str, Any]]:
        """Juliet, of the scripted network, says something; the event, and what other servers get of it."""
        result = await self.stage.do("lobby", "juliet@x", content)
        assert result.event is not None, result.refusal
        native = await self.ctx.native_id(result.event)
        assert native is not None
        return result.event, await self.pdu(native)

    async def levels(self) -> dict[str, Any]:
        """The content of the room's power levels."""
        room = self.peer.matrix.get_room(self.peer.room.room_id)
        assert room is not None
        found = await room.events_of(await room.state(), [POWER_LEVELS_KEY])
        return dict(found[POWER_LEVELS_KEY].content)

    async def pdu(self, native: str) -> dict[str, Any]:
        status, answer = await self.peer.ask("GET", f"{V1}/event/{quote(native, safe='')}")
        assert status == 200, answer
        return answer["pdus"][0]


@asynccontextmanager
async def linked(tmp_path: Any, version: str = "12") -> AsyncIterator[House]:
    made: dict[str, Actor] = {}
    beside = {"stage": (module(made), Config())}
    async with server_with_peer(tmp_path, version, beside=beside, linked=["stage:lobby"]) as house:
        yield House(house, made["stage"])


def text(body: str, **more: Any) -> dict[str, Any]:
    return {"msgtype": "m.text", "body": body, **more}


def edit_of(target: str, new: dict[str, Any]) -> dict[str, Any]:
    return {
        "msgtype": "m.text",
        "body": f"* {new['body']}",
        "m.new_content": new,
        "m.relates_to": {"rel_type": "m.replace", "event_id": target},
    }


def reaction_to(target: str, key: str) -> dict[str, Any]:
    return {"m.relates_to": {"rel_type": "m.annotation", "event_id": target, "key": key}}


async def redact(house: House, target: str, reason: str = "") -> str:
    inside = house.peer.room.version.redacts_in_content
    content = {"reason": reason} if reason else {}
    if inside:
        return await house.hears("m.room.redaction", {**content, "redacts": target})
    return await house.hears("m.room.redaction", content, redacts=target)


async def test_an_edit_a_reaction_and_a_reply_come_as_what_they_are(tmp_path):
    async with linked(tmp_path) as house:
        first = await house.hears("m.room.message", text("helo"))
        await house.hears("m.room.message", edit_of(first, text("hello")))
        await house.hears("m.reaction", reaction_to(first, "👍"))
        await house.hears(
            "m.room.message",
            text(
                f"> <{MAY}> hello\n> there\n\nhi",
                format="org.matrix.custom.html",
                formatted_body="<mx-reply><blockquote>hello</blockquote></mx-reply><b>hi</b>",
                **{"m.relates_to": {"m.in_reply_to": {"event_id": first}}},
            ),
        )
        answer = {"m.in_reply_to": {"event_id": first}}
        await house.hears("m.room.message", text(f"> <{MAY}> hello\n\nplain", **{"m.relates_to": answer}))
        target = (await house.core(first)).id
        edit, reaction, reply, plain = (await house.shown(5))[-4:]
        assert plain == Message(text="plain", reply_to=target)
        assert edit == Edit(target=target, message=Message(text="hello"))
        assert reaction == Reaction(target=target, key="👍")
        assert isinstance(reply, Message)
        assert (reply.text, reply.reply_to, [s.kind.value for s in reply.spans]) == ("hi", target, ["bold"])


@pytest.mark.parametrize("version", ["10", "11", "12"])
async def test_a_redaction_takes_back_and_names_what(tmp_path, version):
    async with linked(tmp_path, version) as house:
        first = await house.hears("m.room.message", text("secret"))
        mark = await house.hears("m.reaction", reaction_to(first, "x"))
        target, marked = (await house.core(first)).id, (await house.core(mark)).id
        await redact(house, mark)
        await redact(house, first, "oops")
        shown = await house.shown(4)
        assert shown[-2:] == [
            Retraction(target=marked, of=Kind.REACTION, of_target=target),
            Retraction(target=target, reason="oops", of=Kind.MESSAGE),
        ]
        assert (await house.core(first)).content == Custom(type=REDACTED)


async def test_a_redaction_names_its_target_where_the_rooms_version_has_it(tmp_path):
    """Another field would let a sender take back what they may not."""
    async with linked(tmp_path, "11") as house:
        said, _ = await house.says(Message(text="mine"))
        native = await house.ctx.native_id(said)
        own = await house.hears("m.room.message", text("theirs"))
        await house.hears("m.room.redaction", {"redacts": own}, redacts=native)
        assert (await house.core(native)).content == Message(text="mine")
        assert (await house.core(own)).content == Custom(type=REDACTED)


async def test_what_concerns_an_unknown_event_brings_no_words(tmp_path):
    async with linked(tmp_path) as house:
        unknown = "$" + "a" * 43
        edit = await house.hears("m.room.message", edit_of(unknown, text("secret")))
        mark = await house.hears("m.reaction", reaction_to(unknown, "x"))
        reply = await house.hears(
            "m.room.message", text("hi", **{"m.relates_to": {"m.in_reply_to": {"event_id": unknown}}})
        )
        assert (await house.core(edit)).content == Custom(type="edit")
        assert (await house.core(mark)).content == Custom(type="reaction")
        assert (await house.core(reply)).content == Message(text="hi")


async def test_a_thread_names_its_root_and_answers_only_who_is_answered(tmp_path):
    async with linked(tmp_path) as house:
        root = await house.hears("m.room.message", text("root"))
        inside = {"rel_type": "m.thread", "event_id": root, "m.in_reply_to": {"event_id": root}}
        await house.hears(
            "m.room.message", text("one", **{"m.relates_to": {**inside, "is_falling_back": True}})
        )
        await house.hears("m.room.message", text("two", **{"m.relates_to": inside}))
        target = (await house.core(root)).id
        assert (await house.shown(3))[-2:] == [
            Message(text="one", thread=target),
            Message(text="two", thread=target, reply_to=target),
        ]


async def test_people_of_another_network_edit_react_reply_and_retract_in_matrix(tmp_path):
    async with linked(tmp_path) as house:
        theirs = await house.hears("m.room.message", text("question"))
        target = (await house.core(theirs)).id
        said, pdu = await house.says(Message(text="helo", reply_to=target))
        native = await house.ctx.native_id(said)
        assert pdu["content"] == text(
            "helo",
            **{"m.relates_to": {"m.in_reply_to": {"event_id": theirs}}, "m.mentions": {"user_ids": [MAY]}},
        )
        _, pdu = await house.says(Edit(target=said.id, message=Message(text="hello")))
        assert pdu["content"] == edit_of(native, text("hello"))
        mark, pdu = await house.says(Reaction(target=target, key="👍"))
        assert (pdu["type"], pdu["content"]) == ("m.reaction", reaction_to(theirs, "👍"))
        marked = await house.ctx.native_id(mark)
        _, pdu = await house.says(Retraction(target=mark.id))
        assert (pdu["type"], pdu["content"]) == ("m.room.redaction", {"redacts": marked})
        assert (await house.pdu(marked))["content"] == {}
        _, pdu = await house.says(Retraction(target=said.id, reason="oops"))
        assert pdu["content"] == {"redacts": native, "reason": "oops"}
        assert (await house.pdu(native))["content"] == {}
        assert (await house.core(native)).content == Custom(type=REDACTED)


async def test_threads_and_mentions_reach_matrix(tmp_path):
    async with linked(tmp_path) as house:
        root = await house.hears("m.room.message", text("root"))
        target = (await house.core(root)).id
        _, pdu = await house.says(Message(text="one", thread=target, mentions=(NativeId("matrix", MAY),)))
        assert pdu["content"] == text(
            "one",
            **{
                "m.mentions": {"user_ids": [MAY]},
                "m.relates_to": {
                    "rel_type": "m.thread",
                    "event_id": root,
                    "m.in_reply_to": {"event_id": root},
                    "is_falling_back": True,
                },
            },
        )


async def test_nobody_takes_back_what_others_said_without_the_level(tmp_path):
    async with linked(tmp_path) as house:
        theirs = await house.hears("m.room.message", text("theirs"))
        target = (await house.core(theirs)).id
        result = await house.stage.do("lobby", "juliet@x", Retraction(target=target))
        assert result.refusal is not None and result.refusal.code is RefusalCode.FORBIDDEN
        assert (await house.core(theirs)).content == Message(text="theirs")


@pytest.mark.parametrize(
    "content",
    [
        Standing(user=NativeId("stage", "juliet@x"), role=Role.OWNER),
        Standing(user=NativeId("matrix", MAY), role=Role.VISITOR, voice=False),
        JoinRule(rule="invite"),
        HistoryVisibility(visibility="joined"),
    ],
)
async def test_what_a_person_has_no_rank_for_is_refused_by_the_rules_of_the_room(tmp_path, content):
    async with linked(tmp_path) as house:
        await house.says(Message(text="here"))
        before = await house.levels()
        result = await house.stage.do("lobby", "juliet@x", content)
        assert result.refusal is not None and result.refusal.code is RefusalCode.FORBIDDEN
        assert await house.levels() == before


@pytest.mark.parametrize("version", ["11", "12"])
async def test_a_person_of_another_network_with_the_rank_gives_and_takes_ranks(tmp_path, version):
    async with linked(tmp_path, version) as house:
        await house.says(Message(text="here"))
        juliet = await house.ctx.get_ghost_id(NativeId("stage", "juliet@x"))
        before, romeo = await house.levels(), NativeId("stage", "romeo@x")
        users = {**before.get("users", {}), juliet: 100}
        events, room_id = house.peer.matrix.local_events, house.peer.room.room_id
        levels = {**before, "users": users, "events": {"m.room.power_levels": 100}}
        await events.send_state(room_id, "m.room.power_levels", "", levels)
        ghost = await house.ctx.get_ghost_id(romeo)
        for content, level in (
            (Standing(user=romeo, role=Role.MODERATOR), 50),
            (Standing(user=romeo, role=Role.VISITOR, voice=False), -1),
            (Standing(user=romeo, role=Role.MEMBER), None),
            (Standing(user=romeo, role=Role.MEMBER, voice=False), -1),
            (Standing(user=romeo, role=Role.OWNER), 100),
        ):
            event, pdu = await house.says(content)
            assert event.content == content and pdu["sender"] == juliet
            kept = await house.levels()
            assert kept["users"].get(ghost) == level, content
            assert {**kept, "users": None} == {**levels, "users": None}
            assert {user: n for user, n in kept["users"].items() if user != ghost} == users
        # Romeo has as many now: who has not more takes nothing back.
        result = await house.stage.do("lobby", "juliet@x", Standing(user=romeo, role=Role.MEMBER))
        assert result.refusal is not None and result.refusal.code is RefusalCode.FORBIDDEN
        mute = Standing(user=romeo, role=Role.OWNER, voice=False)
        result = await house.stage.do("lobby", "juliet@x", mute)
        assert result.refusal is not None and result.refusal.code is RefusalCode.UNSUPPORTED
        _, pdu = await house.says(JoinRule(rule="invite"))
        assert (pdu["type"], pdu["content"]) == ("m.room.join_rules", {"join_rule": "invite"})
        _, pdu = await house.says(HistoryVisibility(visibility="joined"))
        assert pdu["content"] == {"history_visibility": "joined"}
        for odd in (JoinRule(rule="restricted"), JoinRule(rule="odd"), HistoryVisibility(visibility="odd")):
            result = await house.stage.do("lobby", "juliet@x", odd)
            assert result.refusal is not None and result.refusal.code is RefusalCode.UNSUPPORTED


async def test_ranks_that_two_people_give_at_once_are_both_kept(tmp_path):
    async with linked(tmp_path) as house:
        await house.says(Message(text="here"))
        juliet = await house.ctx.get_ghost_id(NativeId("stage", "juliet@x"))
        before = await house.levels()
        levels = {**before, "users": {**before.get("users", {}), juliet: 100}}
        await house.peer.matrix.local_events.send_state(
            house.peer.room.room_id, "m.room.power_levels", "", levels
        )
        people = [NativeId("stage", f"p{n}@x") for n in range(5)]
        made = await asyncio.gather(
            *(house.stage.do("lobby", "juliet@x", Standing(user=p, role=Role.MODERATOR)) for p in people)
        )
        assert [one.refusal for one in made] == [None] * 5
        users = (await house.levels())["users"]
        assert [users.get(await house.ctx.get_ghost_id(p)) for p in people] == [50] * 5


async def test_a_poll_and_a_place_cross_both_ways(tmp_path):
    async with linked(tmp_path) as house:
        poll = {
            "question": {"org.matrix.msc1767.text": "tea?"},
            "kind": "org.matrix.msc3381.poll.disclosed",
            "max_selections": 1,
            "answers": [
                {"id": "y", "org.matrix.msc1767.text": "yes"},
                {"id": "n", "org.matrix.msc1767.text": "no"},
            ],
        }
        start = await house.hears("org.matrix.msc3381.poll.start", {"org.matrix.msc3381.poll.start": poll})
        about = {"m.relates_to": {"rel_type": "m.reference", "event_id": start}}
        await house.hears(
            "org.matrix.msc3381.poll.response",
            {**about, "org.matrix.msc3381.poll.response": {"answers": ["y"]}},
        )
        await house.hears("m.poll.end", {**about, "m.text": [{"body": "yes: 1"}]})
        await house.hears("m.room.message", {"msgtype": "m.location", "body": "here", "geo_uri": "geo:1,2"})
        target = (await house.core(start)).id
        asked = PollStart(
            question="tea?", answers=(PollAnswer(id="y", text="yes"), PollAnswer(id="n", text="no"))
        )
        assert await house.shown(4) == [
            asked,
            PollVote(target=target, answers=("y",)),
            PollEnd(target=target, text="yes: 1"),
            Location(text="here", uri="geo:1,2"),
        ]
        ours, pdu = await house.says(asked)
        assert pdu["type"] == "org.matrix.msc3381.poll.start"
        assert pdu["content"]["org.matrix.msc3381.poll.start"] == poll
        native = await house.ctx.native_id(ours)
        _, pdu = await house.says(PollVote(target=ours.id, answers=("n",)))
        assert pdu["content"] == {
            "m.relates_to": {"rel_type": "m.reference", "event_id": native},
            "org.matrix.msc3381.poll.response": {"answers": ["n"]},
        }
        _, pdu = await house.says(Location(text="there", uri="geo:3,4"))
        assert pdu["content"] == {"msgtype": "m.location", "body": "there", "geo_uri": "geo:3,4"}


async def test_a_file_comes_with_its_caption_and_goes_under_a_name_here(tmp_path):
    async with linked(tmp_path) as house:
        mxc = f"mxc://{THEIRS}/abc"
        info = {
            "mimetype": "image/png",
            "size": 120,
            "w": 3,
            "h": 4,
            "thumbnail_url": f"mxc://{THEIRS}/small",
        }
        sent = {
            "msgtype": "m.image",
            "body": "our balcony",
            "filename": "balcony.png",
            "url": mxc,
            "info": info,
        }
        await house.hears("m.room.message", sent)
        await house.hears(
            "m.room.message", {"msgtype": "m.file", "body": "a.pdf", "url": "https://x.example/"}
        )
        voice = {"mimetype": "audio/ogg", "duration": 1500}
        await house.hears(
            "m.room.message",
            {
                "msgtype": "m.audio",
                "body": "v.ogg",
                "url": mxc,
                "info": voice,
                "org.matrix.msc3245.voice": {},
            },
        )
        await house.hears("m.sticker", {"body": "wave", "url": mxc, "info": {"mimetype": "image/webp"}})
        picture = Attachment(
            name="balcony.png",
            media_type="image/png",
            size=120,
            width=3,
            height=4,
            source=NativeId("matrix", mxc),
            thumbnail=NativeId("matrix", f"mxc://{THEIRS}/small"),
        )
        source = NativeId("matrix", mxc)
        assert await house.shown(4) == [
            Message(text="our balcony", attachments=(picture,)),
            Message(text="", attachments=(Attachment(name="a.pdf"),)),
            Message(
                text="",
                attachments=(
                    Attachment(
                        name="v.ogg", media_type="audio/ogg", duration=1500, source=source, voice=True
                    ),
                ),
            ),
            Message(text="", attachments=(Attachment(name="wave", media_type="image/webp", source=source),)),
        ]
        _, pdu = await house.says(Message(text="our balcony", attachments=(picture,)))
        assert pdu["content"] == sent
        kept = Attachment(name="b.mp4", media_type="video/mp4", source=NativeId("media", "x" * 32), size=9)
        _, pdu = await house.says(Message(text="", attachments=(kept, picture)))
        ours = house.peer.matrix.views.ids.uri_of(kept.source)
        assert ours.startswith("mxc://") and pdu["content"] == {
            "msgtype": "m.video",
            "body": "b.mp4",
            "filename": "b.mp4",
            "url": ours,
            "info": {"mimetype": "video/mp4", "size": 9},
        }
        nowhere = Attachment(name="c.zip", size=5000)
        _, pdu = await house.says(Message(text="see", attachments=(nowhere,)))
        assert pdu["content"] == text("see\n[file c.zip, 5 KB]")


async def test_people_and_rooms_have_their_pictures(tmp_path):
    async with linked(tmp_path) as house:
        mxc = f"mxc://{THEIRS}/face"
        source = NativeId("matrix", mxc)
        member = {"membership": "join", "displayname": "May", "avatar_url": mxc}
        room = house.peer.room
        await house.hears("m.room.member", member, state_key=MAY)
        view = house.ctx.get_view(room.room_id)
        assert view is not None
        person = view.person(NativeId("matrix", MAY))
        assert person is not None and (person.avatar, person.voice, person.name) == (source, True, "May")
        _, pdu = await house.says(
            Member(
                user=NativeId("stage", "juliet@x"),
                membership=Membership.JOIN,
                name="Juliet",
                avatar=NativeId("media", "y" * 32),
            )
        )
        uri = house.peer.matrix.views.ids.uri_of(NativeId("media", "y" * 32))
        assert pdu["content"] == {"membership": "join", "displayname": "Juliet", "avatar_url": uri}


async def test_the_facts_of_a_room_follow_its_state(tmp_path):
    async with linked(tmp_path) as house:
        room, events = house.peer.room, house.peer.matrix.local_events
        mxc = f"mxc://{THEIRS}/room"

        async def sends(type_: str, content: dict[str, Any]) -> None:
            await events.send_state(room.room_id, type_, "", content)

        view = house.ctx.get_view(room.room_id)
        assert view is not None
        assert (view.facts.moderated, view.facts.successor) == (False, None)
        levels = await house.levels()
        await sends("m.room.power_levels", {**levels, "events_default": 10})
        await sends("m.room.avatar", {"url": mxc})
        await sends("m.room.history_visibility", {"history_visibility": "joined"})
        await sends("m.room.join_rules", {"join_rule": "knock"})
        facts = view.facts
        assert facts.moderated and facts.avatar == NativeId("matrix", mxc)
        assert (facts.history_visibility, facts.join_rule) == ("joined", "knock")
        person = view.person(NativeId("matrix", MAY))
        assert person is not None and (person.voice, person.role) == (False, Role.VISITOR)
        await sends("m.room.tombstone", {"body": "moved", "replacement_room": "!new:a.example"})
        assert view.facts.successor == NativeId("matrix", "!new:a.example")


async def test_a_new_rank_of_one_person_is_told_and_that_of_several_is_in_the_view(tmp_path):
    async with linked(tmp_path) as house:
        room, events = house.peer.room, house.peer.matrix.local_events
        may, other = NativeId("matrix", MAY), f"@other:{THEIRS}"

        async def gives(**users: int) -> None:
            levels = await house.levels()
            new = {**levels, "users": {**levels.get("users", {}), MAY: users["may"], other: users["other"]}}
            await events.send_state(room.room_id, "m.room.power_levels", "", new)

        await gives(may=50, other=0)
        await gives(may=51, other=1)
        await gives(may=-1, other=1)
        await gives(may=50, other=50)
        assert await house.shown(4) == [
            Standing(user=may, role=Role.MODERATOR),
            Custom(type="m.room.power_levels"),
            Standing(user=may, role=Role.VISITOR, voice=False),
            Custom(type="m.room.power_levels"),
        ]
        view = house.ctx.get_view(room.room_id)
        assert view is not None
        person = view.person(may)
        assert person is not None and (person.role, person.voice) == (Role.MODERATOR, True)


async def test_the_edits_of_a_retracted_message_lose_their_words_in_matrix_too(tmp_path):
    async with linked(tmp_path) as house:
        said, pdu = await house.says(Message(text="secret"))
        edit, pdu = await house.says(Edit(target=said.id, message=Message(text="more secret")))
        native = await house.ctx.native_id(edit)
        assert native is not None and pdu["content"]["m.new_content"]["body"] == "more secret"
        await house.says(Retraction(target=said.id))
        assert (await house.pdu(native))["content"] == {}


async def test_nobody_edits_what_others_said(tmp_path):
    async with linked(tmp_path) as house:
        said, _ = await house.says(Message(text="mine"))
        native = await house.ctx.native_id(said)
        assert native is not None
        forged = await house.hears("m.room.message", edit_of(native, text("yours")))
        assert (await house.core(forged)).content == Custom(type="edit")
        assert [one.kind for one in await house.shown(1)] == [Kind.CUSTOM]


@pytest.mark.parametrize(
    "content",
    [
        edit_of("$" + "a" * 43, text("a secret")),
        reaction_to("$" + "a" * 43, "a secret"),
        {"msgtype": "m.image", "body": "a secret", "filename": "x.png", "url": "mxc://a.example/b"},
        {"msgtype": "m.image", "body": "x", "filename": "a secret", "url": "mxc://a.example/b"},
        {
            "m.poll": {
                "question": {"m.text": [{"body": "?"}]},
                "answers": [{"m.id": "y", "m.text": "a secret"}],
            }
        },
        {
            "org.matrix.msc3381.poll.start": {
                "question": {"org.matrix.msc1767.text": "a secret"},
                "answers": [],
            }
        },
        {"redacts": "$" + "a" * 43, "reason": "a secret"},
        {
            "m.relates_to": {"rel_type": "m.reference"},
            "org.matrix.msc3381.poll.response": {"answers": ["a secret"]},
        },
    ],
)
def test_policies_read_every_word_of_it(content):
    assert "a secret" in texts_of_event("m.room.message", None, content)


async def test_what_concerns_an_event_from_before_the_link_is_told_in_words(tmp_path):
    async with linked(tmp_path) as house:
        app, stage = house.peer.app, house.stage
        await app.link_room(["stage:den"], create=True)
        await stage.join("den", "juliet@x", "Juliet")
        old = await stage.say("den", "juliet@x", "before")
        gone = await stage.say("den", "juliet@x", "a secret")
        assert old.event is not None and gone.event is not None
        await app.link_room(["stage:den", "matrix:#den"], create=True)

        async def body(content: Content) -> str:
            result = await stage.do("den", "juliet@x", content)
            assert result.event is not None, result.refusal
            native = await house.ctx.native_id(result.event)
            pdu = (await house.peer.matrix.event_store.load([native or ""], VERSIONS["12"]))[native or ""].pdu
            assert pdu.type == "m.room.message" and "m.relates_to" not in pdu.content
            return str(pdu.content["body"])

        target = old.event.id
        assert await body(Edit(target=target, message=Message(text="after"))) == "edited: after"
        assert await body(Reaction(target=target, key="x")) == "[reacted with x to “before”]"
        assert await body(Message(text="so", reply_to=target)) == "> Juliet: before\nso"
        result = await stage.do("den", "juliet@x", Retraction(target=gone.event.id))
        assert result.event is not None and await house.ctx.native_id(result.event) is None
        kept = await stage.ctx.event_with_id("den", gone.event.id)
        assert kept is not None and kept.content == Custom(type=REDACTED)
