"""The scripted network: everything its people can do is an event that the other side is shown."""

from __future__ import annotations

from hansa import Member, Membership, Message, Name, NativeId, Style, Topic
from hansa.testing import Actor, run_hansa
from hansa.testing.actor import Config, module


async def test_what_people_do_is_shown_on_the_other_side():
    made: dict[str, Actor] = {}
    plugin = module(made)
    networks = {name: (plugin, Config()) for name in ("left", "right")}
    async with run_hansa(networks, rooms=[("left:a", "right:b")]) as app:
        left, ann, bob = made["left"], NativeId("left", "ann@x"), NativeId("left", "bob@x")
        eve = NativeId("left", "eve@x")
        await left.knock("a", "eve@x", "please")
        await left.join("a", "ann@x", "Ann")
        await left.invite("a", "ann@x", bob)
        await left.join("a", "bob@x")
        await left.say("a", "bob@x", "hello")
        await left.emote("a", "bob@x", "waves")
        await left.set_topic("a", "ann@x", "Ships")
        await left.set_name("a", "ann@x", "Harbour")
        await left.kick("a", "ann@x", bob, "enough")
        await left.ban("a", "ann@x", eve, "spam")
        await left.leave("a", "ann@x")
        assert await made["right"].until_shown("b", lambda found: len(found) == 11) == [
            Member(user=eve, membership=Membership.KNOCK, reason="please"),
            Member(user=ann, membership=Membership.JOIN, name="Ann"),
            Member(user=bob, membership=Membership.INVITE),
            Member(user=bob, membership=Membership.JOIN),
            Message(text="hello"),
            Message(text="waves", style=Style.EMOTE),
            Topic(text="Ships"),
            Name(text="Harbour"),
            Member(user=bob, membership=Membership.LEAVE, reason="enough"),
            Member(user=eve, membership=Membership.BAN, reason="spam"),
            Member(user=ann, membership=Membership.LEAVE),
        ]
        assert (await left.say("a", "eve@x", "spam")).refusal is not None
        assert next(iter(app.rooms)).view.membership(bob) is Membership.LEAVE
