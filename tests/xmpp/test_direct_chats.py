"""One-to-one messages between XMPP users and puppets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hansa import (
    Action,
    Edit,
    EventIn,
    Invite,
    Member,
    Membership,
    Message,
    NativeId,
    Reaction,
    Reason,
    Retraction,
    RoomMember,
    Style,
    Verdict,
    ViewDelta,
)
from hansa_xmpp import direct_chats
from hansa_xmpp.proto import jid
from xmpp.stanzas import GW
from xmpp.xmpp_server import XmppServer, mx, xm, xmpp_server

PHONE, JULIET = "juliet@x.example/phone", "juliet@x.example"
ALICE = jid.puppet(mx("alice"), GW)
CHAT = f"{ALICE}/{JULIET}"
ROOM_ID = f"!dm {mx('alice').id} {JULIET}"


def chat(text: str, *, to: str = ALICE, inner: str = "", type_: str = "chat", id_: str = "m1") -> str:
    body = f"<body>{text}</body>" if text else ""
    return f"<message from='{PHONE}' to='{to}' id='{id_}' type='{type_}'>{body}{inner}</message>"


def errors_to(h: XmppServer, full: str = PHONE) -> list[tuple[str, str]]:
    """The condition and the text of each error message to a user."""
    told = []
    for e in h.link.sent:
        error = e.find("{*}error")
        if e.get("to") == full and e.get("type") == "error" and error is not None:
            condition = next(c for c in error if not c.tag.endswith("}text"))
            told.append((condition.tag.rpartition("}")[2], error.findtext("{*}text") or ""))
    return told


@asynccontextmanager
async def invited(**more: Any) -> AsyncIterator[XmppServer]:
    """Alice of Matrix has invited Juliet into a room of their own."""
    async with xmpp_server(**more) as h:
        await h.other.ctx.open_link("!room")
        join = Member(user=mx("alice"), membership=Membership.JOIN, name="Alice")
        invite = Member(user=xm("juliet"), membership=Membership.INVITE)
        done = await h.other.submit((mx("alice"), join), (mx("alice"), invite), room_id="!room")
        assert [d.refusal for d in done] == [None, None]
        view = h.other.ctx.get_view("!room")
        assert view is not None
        await h.until(lambda: f"xmpp:{CHAT}" in h.app.consumers and view.facts.direct)
        yield h


async def test_an_invite_opens_a_chat_in_which_words_go_both_ways():
    async with invited() as h:
        view = h.other.ctx.get_view("!room")
        await h.until(lambda: view.membership(xm("juliet")) is Membership.JOIN)
        said = Message(text="hello")
        await h.other.submit((mx("alice"), said), room_id="!room")
        await h.link.until(lambda: h.link.bodies(JULIET) == ["hello"])
        sent = next(e for e in h.link.sent if e.findtext("{*}body") == "hello")
        assert (sent.get("from"), sent.get("type")) == (ALICE, "chat")
        room = h.app.rooms.room_of(NativeId("xmpp", CHAT))
        await h.until(lambda: h.app.consumers[f"xmpp:{CHAT}"].position == room.head)
        event = await h.ctx.event_by(sent.get("id", ""))
        assert event is not None
        assert event.content == said
        h.link.receive(chat("hi alice"))
        await h.until(lambda: h.other.got[-1:] and h.other.got[-1].content == Message(text="hi alice"))
        assert h.other.got[-1].sender == xm("juliet")
        assert h.link.bodies(JULIET) == ["hello"]  # no reflection, and the notice is not for her


async def test_the_first_word_opens_the_chat_and_is_in_it():
    async with xmpp_server() as h:
        h.link.receive(chat("/me waves"))
        await h.until(
            lambda: [e for e in h.other.got if e.content == Message(text="waves", style=Style.EMOTE)]
        )
        link = h.ctx.get_link(CHAT)
        assert link is not None
        assert h.other.ctx.get_link(ROOM_ID).room == link.room
        assert errors_to(h) == []


@pytest.mark.parametrize(
    ("stanza", "condition", "text"),
    [
        (chat("x", to=jid.puppet(mx("nobody"), GW)), "item-not-found", "there is no @nobody"),
        (chat("x", to=f"^-abc@{GW}"), "item-not-found", "nobody has this address"),
        (chat("x", to=jid.puppet(NativeId("irc", "n"), GW)), "remote-server-timeout", "irc is not running"),
        (chat("x", type_="groupchat"), "bad-request", "a person"),
        (chat("x" * 40_000), "policy-violation", "32768"),
        (chat("x", id_="i" * 300), "bad-request", "256"),
        (
            chat("?", inner="<encrypted xmlns='eu.siacs.conversations.axolotl'/>"),
            "not-acceptable",
            "not encrypted",
        ),
    ],
)
async def test_what_reaches_nobody_is_refused_in_words(stanza: str, condition: str, text: str):
    async with xmpp_server() as h:
        h.link.receive(stanza)
        await h.link.until(lambda: errors_to(h))
        ((told, words),) = errors_to(h)
        assert told == condition
        assert text in words
        assert h.ctx.get_link(CHAT) is None


async def test_a_user_opens_so_many_new_chats_at_once():
    async with xmpp_server() as h:
        for n in range(11):
            h.link.receive(chat("x", to=jid.puppet(mx(f"user{n}"), GW), id_=f"m{n}"))
        await h.link.until(lambda: errors_to(h))
        assert errors_to(h) == [("resource-constraint", "too many new chats; try again later")]


async def test_so_many_chats_of_a_user_wait_for_an_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(direct_chats, "MAX_UNANSWERED", 2)
    async with xmpp_server() as h:
        for n in range(2):
            other = mx(f"user{n}")
            h.link.receive(chat("x", to=jid.puppet(other, GW), id_=f"m{n}"))
            await h.until(lambda n=n: len([e for e in h.other.got if e.content == Message(text="x")]) > n)
            waits = RoomMember(user=other, membership=Membership.INVITE)
            await h.other.ctx.reconcile_view(f"!dm {other.id} {JULIET}", ViewDelta(upserts=(waits,)))
        h.link.receive(chat("x", id_="m3"))
        await h.link.until(lambda: errors_to(h))
        assert errors_to(h) == [
            ("resource-constraint", "too many chats that nobody has answered; wait until someone does")
        ]
        assert h.ctx.get_link(CHAT) is None
        came = ViewDelta(upserts=(RoomMember(user=mx("user0"), membership=Membership.JOIN),))
        await h.other.ctx.reconcile_view(f"!dm {mx('user0').id} {JULIET}", came)
        h.link.receive(chat("x", id_="m4"))
        await h.until(lambda: h.ctx.get_link(CHAT))


async def test_words_to_who_leaves_each_time_invite_so_often():
    async with xmpp_server() as h:
        h.link.receive(chat("x"))
        await h.until(lambda: h.ctx.get_view(CHAT) and h.ctx.get_view(CHAT).membership(mx("alice")))
        out = ViewDelta(upserts=(RoomMember(user=mx("alice"), membership=Membership.LEAVE),))
        for n in range(10):
            await h.other.ctx.reconcile_view(ROOM_ID, out)
            h.link.receive(chat(f"again {n}", id_=f"n{n}"))
            await h.until(lambda n=n: errors_to(h) or h.other.got[-1].content == Message(text=f"again {n}"))
        assert errors_to(h) == [("resource-constraint", "too many new chats; try again later")]


async def test_a_person_who_does_not_exist_is_not_invited():
    async with xmpp_server() as h:
        h.link.absent.add("ghost@x.example")
        await h.other.ctx.open_link("!room")
        invite = Member(user=xm("ghost"), membership=Membership.INVITE)
        join = Member(user=mx("alice"), membership=Membership.JOIN)
        _, done = await h.other.submit((mx("alice"), join), (mx("alice"), invite), room_id="!room")
        assert done.refusal is not None
        assert "there is no ghost@x.example" in done.refusal.text


async def test_an_error_of_the_users_server_is_said_in_the_chat_and_bounded():
    async with invited() as h:
        inner = (
            "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
        )
        for n in range(5):
            h.link.receive(chat("", inner=inner, type_="error", id_=f"e{n}"))
        await h.until(lambda: h.counted("xmpp_ignored").get("error") == 2)
        notices = [e.content.text for e in h.other.got if isinstance(e.content, Message)]
        assert [n for n in notices if "did not get a message: service-unavailable" in n] == notices[-3:]
        assert errors_to(h) == []


async def test_who_is_not_in_the_chat_any_more_gets_nothing():
    async with invited() as h:
        view = h.other.ctx.get_view("!room")
        await h.until(lambda: view.membership(xm("juliet")) is Membership.JOIN)
        out = Member(user=xm("juliet"), membership=Membership.LEAVE)
        await h.other.submit((mx("alice"), out), (mx("alice"), Message(text="secret")), room_id="!room")
        await h.until(lambda: h.counted("xmpp_dropped").get("not in the chat"))
        assert h.link.bodies(JULIET) == []


async def test_words_wait_while_the_component_is_away():
    async with invited() as h:
        h.link.down()
        await h.other.submit((mx("alice"), Message(text="later")), room_id="!room")
        assert h.link.bodies(JULIET) == []
        h.link.up()
        await h.link.until(lambda: h.link.bodies(JULIET) == ["later"])


async def test_a_third_person_in_the_chat_is_named():
    async with invited() as h:
        join = Member(user=mx("carl"), membership=Membership.JOIN)
        await h.other.submit((mx("carl"), join), (mx("carl"), Message(text="hey")), room_id="!room")
        await h.link.until(lambda: h.link.bodies(JULIET) == ["<@carl:m.example> hey"])


class Denies:
    """A policy against one kind of crossing."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    async def check(self, crossing: Any) -> Verdict | None:
        reason = Reason(code="NO", policy="p", rule="r", text="not here")
        said = isinstance(crossing, self.kind) and not isinstance(getattr(crossing, "content", None), Member)
        return Verdict(Action.DENY, (reason,)) if said else None


