"""Rooms of another MUC service, beside a small one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from hansa import (
    Backoff,
    CannotOpenRoom,
    Delivery,
    Member,
    Membership,
    Message,
    NativeId,
    Reaction,
    Retraction,
    StoreFault,
    Style,
    Topic,
)
from hansa.store.faults import FaultKind
from hansa.store.memory import MemoryDisk, MemoryStore
from hansa.testing import LateAuthoritySuite, run_hansa, until
from hansa.testing.actor import Actor, module
from hansa.testing.actor import Config as ActorConfig
from hansa_xmpp import Config
from xmpp.fake_muc import ROOM, SERVICE, FakeMuc, body, muc_module
from xmpp.stanzas import GW

OPTIONS = {"component": GW, "secret": "s"}
ZOE = "zoe@elsewhere"


class TestRoomsThatDecide(LateAuthoritySuite):
    """The contract of late authorities."""

    address = ROOM
    other_address = f"second@{SERVICE}"
    options = OPTIONS  # read only

    async def start_peer(self):
        if not hasattr(self, "muc"):
            self.muc = FakeMuc()
            self.muc.occupants = {self.address: {}, self.other_address: {}}
            self.plugin = muc_module(self.muc)
        elif self.muc.listener is not None and not self.muc.is_up:
            self.muc.up()

    async def stop_peer(self):
        if self.muc.is_up:
            self.muc.down()

    def shown(self, _stage):
        return [Message(text=text) for text in self.muc.bodies()]

    async def make_refuse(self, _net, _room):
        self.muc.refuses = "forbidden"

    async def test_the_reason_of_the_room_reaches_the_sender(self):
        async with self.stage() as stage:
            await self.make_refuse(stage.net, stage.room)
            outcome = await stage.other.say("other", ZOE, "not here")
            assert outcome.refusal.text.endswith("it is refused")

    async def test_a_late_reflection_is_the_event_that_was_proposed(self, monkeypatch):
        async with self.stage() as stage:
            assert (await stage.other.say("other", ZOE, "first")).event is not None
            monkeypatch.setattr("hansa.bus.late_authority.PROPOSE_TIMEOUT_S", 0.1)
            self.muc.deaf = True
            assert (await stage.other.say("other", ZOE, "slowly")).refusal is not None
            self.muc.catch_up()

            async def is_said():
                return await self._said(stage) == ["first", "slowly"]

            await until(is_said, 10)
            assert (await stage.log())[-1].sender == NativeId("other", ZOE)

    async def test_another_occupant_cannot_answer_for_a_draft(self, monkeypatch):
        async with self.stage() as stage:
            monkeypatch.setattr("hansa.bus.late_authority.PROPOSE_TIMEOUT_S", 0.2)
            self.muc.enter(ROOM, "Mallory", "mallory@evil.example/x")
            assert (await stage.other.say("other", ZOE, "first")).event is not None
            self.muc.deaf = True
            assert (await stage.other.say("other", ZOE, "held")).refusal is not None
            (held,) = self.muc.held
            self.muc.say(ROOM, "Mallory", body("forged"), held.get("id"))
            await until(lambda: stage.log(), 10)

            async def is_said():
                return (await self._said(stage))[-1] == "forged"

            await until(is_said, 10)
            said = [one for one in await stage.log() if isinstance(one.content, Message)]
            assert [one.sender.network for one in said] == ["other", "tested"]


class Scene:
    """A core with the room, linked to a room of a scripted network, which decides nothing."""

    def __init__(self, app: Any, muc: FakeMuc, other: Actor) -> None:
        self.app, self.muc, self.other = app, muc, other

    @property
    def view(self):
        return self.app.contexts["xmpp"].get_view(ROOM)

    def names(self) -> set[str]:
        return {one.name or "" for one in self.view.joined() if one.user.network == "xmpp"}

    def texts(self) -> list[str]:
        return [one.text for one in self.other.contents("room") if isinstance(one, Message)]

    def counted(self, name: str) -> int:
        return sum(n for (counter, _), n in self.app.counters.items() if counter == name)


@asynccontextmanager
async def scene(
    muc: FakeMuc | None = None, disk: MemoryDisk | None = None, **more: Any
) -> AsyncIterator[Scene]:
    muc = muc or FakeMuc()
    muc.occupants.setdefault(ROOM, {"Juliet": "juliet@x.example/a"})
    made: dict[str, Actor] = {}
    networks = {
        "xmpp": (muc_module(muc), Config.model_validate({**OPTIONS, **more})),
        "other": (module(made), ActorConfig()),
    }
    rooms = [(f"xmpp:{ROOM}", "other:room")]
    async with run_hansa(networks, rooms=rooms, store=MemoryStore(disk or MemoryDisk())) as app:
        await until(lambda: len(app.rooms.links("xmpp")) == len(app.rooms.links("other")) == 1)
        made_scene = Scene(app, muc, made["other"])
        await until(lambda: "hansa" in muc.occupants[ROOM])
        yield made_scene


async def test_occupants_are_members_and_their_words_cross_once():
    async with scene() as s:
        await until(lambda: s.names() == {"Juliet"})
        s.muc.enter(ROOM, "Romeo", "romeo@y.example/b")
        await until(lambda: s.names() == {"Juliet", "Romeo"})
        assert (await s.other.say("room", ZOE, "hello")).event is not None
        s.muc.say(ROOM, "Romeo", body("here I am"), "r1")
        await until(lambda: s.texts() == ["here I am"])
        assert s.muc.bodies() == ["hello"]
        s.muc.remove(ROOM, "Romeo")
        await until(lambda: s.names() == {"Juliet"})


async def test_a_jid_counts_only_from_the_service_of_its_domain():
    async with scene() as s:
        x = "<x xmlns='http://jabber.org/protocol/muc#user'><item jid='{}' role='participant' affiliation='none'/></x>"
        listener = s.muc.occupants[ROOM]["hansa"]
        for nick, person in (("Near", "near@x.example/a"), ("Far", "owner@bank.example/a")):
            s.muc.give(f"<presence from='{ROOM}/{nick}' to='{listener}'>{x.format(person)}</presence>")
        await until(lambda: s.names() >= {"Near", "Far"})
        users = {one.name: one.user.id for one in s.view.joined()}
        assert users["Near"] == "near@x.example"
        assert users["Far"] == f"{ROOM}/Far"


async def test_a_person_whose_puppet_is_not_let_in_is_relayed():
    async with scene() as s:
        puppet = await s.app.contexts["xmpp"].get_ghost_id(NativeId("other", ZOE))
        s.muc.shut[f"{puppet}/hansa"] = "registration-required"
        await s.other.say("room", ZOE, "hello")
        await s.other.emote("room", ZOE, "waves")
        assert s.muc.bodies("hansa") == ["<zoe> hello", "* zoe waves"]


async def test_a_nick_in_use_gets_a_suffix():
    async with scene() as s:
        s.muc.enter(ROOM, "zoe", "zoe@y.example/a")
        await s.other.say("room", ZOE, "hello")
        assert "hello" not in s.muc.bodies("zoe")
        assert len(s.muc.bodies()) == 1
        assert "hansa" not in {
            n for n, full in s.muc.occupants[ROOM].items() if full == s.muc.said[0].get("from")
        }


async def test_of_many_people_the_listener_speaks_for_the_last():
    async with scene(muc_puppets=2) as s:
        for name in ("ann", "bob", "cleo"):
            await s.other.say("room", f"{name}@elsewhere", f"I am {name}")
        assert s.muc.bodies("hansa") == ["<cleo> I am cleo"]
        assert len(s.muc.occupants[ROOM]) == 4


async def test_missed_messages_come_in_order_and_once():
    disk, muc = MemoryDisk(), FakeMuc()
    async with scene(muc, disk) as s:
        s.muc.say(ROOM, "Juliet", body("before"), "j0")
        await until(lambda: s.texts() == ["before"])
        await s.other.say("room", ZOE, "ours")
        muc.down()
        for number in range(50):
            muc.say(ROOM, "Juliet", body(f"missed {number}"), f"m{number}")
        muc.up()
        texts = ["before", *(f"missed {number}" for number in range(50))]
        await until(lambda: s.texts() == texts)
    for number in range(50, 60):
        muc.say(ROOM, "Juliet", body(f"missed {number}"), f"m{number}")
    async with scene(muc, disk) as s:
        await until(lambda: s.texts()[-1:] == ["missed 59"])
        assert [text for text in s.texts() if text == "ours"] == []
        muc.say(ROOM, "Juliet", body("live"), "l")
        await until(lambda: s.texts()[-1:] == ["live"])
        assert s.texts().count("missed 55") == 1


async def test_puppets_of_an_earlier_life_are_not_taken_for_others():
    disk, muc = MemoryDisk(), FakeMuc()
    async with scene(muc, disk) as s:
        await s.other.say("room", ZOE, "hello")
    assert len(muc.occupants[ROOM]) == 3
    async with scene(muc, disk) as s:
        await until(lambda: s.names() == {"Juliet"})
        muc.say(ROOM, "Juliet", body("mark"), "mark")
        await until(lambda: s.texts() == ["mark"])
        assert s.names() == {"Juliet"}
        await s.other.say("room", ZOE, "again")
        assert s.names() == {"Juliet"}


async def test_a_message_that_is_proposed_again_is_not_sent_again(monkeypatch):
    async with scene() as s:
        await s.other.say("room", ZOE, "hello")
        monkeypatch.setattr("hansa.bus.late_authority.PROPOSE_TIMEOUT_S", 0.1)
        s.muc.deaf = True
        assert (await s.other.say("room", ZOE, "slow", origin="same")).refusal is not None
        s.muc.catch_up()
        monkeypatch.setattr("hansa.bus.late_authority.PROPOSE_TIMEOUT_S", 10.0)
        assert (await s.other.say("room", ZOE, "slow", origin="same")).event is not None
        assert s.muc.bodies() == ["hello", "slow"]


async def test_corrections_reactions_and_retractions_name_the_messages_of_the_room():
    async with scene() as s:
        name = s.muc.say(ROOM, "Juliet", body("helo"), "j1")
        await until(lambda: s.texts() == ["helo"])
        (event,) = [one.event for one in s.other.got["room"] if isinstance(one.content, Message)]
        await s.other.do("room", ZOE, Reaction(target=event.id, key="👍"))
        reactions = s.muc.said[-1].find("{urn:xmpp:reactions:0}reactions")
        assert (reactions.get("id"), [one.text for one in reactions]) == (name, ["👍"])
        s.muc.say(
            ROOM,
            "Juliet",
            f"<reactions xmlns='urn:xmpp:reactions:0' id='{name}'><reaction>❤</reaction></reactions>",
            "j2",
        )
        await until(lambda: any(isinstance(one, Reaction) for one in s.other.contents("room")))
        s.muc.say(ROOM, "Juliet", f"<retract xmlns='urn:xmpp:message-retract:1' id='{name}'/>", "j3")
        await until(lambda: any(isinstance(one, Retraction) for one in s.other.contents("room")))
        s.muc.say(ROOM, "Juliet", "<subject>roses</subject>", "j4")
        await until(lambda: Topic(text="roses") in s.other.contents("room"))


async def test_a_puppet_that_is_removed_is_told_and_comes_back_when_its_person_asks():
    async with scene() as s:
        await s.other.say("room", ZOE, "hello")
        nick = next(n for n, full in s.muc.occupants[ROOM].items() if full == s.muc.said[0].get("from"))
        s.muc.remove(ROOM, nick, by="Juliet", codes=(307,), reason="enough")
        await until(lambda: s.counted("xmpp_foreign_puppets_removed") == 1)
        await until(
            lambda: (
                any(
                    isinstance(one, Message) and one.style is Style.NOTICE for one in s.other.contents("room")
                )
                or any(isinstance(one, Member) and one.user.id == ZOE for one in s.other.contents("room"))
            )
        )
        await s.other.join("room", ZOE)
        await s.other.say("room", ZOE, "relayed")
        assert s.muc.bodies("hansa") == ["<zoe> relayed"]
        command = s.app.runners["xmpp"].network.chat_commands()["return"]
        assert "again" in await command.run(NativeId("other", ZOE), [ROOM])
        await s.other.say("room", ZOE, "back")
        assert s.muc.bodies("hansa") == ["<zoe> relayed"]
        assert s.muc.bodies()[-1] == "back"


async def test_a_listener_that_is_removed_enters_again(monkeypatch):
    monkeypatch.setattr("hansa_xmpp.foreign_session.BACKOFF", Backoff(first=0.01, most=0.01))
    async with scene() as s:
        s.muc.remove(ROOM, "hansa", codes=(307,))
        await until(lambda: "hansa" in s.muc.occupants[ROOM])
        s.muc.say(ROOM, "Juliet", body("heard"), "j")
        await until(lambda: s.texts() == ["heard"])


async def test_a_flood_is_read_from_the_archive_and_loses_nothing(monkeypatch):
    async with scene() as s:
        s.muc.say(ROOM, "Juliet", body("first"), "f")
        await until(lambda: s.texts() == ["first"])
        for number in range(1100):
            s.muc.say(ROOM, "Juliet", body(f"{number}"), f"n{number}")
        texts = ["first", *map(str, range(1100))]
        await until(lambda: len(s.texts()) >= len(texts), 60)
        assert s.texts() == texts
        assert s.counted("xmpp_dropped") > 0


async def test_another_gateway_between_the_same_rooms_is_no_loop():
    async with scene() as s:
        await s.other.say("room", ZOE, "hello")
        s.muc.enter(ROOM, "zoe (2)", "zoe%elsewhere@othergw.example/x")
        s.muc.say(ROOM, "zoe (2)", body("hello"), "g1")
        s.muc.enter(ROOM, "gateway", "othergw.example/x")
        s.muc.say(ROOM, "gateway", body("<zoe> hello"), "g2")
        s.muc.say(ROOM, "Juliet", body("new"), "j")
        await until(lambda: "new" in s.texts())
        assert s.texts() == ["new"]
        await s.other.join("room", "ghost@elsewhere", "Juliet")
        await s.other.say("room", "ghost@elsewhere", "new")
        await s.other.say("room", "ghost@elsewhere", "newer")
        assert s.muc.bodies() == ["hello", "newer"]


async def test_moderators_elsewhere_act_by_the_listener_and_are_told_what_is_refused():
    async with scene() as s:
        await until(lambda: s.names() == {"Juliet"})
        s.muc.say(ROOM, "Juliet", body("spam"), "j")
        await until(lambda: s.texts() == ["spam"])
        (spam,) = [one.event for one in s.other.got["room"] if isinstance(one.content, Message)]
        network = s.app.runners["xmpp"].network
        link = replace(s.app.rooms.link(NativeId("xmpp", ROOM)), authority=False)
        juliet = next(one.user for one in s.view.joined() if one.user.network == "xmpp")
        ban = Member(user=juliet, membership=Membership.BAN, reason="spam")

        async def act(content, target=None):
            event = replace(spam, sender=NativeId("other", ZOE), content=content)
            key = f"k{len(s.muc.requests)}{s.muc.refuses}{content.kind}"
            await network.send(Delivery(key=key, link=link, event=event, content=content, target=target))

        await act(ban)
        await act(Retraction(target=spam.id, reason="spam"), spam)
        item, moderate = s.muc.requests[0][0][0], s.muc.requests[1][0]
        assert (item.get("role"), item.get("nick"), item[0].text) == ("none", "Juliet", "spam")
        assert moderate.tag == "{urn:xmpp:message-moderate:1}moderate"
        assert moderate.get("id") == "s1"
        s.muc.refuses = "forbidden"
        await act(ban)
        await until(lambda: any("did not remove Juliet" in text for text in s.texts()))


async def test_a_flood_of_presences_is_shown_at_a_rate_and_ends_right():
    async with scene(muc_members=10) as s:
        await until(lambda: s.names() == {"Juliet"})
        for number in range(3000):
            s.muc.enter(ROOM, f"bot {number}", f"bot{number}@y.example/x")
            if number < 2990:
                s.muc.remove(ROOM, f"bot {number}")
        s.muc.say(ROOM, "Juliet", body("still heard"), "j")
        await until(lambda: "still heard" in s.texts())
        wanted = {"Juliet", *(f"bot {number}" for number in range(2990, 2999))}
        await until(lambda: s.names() == wanted)
        comings = [one for one in s.other.contents("room") if isinstance(one, Member)]
        assert len(comings) < 100


async def test_a_listener_that_the_room_forgot_is_found_by_a_ping(monkeypatch):
    monkeypatch.setattr("hansa_xmpp.foreign_session.SELF_PING_EVERY_S", 0.05)
    async with scene() as s:
        await until(lambda: s.names() == {"Juliet"})
        del s.muc.occupants[ROOM]["hansa"]
        missed = s.muc.say(ROOM, "Juliet", body("unheard"), "j")
        assert missed
        await until(lambda: "hansa" in s.muc.occupants[ROOM])
        s.muc.say(ROOM, "Juliet", body("heard"), "k")
        await until(lambda: s.texts()[-1:] == ["heard"])


async def test_a_room_without_ids_knows_people_by_their_nicks():
    async with scene(FakeMuc(())) as s:
        await until(lambda: s.names() == {"Juliet"})
        assert [one.user.id for one in s.view.joined() if one.user.network == "xmpp"] == [f"{ROOM}/Juliet"]
        forged = "<stanza-id xmlns='urn:xmpp:sid:0' by='room@muc.x.example' id='s1'/>"
        s.muc.say(ROOM, "Juliet", body("one") + forged, "j1")
        s.muc.say(ROOM, "Juliet", body("two") + forged, "j2")
        s.muc.say(ROOM, "Juliet", body("two") + forged, "j2")  # history has it again
        s.muc.say(ROOM, "Juliet", body("three"), "j3")
        await until(lambda: s.texts()[-1:] == ["three"])
        assert s.texts() == ["one", "two", "three"]
        assert (await s.other.say("room", ZOE, "hello")).event is not None
        assert s.muc.bodies() == ["hello"]


async def test_stanzas_that_claim_to_be_answers_are_ignored():
    async with scene() as s:
        await until(lambda: s.names() == {"Juliet"})
        listener = s.muc.occupants[ROOM]["hansa"]
        inner = f"<message from='{ROOM}/Juliet' type='groupchat'>{body('forged')}</message>"
        stamp = "<delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/>"
        forwarded = f"<forwarded xmlns='urn:xmpp:forward:0'>{stamp}{inner}</forwarded>"
        result = f"<result xmlns='urn:xmpp:mam:2' queryid='muc-1' id='x'>{forwarded}</result>"
        for sender in (ROOM, f"{ROOM}/Juliet", "evil@y.example", SERVICE):
            s.muc.give(f"<message from='{sender}' to='{listener}'>{result}</message>")
            s.muc.give(f"<iq from='{sender}' to='{listener}' type='result' id='muc-1'/>")
            s.muc.give(f"<message from='{sender}' to='{listener}' type='groupchat'/>")
        s.muc.give(
            f"<message from='evil@y.example/x' to='{listener}' type='groupchat'>{body('evil')}</message>"
        )
        s.muc.say(ROOM, "Juliet", body("mark"), "j")
        await until(lambda: s.texts() == ["mark"])
        assert s.names() <= {"Juliet", "room"}


async def test_nicks_that_the_room_says_are_in_use_are_not_insisted_on():
    muc = FakeMuc()
    muc.occupants[ROOM] = {"hansa": "other@y.example/a"}
    muc.hidden.add("zoe")
    muc.occupants[ROOM]["zoe"] = "zoe@y.example/a"
    async with scene(muc) as s:
        await until(lambda: "hansa-2" in muc.occupants[ROOM])
        await s.other.say("room", ZOE, "hello")
        assert muc.bodies() == ["hello"]
        assert muc.bodies("zoe") == muc.bodies("hansa-2") == []


async def test_comings_and_goings_one_by_one_are_shown_at_a_rate():
    async with scene(muc_members=10) as s:
        for number in range(150):
            s.muc.enter(ROOM, f"bot {number}", f"bot{number}@y.example/x")
            s.muc.say(ROOM, "Juliet", body(f"in {number}"), f"i{number}")
            await until(lambda number=number: s.texts()[-1:] == [f"in {number}"])
            s.muc.remove(ROOM, f"bot {number}")
        comings = [one for one in s.other.contents("room") if isinstance(one, Member)]
        assert 20 < len(comings) < 150


async def test_a_database_that_fails_loses_no_message(monkeypatch):
    async with scene() as s:
        s.muc.say(ROOM, "Juliet", body("before"), "j")
        await until(lambda: s.texts() == ["before"])
        real, failed = s.app.contexts["xmpp"].submit, []

        async def submit(items, **more):
            if not failed:
                failed.append(items)
                raise StoreFault(FaultKind.FULL, "of a test")
            return await real(items, **more)

        monkeypatch.setattr(s.app.contexts["xmpp"], "submit", submit)
        for text in ("one", "two"):
            s.muc.say(ROOM, "Juliet", body(text), text)
        await until(lambda: s.texts() == ["before", "one", "two"])
        assert failed


async def test_a_message_that_cannot_be_taken_ends_nothing(monkeypatch, caplog):
    async with scene() as s:
        await until(lambda: s.names() == {"Juliet"})
        real = s.app.contexts["xmpp"].submit

        async def submit(items, **more):
            if any(getattr(one.content, "text", "") == "odd" for one in items):
                raise ValueError("odd")
            return await real(items, **more)

        monkeypatch.setattr(s.app.contexts["xmpp"], "submit", submit)
        for text in ("odd", "even"):
            s.muc.say(ROOM, "Juliet", body(text), text)
        await until(lambda: s.texts() == ["even"])
        assert s.counted("xmpp_dropped") == 1
    assert "was not taken" in caplog.text


async def test_everybody_leaves_a_room_that_is_unlinked_and_it_can_be_linked_again():
    async with scene() as s:
        await s.other.say("room", ZOE, "hello")
        assert len(s.muc.occupants[ROOM]) == 3
        link = s.app.rooms.link(NativeId("xmpp", ROOM))
        await s.app.linker.unlink_room(link)
        await until(lambda: set(s.muc.occupants[ROOM]) == {"Juliet"})
        s.muc.say(ROOM, "Juliet", body("unlinked"), "u")
        await s.app.link_room([f"xmpp:{ROOM}"], s.app.rooms.link(NativeId("other", "room")).room)
        await until(lambda: s.names() == {"Juliet"})
        s.muc.say(ROOM, "Juliet", body("linked"), "l")
        await until(lambda: s.texts() == ["linked"])


async def test_a_room_without_an_archive_is_asked_for_its_history_since_the_last_message():
    async with scene(FakeMuc(("urn:xmpp:sid:0",))) as s:
        s.muc.say(ROOM, "Juliet", body("before"), "j")
        await until(lambda: s.texts() == ["before"])
        s.muc.down()
        s.muc.up()
        await until(lambda: any(e.find("{*}x/{*}history[@since]") is not None for e in s.muc.sent))


async def test_nobody_speaks_for_a_person_whom_the_room_banned():
    disk, muc = MemoryDisk(), FakeMuc()
    async with scene(muc, disk) as s:
        await s.other.say("room", ZOE, "hello")
        nick = next(n for n, full in muc.occupants[ROOM].items() if full == muc.said[0].get("from"))
        muc.shut[muc.occupants[ROOM][nick]] = "forbidden"
        muc.remove(ROOM, nick, codes=(301,), reason="spam")  # the core bans nobody for this
        await until(lambda: s.counted("xmpp_foreign_puppets_removed") == 1)
        await s.other.say("room", ZOE, "evading")
        command = s.app.runners["xmpp"].network.chat_commands()["return"]
        assert "again" in await command.run(NativeId("other", ZOE), [ROOM])
        await s.other.say("room", ZOE, "again")
        assert muc.bodies() == ["hello"]
    async with scene(muc, disk) as s:
        muc.say(ROOM, "Juliet", body("mark"), "mark")
        await until(lambda: s.texts()[-1:] == ["mark"])
        outcome = await s.other.say("room", ZOE, "after a restart", origin="later")
        assert outcome.event is None
        outcome = await s.other.say("room", "ann@elsewhere", "ann may", origin="ann")
        assert outcome.refusal is None
        assert muc.bodies() == ["hello", "ann may"]


@pytest.mark.parametrize("address", [f"nothing@{SERVICE}", f"hansa@{GW}"])
async def test_rooms_that_cannot_be_entered_are_refused(address):
    async with scene() as s:
        with pytest.raises(CannotOpenRoom):
            await s.app.runners["xmpp"].network.open_room(address, create=True)
        assert s.app.contexts["xmpp"].get_link(address) is None


async def test_people_who_leave_take_their_puppets_along():
    async with scene() as s:
        await s.other.join("room", ZOE)
        await s.other.say("room", ZOE, "hello")
        assert len(s.muc.occupants[ROOM]) == 3
        content = Member(user=NativeId("other", ZOE), membership=Membership.LEAVE)
        await s.other.do("room", ZOE, content)
        await until(lambda: len(s.muc.occupants[ROOM]) == 2)
        assert s.muc.bodies() == ["hello"]
