"""What XMPP people change in a room that no other network decides: kicks, bans, voice, ranks, lists, the form
of the owner, and moderation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from xml.etree.ElementTree import Element

import pytest
from hansa import (
    Action,
    Crossing,
    EventIn,
    JoinRule,
    Member,
    Membership,
    Message,
    Name,
    Reason,
    Retraction,
    Role,
    Standing,
    Verdict,
)
from hansa.bus.policy_dispatch import InstalledPolicy
from xmpp.stanzas import NS, ROOM, iq
from xmpp.xmpp_server import XmppServer, mx, xm, xmpp_server

JULIET, ROMEO, EVE = "juliet@x.example/a", "romeo@x.example/b", "eve@x.example/c"
ADMIN, OWNER = "http://jabber.org/protocol/muc#admin", "http://jabber.org/protocol/muc#owner"
ALICE = "alice%m.example@gw.example"


@asynccontextmanager
async def owned() -> AsyncIterator[XmppServer]:
    """Juliet owns the room; Romeo, Eve and, on another network, Alice are in it."""
    async with xmpp_server(owners=["xmpp:juliet@x.example"]) as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.enter(JULIET, "Jule")
        await h.enter(ROMEO, "Romeo")
        await h.enter(EVE, "Eve")
        yield h


async def ask(h: XmppServer, full: str, inner: str, type_: str = "set") -> Element:
    """The answer to an IQ."""
    before = len(h.link.sent)
    h.link.receive(iq(full, ROOM, inner, type_=type_))

    def answer() -> Element | None:
        sent = h.link.sent[before:]
        return next((e for e in sent if e.tag.endswith("}iq") and e.get("to") == full), None)

    found = await h.link.until(answer)
    assert isinstance(found, Element)
    return found


def query(*items: str) -> str:
    return f"<query xmlns='{ADMIN}'>{''.join(items)}</query>"


def item(reason: str = "", **attributes: str) -> str:
    inner = f"<reason>{reason}</reason>" if reason else ""
    given = " ".join(f"{name}='{value}'" for name, value in attributes.items())
    return f"<item {given}>{inner}</item>"


def result_of(e: Element) -> str:
    """``result``, or the condition of an error."""
    error = e.find(f"{{{NS}}}error")
    return "result" if error is None else error[0].tag.rpartition("}")[2]


async def change(h: XmppServer, full: str, *items: str) -> str:
    return result_of(await ask(h, full, query(*items)))


async def listed(h: XmppServer, full: str, **attributes: str) -> list[str]:
    answer = await ask(h, full, query(item(**attributes)), "get")
    assert answer.get("type") == "result", result_of(answer)
    return sorted(e.get("nick", "") or e.get("jid", "") for e in answer.iter(f"{{{ADMIN}}}item"))


def told(h: XmppServer) -> list[object]:
    """What the other network got, without who came."""
    return [
        e.content
        for e in h.other.got
        if not (isinstance(e.content, Member) and e.content.membership is Membership.JOIN)
    ]


def role(h: XmppServer, name: str) -> tuple[Role, bool]:
    person = h.view.person(xm(name))
    assert person is not None
    return person.role, person.voice


async def test_an_owner_kicks_bans_and_lifts_the_ban_with_reasons() -> None:
    async with owned() as h:
        assert await change(h, JULIET, item("enough", nick="Romeo", role="none")) == "result"
        await h.link.line("romeo/b < Romeo presence unavailable: [110 307]")
        out = next(e for e in h.link.sent if e.get("to") == EVE and e.get("type") == "unavailable")
        assert out.findtext(".//{*}reason") == "enough"
        assert [a.get("nick") for a in out.iter("{http://jabber.org/protocol/muc#user}actor")] == ["Jule"]
        assert await change(h, JULIET, item("spam", jid=EVE, affiliation="outcast")) == "result"
        await h.link.line("eve/c < Eve presence unavailable: [110 301]")
        assert await change(h, JULIET, item(jid=ALICE, affiliation="outcast")) == "result"
        await h.link.line("juliet/a < Alice presence unavailable: [301]")
        assert await listed(h, JULIET, affiliation="outcast") == [ALICE, "eve@x.example"]
        assert await change(h, JULIET, item(jid="eve@x.example", affiliation="none")) == "result"
        assert h.membership(xm("eve")) is Membership.LEAVE
        await h.enter(EVE, "Eve")
        await h.until(lambda: len(told(h)) >= 4)
        assert [(c.user, c.membership, c.reason) for c in told(h) if isinstance(c, Member)] == [
            (xm("romeo"), Membership.LEAVE, "enough"),
            (xm("eve"), Membership.BAN, "spam"),
            (mx("alice"), Membership.BAN, ""),
            (xm("eve"), Membership.LEAVE, ""),
        ]


async def test_ranks_and_voice_are_given_taken_and_shown() -> None:
    async with owned() as h:
        assert await change(h, JULIET, item(jid=ROMEO, affiliation="admin")) == "result"
        assert role(h, "romeo") == (Role.MODERATOR, True)
        await h.link.line("eve/c < Romeo presence:")
        shown = [
            e.get("affiliation")
            for s in h.link.sent
            if s.get("to") == EVE and s.get("from") == f"{ROOM}/Romeo"
            for e in s.iter("{http://jabber.org/protocol/muc#user}item")
        ]
        assert shown[-1] == "admin"
        assert await change(h, ROMEO, item(nick="Eve", role="visitor")) == "result"
        assert role(h, "eve") == (Role.VISITOR, False)
        h.say(EVE, "mute")
        await h.link.line("eve/c < * message error: auth forbidden")
        assert await listed(h, ROMEO, role="visitor") == ["Eve"]
        assert await listed(h, ROMEO, role="moderator") == ["Jule", "Romeo"]
        assert await change(h, ROMEO, item(nick="Eve", role="participant")) == "result"
        assert role(h, "eve") == (Role.MEMBER, True)
        assert await listed(h, EVE, affiliation="owner") == ["juliet@x.example"]
        assert await listed(h, EVE, affiliation="admin") == ["romeo@x.example"]
        assert await change(h, JULIET, item(jid=ROMEO, affiliation="owner")) == "result"
        assert await change(h, ROMEO, item(jid=JULIET, affiliation="none")) == "result"
        assert (role(h, "juliet")[0], role(h, "romeo")[0]) == (Role.MEMBER, Role.OWNER)
        await h.until(lambda: len(told(h)) >= 5)
        assert all(isinstance(content, Standing) for content in told(h))


async def test_who_has_no_rank_changes_nothing() -> None:
    async with owned() as h:
        assert await change(h, JULIET, item(jid=ROMEO, affiliation="admin")) == "result"
        before = {p.user: (p.membership, p.role, p.voice) for p in h.view.people.values()}
        for full, wanted, answer in (
            (EVE, item(nick="Jule", role="none"), "forbidden"),
            (EVE, item(jid=ALICE, affiliation="outcast"), "forbidden"),
            (EVE, item(jid=EVE, affiliation="owner"), "forbidden"),
            (EVE, item(nick="Alice", role="visitor"), "forbidden"),
            (ROMEO, item(nick="Jule", role="none"), "not-allowed"),
            (ROMEO, item(jid=JULIET, affiliation="outcast"), "not-allowed"),
            (ROMEO, item(jid=JULIET, affiliation="none"), "not-allowed"),
            (ROMEO, item(jid=EVE, affiliation="owner"), "forbidden"),
            (ROMEO, item(jid=ROMEO, affiliation="owner"), "forbidden"),
            (ROMEO, item(nick="Jule", role="participant"), "not-allowed"),
            (ROMEO, item(jid=ROMEO, affiliation="outcast"), "conflict"),
            (JULIET, item(jid=JULIET, affiliation="admin"), "conflict"),
            ("mal@x.example/m", item(jid=EVE, affiliation="outcast"), "forbidden"),
        ):
            assert await change(h, full, wanted) == answer, (full, wanted)
        assert {p.user: (p.membership, p.role, p.voice) for p in h.view.people.values()} == before
        for attributes in ({"affiliation": "outcast"}, {"role": "participant"}):
            assert result_of(await ask(h, EVE, query(item(**attributes)), "get")) == "forbidden"
        stranger = await ask(h, "mal@x.example/m", query(item(affiliation="owner")), "get")
        assert result_of(stranger) == "forbidden"


@pytest.mark.parametrize(
    ("items", "answer"),
    [
        ([], "bad-request"),
        (["<other/>"], "bad-request"),
        ([item(nick="Romeo")], "bad-request"),
        ([item(nick="Romeo", role="none", affiliation="none")], "bad-request"),
        ([item(nick="Romeo", role="king")], "bad-request"),
        ([item(nick="Nobody", role="none")], "item-not-found"),
        ([item(jid="x%y%z%q@gw.example", affiliation="outcast")], "item-not-found"),
        ([item(jid="@@", affiliation="outcast")], "jid-malformed"),
        ([item(jid="x.example", affiliation="outcast")], "not-allowed"),
        ([item("r" * 1025, nick="Romeo", role="none")], "policy-violation"),
        ([item(nick="Romeo", role="none")] * 51, "policy-violation"),
        ([item(nick="Romeo", role="none"), item(nick="Nobody", role="none")], "item-not-found"),
    ],
)
async def test_of_a_query_with_a_mistake_nothing_happens(items: list[str], answer: str) -> None:
    async with owned() as h:
        assert await change(h, JULIET, *items) == answer
        assert h.membership(xm("romeo")) is Membership.JOIN


async def test_of_several_changes_the_error_says_how_many_were_refused() -> None:
    async with owned() as h:
        assert await change(h, JULIET, item(jid=ROMEO, affiliation="admin")) == "result"
        wanted = query(item(nick="Eve", role="visitor"), item(nick="Jule", role="none"))
        answer = await ask(h, ROMEO, wanted)
        assert result_of(answer) == "not-allowed"
        assert (answer.findtext(".//{*}text") or "").startswith("1 of 2 changes were refused, first (Jule)")
        assert role(h, "eve") == (Role.VISITOR, False)


async def test_one_query_does_not_take_the_last_owner() -> None:
    async with owned() as h:
        assert await change(h, JULIET, item(jid=ROMEO, affiliation="owner")) == "result"
        both = (item(jid=ROMEO, affiliation="none"), item(jid=JULIET, affiliation="member"))
        assert await change(h, JULIET, *both) == "conflict"
        assert await change(h, JULIET, *reversed(both)) == "conflict"
        banned = (item(jid=ROMEO, affiliation="outcast"), item(jid=JULIET, affiliation="member"))
        assert await change(h, JULIET, *banned) == "conflict"
        assert (role(h, "juliet"), role(h, "romeo")) == ((Role.OWNER, True), (Role.OWNER, True))
        given = (item(jid=EVE, affiliation="owner"), item(jid=JULIET, affiliation="member"))
        assert await change(h, JULIET, item(jid=ROMEO, affiliation="none"), *given) == "result"
        assert (role(h, "juliet"), role(h, "eve")) == ((Role.MEMBER, True), (Role.OWNER, True))


async def test_who_is_not_pardoned_gets_no_rank() -> None:
    class KeepsBans:
        async def check(self, crossing: Crossing) -> Verdict | None:
            content = crossing.content if isinstance(crossing, EventIn) else None
            if isinstance(content, Member) and content.membership is Membership.LEAVE:
                return Verdict(Action.DENY, (Reason(code="NO", text="a ban stays"),))
            return None

    async with owned() as h:
        assert await change(h, JULIET, item(jid=EVE, affiliation="outcast")) == "result"
        h.app.decisions.replace([InstalledPolicy(name="keeps", policy=KeepsBans())])
        wanted = (item(jid=EVE, affiliation="owner"), item(jid=ROMEO, affiliation="admin"))
        assert await change(h, JULIET, *wanted) == "forbidden"
        assert h.membership(xm("eve")) is Membership.BAN
        assert (role(h, "eve"), role(h, "romeo")) == ((Role.MEMBER, True), (Role.MODERATOR, True))


async def test_a_members_only_room_lets_in_who_is_made_a_member() -> None:
    def form(name: str) -> str:
        fields = (
            f"<field var='muc#roomconfig_roomname'><value>{name}</value></field>"
            "<field var='muc#roomconfig_membersonly'><value>1</value></field>"
        )
        return f"<query xmlns='{OWNER}'><x xmlns='jabber:x:data' type='submit'>{fields}</x></query>"

    async with owned() as h:
        assert result_of(await ask(h, EVE, form("Mine"))) == "forbidden"
        assert result_of(await ask(h, JULIET, form("Ours"))) == "result"
        await h.link.line("eve/c < * message groupchat: [104]")
        assert (h.view.facts.name, h.view.facts.join_rule) == ("Ours", "invite")
        mal = "mal@x.example/m"
        h.link.receive(
            f"<presence from='{mal}' to='{ROOM}/Mal'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
        )
        await h.link.line("mal/m < Mal presence error: auth registration-required")
        assert await change(h, JULIET, item(jid=mal, affiliation="member")) == "result"
        await h.enter(mal, "Mal")
        members = await listed(h, EVE, affiliation="member")
        assert members == [ALICE, "eve@x.example", "mal@x.example", "romeo@x.example"]
        assert await change(h, JULIET, item(jid=mal, affiliation="none")) == "result"
        await h.link.line("mal/m < Mal presence unavailable: [110 307 321]")
        await h.until(lambda: len(told(h)) >= 4)
        assert told(h)[:2] == [Name(text="Ours"), JoinRule(rule="invite")]


OLD = (
    "<apply-to xmlns='urn:xmpp:fasten:0' id='{}'><moderate xmlns='urn:xmpp:message-moderate:0'>"
    "<retract xmlns='urn:xmpp:message-retract:0'/><reason>spam</reason></moderate></apply-to>"
)
NEW = (
    "<moderate xmlns='urn:xmpp:message-moderate:1' id='{}'>"
    "<retract xmlns='urn:xmpp:message-retract:1'/><reason>spam</reason></moderate>"
)


@pytest.mark.parametrize("form", [OLD, NEW])
async def test_a_moderator_retracts_what_another_said_in_both_forms(form: str) -> None:
    async with owned() as h:
        h.say(ROMEO, "buy")
        await h.until(lambda: Message(text="buy") in told(h))
        target = next(e.id for e in h.other.got if e.content == Message(text="buy"))
        assert result_of(await ask(h, EVE, form.format(target))) == "forbidden"
        assert result_of(await ask(h, JULIET, form.format(target))) == "result"
        await h.until(lambda: any(isinstance(c, Retraction) for c in told(h)))
        (shown,) = [
            e
            for e in h.link.sent
            if e.get("to") == EVE and e.find("{urn:xmpp:message-retract:1}retract") is not None
        ]
        old = shown.find("{urn:xmpp:fasten:0}apply-to/{urn:xmpp:message-moderate:0}moderated")
        assert old is not None and old.get("by") == f"{ROOM}/Jule"
        assert shown.get("from") == ROOM