@pytest.mark.parametrize("kind", [Invite, EventIn])
async def test_policies_judge_the_chat_and_the_words(kind: type):
    async with xmpp_server(policy=Denies(kind)) as h:
        h.link.receive(chat("hello"))
        await h.link.until(lambda: errors_to(h))
        ((condition, text),) = errors_to(h)
        assert condition == "policy-violation"
        assert "not here" in text
        assert not [e for e in h.other.got if isinstance(e.content, Message)]


async def last_content(h: XmppServer, kind: type) -> Any:
    """The newest thing of a kind that Alice's network was sent."""
    return await h.until(
        lambda: next((e.content for e in reversed(h.other.got) if isinstance(e.content, kind)), None)
    )


async def test_corrections_reactions_replies_and_retractions_cross_from_the_user():
    async with invited() as h:
        said = Message(text="over there")
        (done,) = await h.other.submit((mx("alice"), said), room_id="!room")
        await h.link.until(lambda: h.link.bodies(JULIET) == ["over there"])
        hers = done.event.id
        h.link.receive(chat("helo", id_="m1"))
        await h.until(lambda: [e for e in h.other.got if e.content == Message(text="helo")])
        mine = h.other.got[-1].id
        h.link.receive(chat("hello", inner="<replace xmlns='urn:xmpp:message-correct:0' id='m1'/>", id_="m2"))
        assert await last_content(h, Edit) == Edit(target=mine, message=Message(text="hello"))
        reacted = f"<reactions xmlns='urn:xmpp:reactions:0' id='{hers}'><reaction>+</reaction></reactions>"
        h.link.receive(chat("", inner=reacted, id_="m3"))
        assert await last_content(h, Reaction) == Reaction(target=hers, key="+")
        h.link.receive(chat("yes", inner=f"<reply xmlns='urn:xmpp:reply:0' id='{hers}'/>", id_="m4"))
        await h.until(lambda: [e for e in h.other.got if e.content == Message(text="yes", reply_to=hers)])
        h.link.receive(chat("", inner="<retract xmlns='urn:xmpp:message-retract:1' id='m1'/>", id_="m5"))
        assert (await last_content(h, Retraction)).target == mine
        assert errors_to(h) == []
        h.link.receive(chat("x", inner="<replace xmlns='urn:xmpp:message-correct:0' id='none'/>", id_="m6"))
        await h.link.until(lambda: errors_to(h))
        assert errors_to(h)[0][0] == "item-not-found"


