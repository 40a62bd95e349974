"""Acts in channels, in both directions: ranks, voice, bans, who may enter; and those that the room refuses.
Part of the one class that runs in a stage (``test_irc.py``).
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hansa import (
    Features,
    JoinRule,
    Kind,
    Level,
    Member,
    Membership,
    Message,
    NativeId,
    NetworkStatus,
    PresenceState,
    Refusal,
    RefusalCode,
    Role,
    RoomMember,
    Standing,
    ViewDelta,
)
from hansa_irc.channels import Happening
from hansa_irc.direct import chat_id
from irc_stage import ROOM, IrcStage

ZOE = NativeId("other", "zoe@elsewhere")
ANN, BOB = NativeId("tested", "ann"), NativeId("tested", "bob")


class ActChecks(IrcStage):
    """What people do to a channel, on either side."""

    @asynccontextmanager
    async def channel(self, **more):
        """A stage where Ann, Bob and Zoe are; the bridge is an operator, and Zoe an owner."""
        async with self.told(**more) as stage:
            for nick in ("Ann", "Bob"):
                await self.says(stage, nick, f"{nick} is here")
            await stage.other.join("other", ZOE.id, "Zoe")
            zoe = stage.net.ctx.get_view(ROOM).person(ZOE)
            await stage.other.ctx.reconcile_view("other", ViewDelta(upserts=(replace(zoe, role=Role.OWNER),)))
            self.server.act("Ann", "MODE", ROOM, "+o", "hansa")
            await self.says(stage, "Ann", "fence")
            yield stage

    async def makes_operator(self, stage, nick):
        """The server itself makes a person an operator, as services do."""
        self.server.set_mode(ROOM, "+o", nick)
        user = NativeId("tested", nick.lower())
        view = stage.net.ctx.get_view(ROOM)
        await stage.until(f"{nick} moderates", lambda: view.person(user).role is Role.MODERATOR)

    async def test_an_act_that_the_room_refuses_is_undone_and_its_doer_is_told(self):
        async with self.channel() as stage:
            self.server.act("Ann", "MODE", ROOM, "+o", "Bob")
            await self.done(stage, "MODE", ROOM, "-o", "bob")
            self.server.act("Ann", "MODE", ROOM, "+i")
            await self.done(stage, "MODE", ROOM, "-i")
            await stage.until("Ann is told of both", lambda: len(self.notices("ann")) == 2)
            first, second = self.notices("ann")
            assert first == (
                "[#room] the other networks do not take this (standing): only a moderator may change this, "
                "and it is undone here"
            )
            assert "(join rule)" in second
            assert stage.net.ctx.get_view(ROOM).person(BOB).role is Role.MEMBER

    async def test_without_a_rank_of_the_bridge_an_act_stands_and_its_doer_is_told(self):
        async with self.channel() as stage:
            self.server.act("Ann", "MODE", ROOM, "-o", "hansa")
            self.server.act("Ann", "MODE", ROOM, "+i")
            await stage.until("Ann is told", lambda: self.notices("ann"))
            assert "undone" not in self.notices("ann")[0]
            assert not [one for one in self.server.commands if one.params[:2] == (ROOM, "-i")]

    async def test_ranks_cross_both_ways(self):
        async with self.channel() as stage:
            await stage.other.do("other", ZOE.id, Standing(user=BOB, role=Role.MODERATOR))
            await self.done(stage, "MODE", ROOM, "+o", "bob")
            await stage.other.do("other", ZOE.id, Standing(user=BOB, role=Role.MEMBER))
            await self.done(stage, "MODE", ROOM, "-o", "bob")
            await self.makes_operator(stage, "Ann")
            self.server.act("Ann", "MODE", ROOM, "+o", "Bob")
            await stage.seen(Standing(user=BOB, role=Role.MODERATOR))
            self.server.act("Ann", "MODE", ROOM, "-o", "Bob")
            await stage.seen(Standing(user=BOB, role=Role.MEMBER))

    async def test_voice_crosses_where_the_channel_is_moderated(self):
        async with self.channel() as stage:
            await self.makes_operator(stage, "Ann")
            view = stage.net.ctx.get_view(ROOM)
            self.server.act("Ann", "MODE", ROOM, "+v", "Bob")
            self.server.act("Ann", "MODE", ROOM, "-v", "Bob")
            self.server.act("Ann", "MODE", ROOM, "+m")
            await stage.until("Bob is mute", lambda: not view.person(BOB).voice)
            assert view.facts.moderated
            self.server.act("Ann", "MODE", ROOM, "+v", "Bob")
            contents = await stage.seen(Standing(user=BOB, role=Role.MEMBER, voice=True))
            assert [c for c in contents if isinstance(c, Standing)] == [
                Standing(user=BOB, role=Role.MEMBER, voice=True)
            ]
            await stage.other.do("other", ZOE.id, Standing(user=BOB, role=Role.MEMBER, voice=False))
            await self.done(stage, "MODE", ROOM, "-v", "bob")
            self.server.act("Ann", "MODE", ROOM, "-m")
            await stage.until("Bob may speak", lambda: view.person(BOB).voice)

    async def test_who_may_enter_crosses_both_ways(self):
        async with self.channel() as stage:
            await stage.other.do("other", ZOE.id, JoinRule(rule="invite"))
            await self.done(stage, "MODE", ROOM, "+i")
            await self.makes_operator(stage, "Ann")
            self.server.act("Ann", "MODE", ROOM, "-i")
            await stage.seen(JoinRule(rule="public"))
            self.server.refuse["MODE"] = "482"
            await stage.other.do("other", ZOE.id, JoinRule(rule="invite"))
            await stage.until("it is said", lambda: any("invite" in text for text in self.server.texts(ROOM)))

    async def test_a_ban_that_is_followed_by_a_kick_stays_a_ban_and_has_its_reason(self):
        async with self.channel(puppets=1) as stage:
            await stage.other.say("other", ZOE.id, "ahoy")
            await self.said(stage, "ahoy")
            await self.makes_operator(stage, "Ann")
            zoe = replace(stage.net.ctx.get_view(ROOM).person(ZOE), role=Role.MEMBER)
            await stage.other.ctx.reconcile_view("other", ViewDelta(upserts=(zoe,)))
            for nick in ("zoe", "Bob"):
                self.server.act("Ann", "MODE", ROOM, "+b", f"{nick}!*@*")
                self.server.act("Ann", "KICK", ROOM, nick, "no pirates")
            for user in (ZOE, BOB):
                await stage.seen(Member(user=user, membership=Membership.BAN, reason="no pirates"))
                assert stage.net.ctx.get_view(ROOM).membership(user) is Membership.BAN

    async def test_who_acts_on_a_person_acts_on_no_mask_of_many(self):
        async with self.channel() as stage:
            for user in ("*", "a?n", "ann,bob", "ann!*@*", "$a", "#room"):
                for membership in (Membership.INVITE, Membership.BAN, Membership.LEAVE):
                    content = Member(user=NativeId("tested", user), membership=membership)
                    await stage.other.do("other", ZOE.id, content)
            await stage.other.do("other", ZOE.id, Member(user=BOB, membership=Membership.BAN))
            await self.done(stage, "MODE", ROOM, "+b", "bob!*@*")
            acts = [
                one.params for one in self.server.commands if one.command == "INVITE" or "+b" in one.params
            ]
            assert acts == [(ROOM, "+b", "bob!*@*")]

    async def test_a_puppet_is_invited_where_the_channel_does_not_let_it_in(self):
        async with self.channel(puppets=1) as stage:
            self.server.closed.add(ROOM)
            await stage.other.say("other", ZOE.id, "ahoy")
            await self.said(stage, "ahoy")
            assert ("INVITE", ("Zoe", ROOM)) in [(one.command, one.params) for one in self.server.commands]

    async def test_a_person_is_told_once_of_a_kind_that_another_network_rejects(self):
        async with self.channel() as stage:
            rejects = Features(levels={Kind.MESSAGE: Level.FULL, Kind.TOPIC: Level.REJECTED})
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(stage.other), "features", rejects)
                for topic in ("tea", "coffee"):
                    self.server.act("Ann", "TOPIC", ROOM, topic)
                await self.says(stage, "Ann", "second fence")
            await stage.until("Ann is told", lambda: self.notices("ann"))
            await self.says(stage, "Ann", "third fence")
            assert self.notices("ann") == [
                "[#room] other cannot show this (topic). The people there do not see it."
            ]

    async def test_a_message_that_is_refused_is_told_once(self):
        async with self.channel() as stage:
            mute = RoomMember(user=BOB, membership=Membership.JOIN, name="Bob", voice=False, server="tested")
            await stage.other.ctx.reconcile_view("other", ViewDelta(upserts=(mute,)))
            for text in ("first", "second"):
                self.server.act("Bob", "PRIVMSG", ROOM, text)
            await self.says(stage, "Ann", "second fence")
            await stage.until("Bob is told", lambda: self.notices("bob"))
            assert len(self.notices("bob")) == 1
            assert "you have no voice in this room" in self.notices("bob")[0]
            assert Message(text="first") not in stage.other.contents("other")
            assert stage.app.runners["tested"].state == NetworkStatus.UP

    async def test_a_refused_private_message_is_told_by_the_puppet_that_got_it(self):
        async with self.channel(puppets=1) as stage:
            await stage.other.say("other", ZOE.id, "ahoy")
            await self.said(stage, "ahoy")
            refused = Happening(channel=chat_id("ann", ZOE), sender="ann", content=Message(text="psst"))
            stage.net.acts.on_refused(refused, Refusal(code=RefusalCode.POLICY, text="no whispers"))
            await stage.until("Ann is told", lambda: self.notices("ann"))
            assert self.notices("ann") == ["your message was not delivered: no whispers"]

    async def test_who_is_away_crosses_both_ways(self):
        async with self.channel(puppets=1) as stage:
            await stage.other.say("other", ZOE.id, "ahoy")
            await self.said(stage, "ahoy")
            await stage.other.set_presence(ZOE.id, PresenceState.BUSY, "in a\nmeeting")
            await self.done(stage, "AWAY", "in a meeting")
            await stage.other.set_presence(ZOE.id, PresenceState.HERE)
            await self.done(stage, "AWAY")

            self.server.tell(ROOM, "Bob", "AWAY", "at lunch")
            shown = stage.other.presences
            await stage.until("Bob is away", lambda: self.presences(shown, BOB))
            self.server.tell(ROOM, "Bob", "AWAY")
            await stage.until("Bob is back", lambda: len(self.presences(shown, BOB)) == 2)
            self.server.reply("hansa", "352", ROOM, "u", "h", "s", "Bob", "G@", "0 Bob")
            await stage.until("Bob is away, says WHO", lambda: len(self.presences(shown, BOB)) == 3)
            self.server.reply("Zoe", "301", "Ann", "asleep")
            await stage.until("Ann is away", lambda: self.presences(shown, ANN))
            assert self.presences(shown, BOB) == [
                (PresenceState.AWAY, "at lunch"),
                (PresenceState.HERE, ""),
                (PresenceState.AWAY, ""),
            ]
            assert self.presences(shown, ANN) == [(PresenceState.AWAY, "asleep")]

    def presences(self, shown, user):
        return [(one.state, one.text) for one in shown.get("other", ()) if one.user == user]
