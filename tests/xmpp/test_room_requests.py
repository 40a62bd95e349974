"""Messages to a room that are not said to everybody: declines, direct invites, requests for voice and private
messages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from hansa import Member, Membership, Message, Role, Standing
from xmpp.stanzas import GW, ROOM
from xmpp.test_administration import ask, change, item, owned, result_of, role
from xmpp.xmpp_server import XmppServer, mx, xm, xmpp_server

JULIET, ROMEO, EVE = "juliet@x.example/a", "romeo@x.example/b", "eve@x.example/c"
NURSE, BOB = "nurse@x.example", f"bob%m.example@{GW}"
USER = "http://jabber.org/protocol/muc#user"
REQUEST = "http://jabber.org/protocol/muc#request"


@asynccontextmanager
async def with_people(**options: Any) -> AsyncIterator[XmppServer]:
    """Juliet and Romeo, and Alice of another network, are in the room."""
    async with xmpp_server(**options) as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.enter(JULIET, "Jule")
        await h.enter(ROMEO, "Romeo")
        yield h


def message(sender: str, to: str, inner: str, type_: str = "") -> str:
    kind = f" type='{type_}'" if type_ else ""
    return f"<message from='{sender}' to='{to}' id='r'{kind}>{inner}</message>"


def field(var: str, value: str) -> str:
    return f"<field var='{var}'><value>{value}</value></field>"


def request_form(*fields: str) -> str:
    inner = field("FORM_TYPE", REQUEST) + "".join(fields)
    return f"<x xmlns='jabber:x:data' type='submit'>{inner}</x>"


def sent(h: XmppServer, to: str, path: str) -> list[Element]:
    found = [e.find(path) for e in h.link.sent if e.get("to") == to]
    return [e for e in found if e is not None]


async def until_sent(h: XmppServer, to: str, path: str) -> Element:
    found = await h.link.until(lambda: sent(h, to, path))
    assert isinstance(found[0], Element)
    return found[0]


def members(h: XmppServer) -> list[Member]:
    return [e.content for e in h.other.got if isinstance(e.content, Member)]


async def test_a_decline_of_xmpp_reaches_the_other_network_and_the_inviter() -> None:
    async with with_people() as h:
        invite = f"<x xmlns='{USER}'><invite to='{NURSE}'/></x>"
        h.link.receive(message(JULIET, ROOM, invite))
        await until_sent(h, NURSE, f"{{{USER}}}x/{{{USER}}}invite")
        decline = f"<x xmlns='{USER}'><decline to='juliet@x.example'><reason>busy</reason></decline></x>"
        h.link.receive(message(f"{NURSE}/n", ROOM, decline))
        told = await until_sent(h, "juliet@x.example", f"{{{USER}}}x/{{{USER}}}decline")
        assert (told.get("from"), told.findtext("{*}reason")) == (NURSE, "busy")
        assert h.membership(xm("nurse")) is Membership.LEAVE
        left = await h.until(lambda: [m for m in members(h) if m.membership is Membership.LEAVE])
        assert [(m.user, m.reason) for m in left] == [(xm("nurse"), "busy")]
        h.link.receive(message(f"{NURSE}/n", ROOM, decline))
        await h.link.line("nurse/n < * message error: modify not-acceptable")
        assert len(sent(h, "juliet@x.example", f"{{{USER}}}x/{{{USER}}}decline")) == 1


async def test_a_decline_of_another_network_reaches_the_inviter_of_xmpp() -> None:
    async with with_people() as h:
        invite = f"<x xmlns='{USER}'><invite to='{BOB}'/></x>"
        h.link.receive(message(JULIET, ROOM, invite))
        await h.until(lambda: h.membership(mx("bob")) is Membership.INVITE)
        await h.other.submit(
            (mx("bob"), Member(user=mx("bob"), membership=Membership.LEAVE, reason="another day"))
        )
        told = await until_sent(h, "juliet@x.example", f"{{{USER}}}x/{{{USER}}}decline")
        assert (told.get("from"), told.findtext("{*}reason")) == (BOB, "another day")


async def test_a_direct_invite_to_a_puppet_invites_to_a_hosted_room() -> None:
    async with with_people() as h:
        x = f"<x xmlns='jabber:x:conference' jid='{ROOM}' reason='come'/>"
        h.link.receive(message(JULIET, BOB, x))
        await h.until(lambda: h.membership(mx("bob")) is Membership.INVITE)
        asked = await h.until(lambda: [m for m in members(h) if m.membership is Membership.INVITE])
        assert [(m.user, m.reason) for m in asked] == [(mx("bob"), "come")]
        assert [link.native.id for link in h.ctx.list_links()] == [ROOM]
        elsewhere = "<x xmlns='jabber:x:conference' jid='room@muc.example'/>"
        h.link.receive(message(JULIET, BOB, elsewhere))
        await h.link.line(f"juliet/a < {BOB} message error: modify not-acceptable")
        h.link.receive(message("mal@x.example/m", f"carol%m.example@{GW}", x))
        await h.link.line(f"mal/m < carol%m.example@{GW} message error: modify not-acceptable")
        assert h.membership(mx("carol")) is None


async def test_voice_is_asked_for_and_given_by_a_moderator_alone() -> None:
    ask_voice = request_form(field("muc#role", "participant"))
    grant = request_form(
        field("muc#role", "participant"),
        field("muc#jid", ROMEO),
        field("muc#roomnick", "Romeo"),
        field("muc#request_allow", "true"),
    )
    async with owned() as h:
        h.link.receive(message(ROMEO, ROOM, ask_voice))
        await h.link.line("romeo/b < * message error: modify not-acceptable")
        assert await change(h, JULIET, item(nick="Romeo", role="visitor")) == "result"
        h.link.receive(message(ROMEO, ROOM, ask_voice))
        form = await until_sent(h, JULIET, "{jabber:x:data}x")
        values = {e.get("var"): e.findtext("{jabber:x:data}value") for e in form.findall("{*}field")}
        assert values == {
            "FORM_TYPE": REQUEST,
            "muc#role": "participant",
            "muc#jid": ROMEO,
            "muc#roomnick": "Romeo",
            "muc#request_allow": "false",
        }
        assert sent(h, EVE, "{jabber:x:data}x") == []
        for who, line in ((ROMEO, "romeo/b"), (EVE, "eve/c")):
            before = len(h.link.lines())
            h.link.receive(message(who, ROOM, grant))
            wanted = f"{line} < * message error: auth forbidden"
            await h.link.until(lambda n=before, w=wanted: w in h.link.lines()[n:])
            assert role(h, "romeo") == (Role.VISITOR, False)
        h.link.receive(message(JULIET, ROOM, grant.replace("true", "false")))
        h.link.receive(message(JULIET, ROOM, grant.replace(ROMEO, EVE)))
        await h.link.line("juliet/a < * message error: cancel item-not-found")
        assert role(h, "romeo") == (Role.VISITOR, False)
        h.link.receive(message(JULIET, ROOM, grant))
        await h.until(lambda: role(h, "romeo") == (Role.MEMBER, True))
        await h.until(
            lambda: [e for e in h.other.got if e.content == Standing(user=xm("romeo"), role=Role.MEMBER)]
        )
        h.say(ROMEO, "thanks")
        await h.link.until(lambda: "thanks" in h.link.bodies(EVE))


async def test_requests_for_voice_are_bounded_and_need_a_moderator() -> None:
    ask_voice = request_form(field("muc#role", "participant"))
    async with owned() as h:
        assert await change(h, JULIET, item(nick="Romeo", role="visitor")) == "result"
        for _ in range(3):
            h.link.receive(message(ROMEO, ROOM, ask_voice))
        await h.link.line("romeo/b < * message error: wait resource-constraint")
        assert len(sent(h, JULIET, "{jabber:x:data}x")) == 2
        assert await change(h, JULIET, item(nick="Eve", role="visitor")) == "result"
        h.leave(JULIET)
        await h.link.line("eve/c < Jule presence unavailable:")
        h.link.receive(message(EVE, ROOM, ask_voice))
        await h.link.line("eve/c < * message error: wait recipient-unavailable")


async def test_a_private_message_is_for_one_occupant_alone() -> None:
    async with with_people() as h:
        await h.enter(EVE, "Eve")
        spoofed = "<stanza-id xmlns='urn:xmpp:sid:0' id='1' by='x'/><delay xmlns='urn:xmpp:delay' stamp='0'/>"
        inner = f"<body>psst</body><y xmlns='urn:y'/>{spoofed}"
        h.link.receive(message(JULIET, f"{ROOM}/Romeo", inner, "chat"))
        await h.link.until(lambda: "psst" in h.link.bodies(ROMEO))
        (got,) = [e for e in h.link.sent if e.findtext("{*}body") == "psst"]
        assert (got.get("from"), got.get("to"), got.get("type"), got.get("id")) == (
            f"{ROOM}/Jule", ROMEO, "chat", "r",
        )  # fmt: skip
        assert [e.tag.rpartition("}")[2] for e in got] == ["body", "y", "x", "occupant-id"]
        h.say(JULIET, "the last")
        await h.until(lambda: any(e.content == Message(text="the last") for e in h.other.got))
        assert Message(text="psst") not in [e.content for e in h.other.got]
        for to, sender, answer in (
            ("Nobody", JULIET, "juliet/a < Nobody message error: cancel item-not-found"),
            ("Jule", "mal@x.example/m", "mal/m < Jule message error: modify not-acceptable"),
        ):
            h.link.receive(message(sender, f"{ROOM}/{to}", "<body>x</body>", "chat"))
            await h.link.line(answer)


async def test_a_private_message_to_another_network_is_one_of_a_direct_chat() -> None:
    async with with_people() as h:
        h.link.receive(message(JULIET, f"{ROOM}/Alice", "<body>psst</body>", "chat"))
        await h.until(lambda: any(e.content == Message(text="psst") for e in h.other.got))
        (said,) = [e for e in h.other.got if e.content == Message(text="psst")]
        assert said.sender == xm("juliet")
        chat = f"alice%m.example@{GW}/juliet@x.example"
        assert h.ctx.get_link(chat) is not None
        native = f"!dm {mx('alice').id} {xm('juliet').id}"
        assert h.app.contexts["matrix"].get_link(native) is not None
        await h.other.submit((mx("alice"), Message(text="yes?")), room_id=native)
        await h.link.until(lambda: "yes?" in h.link.bodies("juliet@x.example"))


async def test_private_messages_can_be_turned_off() -> None:
    async with with_people(private_messages=False) as h:
        for nick in ("Romeo", "Alice"):
            h.link.receive(message(JULIET, f"{ROOM}/{nick}", "<body>psst</body>", "chat"))
            await h.link.line(f"juliet/a < {nick} message error: cancel not-allowed")
        assert h.link.bodies(ROMEO) == []
        assert [link.native.id for link in h.ctx.list_links()] == [ROOM]


@pytest.mark.parametrize("allowed", [True, False])
async def test_the_form_of_the_owner_says_whether_private_messages_are_carried(allowed: bool) -> None:
    async with with_people(owners=["xmpp:juliet@x.example"], private_messages=allowed) as h:
        answer = await ask(h, JULIET, "<query xmlns='http://jabber.org/protocol/muc#owner'/>", "get")
        found = next(e for e in answer.iter() if e.get("var") == "muc#roomconfig_allowpm")
        assert found.findtext("{*}value") == ("participants" if allowed else "none")


async def test_who_has_no_voice_writes_to_moderators_alone() -> None:
    async with owned() as h:
        assert await change(h, JULIET, item(nick="Romeo", role="visitor")) == "result"
        h.link.receive(message(ROMEO, f"{ROOM}/Eve", "<body>psst</body>", "chat"))
        await h.link.line("romeo/b < Eve message error: auth forbidden")
        h.link.receive(message(ROMEO, f"{ROOM}/Jule", "<body>why?</body>", "chat"))
        await h.link.until(lambda: "why?" in h.link.bodies(JULIET))
        assert h.link.bodies(EVE) == []


async def test_many_private_messages_of_one_person_are_refused() -> None:
    async with with_people() as h:
        for _ in range(40):
            h.link.receive(message(JULIET, f"{ROOM}/Romeo", "<body>psst</body>", "chat"))
        await h.link.line("juliet/a < Romeo message error: wait resource-constraint")
        assert 30 <= len(h.link.bodies(ROMEO)) < 40


async def test_a_nick_cannot_be_registered() -> None:
    async with with_people() as h:
        for type_ in ("get", "set"):
            answer = await ask(h, JULIET, "<query xmlns='jabber:iq:register'/>", type_)
            assert result_of(answer) == "service-unavailable"
            assert "nick" in (answer.findtext(".//{*}text") or "")
