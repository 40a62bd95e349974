"""The network keeps the contract of networks, beside a small server."""

from __future__ import annotations

from dataclasses import replace

import pytest
from act_checks import ActChecks
from hansa import (
    CannotOpenRoom,
    Member,
    Membership,
    Message,
    NativeId,
    Role,
    Standing,
    Style,
    Topic,
    ViewDelta,
)
from hansa.testing import NetworkSuite
from irc_stage import ROOM, IrcStage


class TestIrc(ActChecks, IrcStage, NetworkSuite):
    """The contract of networks, and what only IRC has."""

    async def test_people_of_other_networks_are_named(self):
        async with self.stage() as stage:
            await stage.other.join("other", "zoe@elsewhere", "Zoe")
            await stage.other.say("other", "zoe@elsewhere", "ahoy")
            await self.said(stage, "<Zoe> ahoy")
            await stage.other.emote("other", "zoe@elsewhere", "waves")
            await self.said(stage, "* Zoe waves")
            await stage.other.say("other", "zoe@elsewhere", "one\n\rQUIT :x\ntwo")
            await self.said(stage, "<Zoe> two")
            assert "<Zoe> QUIT :x" in self.server.texts(ROOM)

    async def test_a_channel_before_it_was_linked_is_shown(self):
        async with self.stage() as stage:
            self.server.person("Late", ROOM)
            await stage.seen(Member(user=NativeId("tested", "late"), membership=Membership.JOIN, name="Late"))

    async def test_topics_kicks_and_nicks_cross(self):
        async with self.stage() as stage:
            for nick in ("Ann", "Bob"):
                self.server.person(nick, ROOM)
            self.server.act("Ann", "TOPIC", ROOM, "tea \x02now\x02")
            await stage.seen(Topic(text="tea now"))
            self.server.act("Ann", "KICK", ROOM, "Bob", "enough")
            await stage.seen(
                Member(user=NativeId("tested", "bob"), membership=Membership.LEAVE, reason="enough")
            )
            self.server.act("Ann", "NICK", "Anna")
            await stage.seen(Member(user=NativeId("tested", "anna"), membership=Membership.JOIN, name="Anna"))
            self.server.act("Anna", "PRIVMSG", ROOM, "\x01ACTION waves\x01")
            await stage.seen(Message(text="waves", style=Style.EMOTE))

    async def test_a_puppet_speaks_for_itself_and_is_not_heard_again(self):
        async with self.told(puppets=1) as stage:
            await stage.other.join("other", "zoe@elsewhere", "Zoe")
            await stage.other.say("other", "zoe@elsewhere", "ahoy")
            await self.said(stage, "ahoy")
            assert "zoe" in self.server.users
            await stage.other.join("other", "max@elsewhere", "Max")
            await stage.other.say("other", "max@elsewhere", "me too")
            await self.said(stage, "<Max> me too")
            await self.inject(stage.net, ROOM, "ann", "fence")
            await stage.seen(Message(text="fence"))
            texts = [e.content.text for e in await stage.log() if isinstance(e.content, Message)]
            assert texts == ["ahoy", "me too", "fence"]

    async def test_a_lost_connection_comes_back_and_nothing_is_lost(self):
        async with self.stage() as stage:
            for number in range(40):
                await stage.other.say("other", "zoe@elsewhere", f"line {number}")
                if number in {10, 25}:
                    await self.said(stage, f"<zoe> line {number}")
                    self.server.cut()
            await self.said(stage, "<zoe> line 39")
            texts = self.server.texts(ROOM)
            assert list(dict.fromkeys(texts)) == [f"<zoe> line {number}" for number in range(40)]
            assert len(texts) <= 42

    async def test_a_split_is_no_leave_of_those_who_come_back(self):
        async with self.stage() as stage:
            self.server.person("Ann", ROOM)
            await self.inject(stage.net, ROOM, "Ann", "before")
            await stage.seen(Message(text="before"))
            self.server.act("Ann", "QUIT", "hub.example leaf.example")
            await self.inject(stage.net, ROOM, "Ann", "after")
            await stage.seen(Message(text="after"))
            changes = [e.content.membership for e in await stage.log() if isinstance(e.content, Member)]
            assert changes == [Membership.JOIN]

    async def test_sasl_is_required_where_an_account_is_configured(self):
        async with self.stage() as stage:
            stage.net.config = self.plugin.Config.model_validate(
                {**self.options, "sasl_account": "hansa", "sasl_password": "secret"}
            )
            self.server.accounts = {"hansa": "wrong"}
            self.server.cut()
            status = stage.app.runners["tested"]
            await stage.until("it is refused", lambda: "SASL" in status.text)
            self.server.accounts = {"hansa": "secret"}
            await stage.until("it is up again", lambda: status.state == "up")

    async def test_a_channel_that_is_unlinked_is_left_by_the_bridge_and_the_puppets(self):
        async with self.told(puppets=5) as stage:
            self.server.person("Ann", ROOM)
            await stage.other.join("other", "zoe@elsewhere", "Zoe")
            await stage.other.say("other", "zoe@elsewhere", "ahoy")
            await self.said(stage, "ahoy")
            await stage.app.linker.unlink_room(stage.app.rooms.link(NativeId("tested", ROOM)))
            await stage.until(
                "only people are left", lambda: [user.nick for user in self.server.channels[ROOM]] == ["Ann"]
            )
            gone = Member(user=NativeId("tested", "ann"), membership=Membership.LEAVE)
            await stage.until(
                "Ann has left the other room",
                lambda: any(
                    isinstance(one, Member) and (one.user, one.membership) == (gone.user, gone.membership)
                    for one in stage.other.contents("other")
                ),
            )

    @staticmethod
    async def promote(ctx, room, user):
        """Makes a person a moderator, as a network does whose server says that they are one."""
        person = replace(ctx.get_view(room).person(user), role=Role.MODERATOR)
        await ctx.reconcile_view(room, ViewDelta(upserts=(person,)))

    async def test_moderators_of_other_networks_act_on_irc(self):
        async with self.stage() as stage:
            ann, bob = NativeId("tested", "ann"), NativeId("tested", "bob")
            for nick in ("Ann", "Bob"):
                await self.inject(stage.net, ROOM, nick, f"{nick} is here")
                await stage.seen(Message(text=f"{nick} is here"))
            await stage.other.join("other", "zoe@elsewhere", "Zoe")
            await self.promote(stage.other.ctx, "other", NativeId("other", "zoe@elsewhere"))
            await stage.other.kick("other", "zoe@elsewhere", ann, "enough")
            await self.done(stage, "KICK", ROOM, "ann", "by Zoe: enough")
            await stage.other.ban("other", "zoe@elsewhere", bob)
            await self.done(stage, "MODE", ROOM, "+b", "bob!*@*")
            await self.done(stage, "KICK", ROOM, "bob", "by Zoe")
            await stage.other.kick("other", "zoe@elsewhere", bob)
            await self.done(stage, "MODE", ROOM, "-b", "bob!*@*")

    async def test_a_topic_that_the_bridge_may_not_set_is_said(self):
        async with self.stage() as stage:
            await stage.other.join("other", "zoe@elsewhere", "Zoe")
            await stage.other.set_topic("other", "zoe@elsewhere", "tea at five")
            await self.done(stage, "TOPIC", ROOM, "tea at five")
            self.server.refuse["TOPIC"] = "482"
            await stage.other.set_topic("other", "zoe@elsewhere", "tea at six")
            await self.said(stage, "<Zoe> [the topic is: tea at six]")

    async def test_an_operators_rank_is_that_of_a_moderator(self):
        async with self.stage() as stage:
            for nick, modes in (("Ann", "o"), ("Bob", "")):
                self.server.person(nick, ROOM, modes)
                await self.inject(stage.net, ROOM, nick, f"{nick} is here")
                await stage.seen(Message(text=f"{nick} is here"))
            self.server.cut()
            view = stage.net.ctx.get_view(ROOM)
            ann, bob = NativeId("tested", "ann"), NativeId("tested", "bob")
            await stage.until("the names are read", lambda: view.person(ann).role is Role.MODERATOR)
            self.server.act("Ann", "MODE", ROOM, "+o", "Bob")
            await stage.seen(Standing(user=bob, role=Role.MODERATOR))
            await stage.until("Bob moderates", lambda: view.person(bob).role is Role.MODERATOR)

    async def test_a_kicked_puppet_is_a_person_who_was_kicked(self):
        async with self.told(puppets=1) as stage:
            await self.inject(stage.net, ROOM, "Ann", "here")
            await stage.seen(Message(text="here"))
            await stage.other.join("other", "zoe@elsewhere", "Zoe")
            await stage.other.say("other", "zoe@elsewhere", "ahoy")
            await self.said(stage, "ahoy")
            await self.promote(stage.net.ctx, ROOM, NativeId("tested", "ann"))
            self.server.act("Ann", "KICK", ROOM, "zoe", "no pirates")
            zoe = NativeId("other", "zoe@elsewhere")
            await stage.seen(Member(user=zoe, membership=Membership.LEAVE, reason="no pirates"))

    async def test_a_channel_that_lets_nobody_in_is_refused_in_words(self):
        async with self.stage() as stage:
            self.server.refuse["JOIN"] = "473"
            with pytest.raises(CannotOpenRoom, match="it is refused"):
                await stage.net.open_room("#closed", create=True)
            with pytest.raises(CannotOpenRoom, match="not the name of a channel"):
                await stage.net.open_room("lobby", create=True)

    async def test_a_private_message_opens_no_chat_of_the_bridge_and_is_answered_once(self):
        async with self.told(puppets=1) as stage:
            await self.inject(stage.net, ROOM, "Ann", "here")
            await stage.seen(Message(text="here"))
            ann = self.server.users["ann"]
            for text in ("hello", "hello?"):
                self.server.act("Ann", "PRIVMSG", "hansa", text)
            await stage.until("it is answered", lambda: any(one.param(0) == "Ann" for one in ann.got))
            await self.inject(stage.net, ROOM, "Ann", "fence")
            await stage.seen(Message(text="fence"))
            answers = [one for one in self.server.commands if one.command == "NOTICE"]
            assert [one.params[0] for one in answers] == ["Ann"]