async def test_corrections_reactions_and_retractions_cross_to_the_user():
    async with invited() as h:
        view = h.other.ctx.get_view("!room")
        await h.until(lambda: view.membership(xm("juliet")) is Membership.JOIN)
        (said,) = await h.other.submit((mx("alice"), Message(text="helo")), room_id="!room")
        first = said.event.id
        h.link.receive(chat("hi", id_="m1"))
        await h.until(lambda: [e for e in h.other.got if e.content == Message(text="hi")])
        hers = h.other.got[-1].id
        for content in (
            Edit(target=first, message=Message(text="hello")),
            Reaction(target=hers, key="+"),
            Retraction(target=first),
        ):
            (done,) = await h.other.submit((mx("alice"), content), room_id="!room")
            assert done.refusal is None

        def parts(tag: str, name: str = "id") -> list[str | None]:
            return [
                p.get(name) for e in h.link.sent if e.get("type") == "chat" for p in e.iter() if p.tag == tag
            ]

        await h.link.until(lambda: parts("{urn:xmpp:message-retract:1}retract"))
        assert parts("{urn:xmpp:message-correct:0}replace") == [first]
        assert parts("{urn:xmpp:reactions:0}reactions") == ["m1"]
        assert parts("{urn:xmpp:message-retract:1}retract") == [first]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("juliet@x.example", [JULIET]),
        (" xmpp:Juliet@X.example", [JULIET]),
        ("juliet", []),
        ("juliet@x", []),
        (PHONE, []),
        (f"someone@{GW}", []),
        ("a b@x.example", []),
        ("@alice:m.example", []),
        ("j" * 2000 + "@x.example", []),
    ],
)
async def test_a_search_finds_who_has_the_address(text: str, found: list[str]):
    async with xmpp_server() as h:
        assert [person.user.id for person in await h.xmpp.find_people(text, limit=5)] == found
