"""XMPP users who ask for the presence of people of other networks."""

from __future__ import annotations

from typing import Any

import pytest
from hansa import (
    Action,
    Crossing,
    Invite,
    Membership,
    NativeId,
    PersonPresence,
    PresenceState,
    Reason,
    Verdict,
)
from hansa_xmpp import subscriptions
from hansa_xmpp.proto import jid
from xmpp.stanzas import GW, ROOM
from xmpp.xmpp_server import XmppServer, mx, xmpp_server

PHONE, JULIET = "juliet@x.example/phone", "juliet@x.example"
ALICE = jid.puppet(mx("alice"), GW)
CHAT = f"{ALICE}/{JULIET}"


def ask(h: XmppServer, type_: str = "subscribe", to: str = ALICE) -> None:
    """Juliet's server passes a request on, or asks."""
    sender = PHONE if type_ == "probe" else JULIET
    h.link.receive(f"<presence from='{sender}' to='{to}' type='{type_}'><show>away</show></presence>")


def told(h: XmppServer) -> list[tuple[str, str, str]]:
    """Each presence that Juliet was sent: its sender, its type or show, and its status."""
    return [
        (e.get("from", ""), e.get("type") or e.findtext("{*}show") or "", e.findtext("{*}status") or "")
        for e in h.link.sent
        if e.tag.endswith("}presence") and e.get("to") == JULIET
    ]


async def show(h: XmppServer, state: PresenceState, text: str = "", native: str = ROOM) -> None:
    link = h.ctx.get_link(native)
    assert link is not None
    await h.networks[0].show_presence(link, PersonPresence(user=mx("alice"), state=state, text=text))


async def ignored(h: XmppServer, why: str) -> None:
    await h.until(lambda: h.counted("xmpp_ignored").get(why))


@pytest.mark.parametrize(
    ("to", "answer"),
    [
        (ALICE, "subscribed"),
        (jid.puppet(mx("nobody"), GW), "unsubscribed"),
        (jid.puppet(NativeId("irc", "n"), GW), "unsubscribed"),
        (f"^-abc@{GW}", "unsubscribed"),
    ],
)
async def test_a_request_is_answered_and_opens_no_chat(to: str, answer: str) -> None:
    async with xmpp_server() as h:
        ask(h, to=to)
        await h.link.until(lambda: told(h))
        assert told(h) == [(to, answer, "")]
        assert h.ctx.get_link(CHAT) is None
        ask(h, "unsubscribe", to)
        await h.link.until(lambda: len(told(h)) == 2)
        assert told(h)[-1] == (to, "unsubscribed", "")


async def test_the_setting_declines_all_requests() -> None:
    async with xmpp_server(answer_subscriptions=False, puppet_presence=True) as h:
        ask(h)
        await h.link.until(lambda: told(h))
        assert told(h) == [(ALICE, "unsubscribed", "")]


async def test_a_policy_declines_it() -> None:
    class NoInvites:
        async def check(self, crossing: Crossing) -> Verdict | None:
            denied = Verdict(Action.DENY, (Reason(code="NO", policy="p", rule="no"),))
            return denied if isinstance(crossing, Invite) else None

    async with xmpp_server(policy=NoInvites()) as h:
        ask(h)
        await h.link.until(lambda: told(h))
        assert told(h) == [(ALICE, "unsubscribed", "")]


async def test_a_puppet_s_presence_is_off_unless_an_operator_wants_it() -> None:
    async with xmpp_server() as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.enter(PHONE, "Jule")
        ask(h)
        await h.link.until(lambda: told(h))
        await show(h, PresenceState.AWAY)
        ask(h, "probe")
        ask(h, "")  # what it answers comes behind
        await ignored(h, "presence type")
        assert told(h) == [(ALICE, "subscribed", "")]


async def test_a_puppet_s_presence_is_coarse_and_for_those_who_share_a_room() -> None:
    async with xmpp_server(puppet_presence=True) as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await show(h, PresenceState.AWAY, "at the ball")
        ask(h, "probe")
        await h.link.until(lambda: len(told(h)) == 1)
        assert told(h) == [(f"{ALICE}/hansa", "unavailable", "")]
        await h.enter(PHONE, "Jule")
        ask(h)
        await h.link.until(lambda: len(told(h)) == 3)
        assert told(h)[1:] == [(ALICE, "subscribed", ""), (f"{ALICE}/hansa", "away", "")]


async def test_a_puppet_s_presence_in_a_chat_is_sent_when_it_changes() -> None:
    async with xmpp_server(puppet_presence=True) as h:
        h.link.receive(f"<message from='{PHONE}' to='{ALICE}' id='m' type='chat'><body>hi</body></message>")
        await h.until(lambda: h.ctx.get_link(CHAT) is not None)
        await show(h, PresenceState.AWAY, native=CHAT)
        assert told(h) == []  # nobody has asked
        ask(h, "probe")
        await h.link.until(lambda: len(told(h)) == 1)
        for state in (PresenceState.BUSY, PresenceState.HERE, PresenceState.OFFLINE):
            await show(h, state, "text", native=CHAT)
        assert [said[1:] for said in told(h)[1:]] == [("dnd", ""), ("", ""), ("unavailable", "")]
        ask(h, "unsubscribe")
        await h.link.until(lambda: len(told(h)) == 5)
        await show(h, PresenceState.AWAY, native=CHAT)
        assert len(told(h)) == 5


async def test_one_user_has_a_share_of_the_requests(monkeypatch: Any) -> None:
    monkeypatch.setattr(subscriptions, "_MAX_OF_USER", 3.0)
    async with xmpp_server() as h:
        for _ in range(10):
            ask(h)
        await h.until(lambda: h.counted("xmpp_dropped").get("presence") == 7)
        assert len(told(h)) == 3


@pytest.mark.parametrize("type_", ["", "unavailable", "subscribed", "unsubscribed", "error", "odd"])
async def test_other_presences_to_a_puppet_are_not_answered(type_: str) -> None:
    async with xmpp_server(puppet_presence=True) as h:
        ask(h, type_)
        await ignored(h, "presence type")
        assert told(h) == []
