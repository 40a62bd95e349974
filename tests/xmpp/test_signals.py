"""Typing and displayed markers in a hosted MUC, both ways."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from hansa import Action, Crossing, EphemeralIn, Membership, Reason, Receipt, Typing, Verdict
from xmpp.stanzas import ROOM, groupchat
from xmpp.xmpp_server import XmppServer, mx, xm, xmpp_server

JULIET, ROMEO = "juliet@x.example/a", "romeo@x.example/b"
STATES, MARKERS = "http://jabber.org/protocol/chatstates", "urn:xmpp:chat-markers:0"


def state(name: str) -> str:
    return groupchat(JULIET, f"<{name} xmlns='{STATES}'/>", id_="s")


def signals(h: XmppServer, full: str) -> list[tuple[str, str, str]]:
    """Who signalled what, and the id in it."""
    return [
        (e.get("from", "").partition("/")[2], child.tag.rpartition("}")[2], child.get("id", ""))
        for e in h.link.sent
        if e.get("to") == full and e.find("{*}body") is None
        for child in e
        if child.tag.startswith((f"{{{STATES}}}", f"{{{MARKERS}}}"))
    ]


def stable_id(h: XmppServer, body: str) -> str:
    found: list[Element] = [e for e in h.link.sent if e.findtext("{*}body") == body]
    return found[0].find("{urn:xmpp:sid:0}stanza-id").get("id", "")  # type: ignore[union-attr]


async def enter_all(h: XmppServer) -> None:
    await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
    await h.enter(JULIET, "Jule")
    await h.enter(ROMEO, "Romeo")


async def test_typing_crosses_both_ways_and_reaches_the_occupants() -> None:
    async with xmpp_server() as h:
        await enter_all(h)
        h.link.receive(state("composing"))
        h.link.receive(state("paused"))
        await h.link.until(lambda: len(signals(h, ROMEO)) == 2)
        assert signals(h, ROMEO) == [("Jule", "composing", ""), ("Jule", "paused", "")]
        assert h.other.signals == [
            Typing(user=xm("juliet"), typing=True),
            Typing(user=xm("juliet"), typing=False),
        ]
        await h.other.ctx.send_ephemeral("#lobby", Typing(user=mx("alice"), typing=True))
        await h.other.ctx.send_ephemeral("#lobby", Typing(user=mx("stranger"), typing=True))
        await h.other.ctx.send_ephemeral("#lobby", Typing(user=mx("alice"), typing=False))
        assert signals(h, JULIET)[2:] == [("Alice", "composing", ""), ("Alice", "paused", "")]


async def test_displayed_markers_are_receipts() -> None:
    async with xmpp_server() as h:
        await enter_all(h)
        await h.other.say("alice", "hello")
        await h.link.until(lambda: h.link.bodies(ROMEO))
        read = stable_id(h, "hello")
        for marked in (read, "nothing"):
            h.link.receive(groupchat(JULIET, f"<displayed xmlns='{MARKERS}' id='{marked}'/>"))
        await h.until(lambda: h.counted("xmpp_ignored").get("unknown marker"))
        (receipt,) = h.other.signals
        assert isinstance(receipt, Receipt)
        assert (receipt.user, receipt.event.id) == (xm("juliet"), read)
        assert signals(h, ROMEO) == [("Jule", "displayed", read)]
        h.say(JULIET, "answer")
        await h.link.until(lambda: "answer" in h.link.bodies(ROMEO))
        event = await h.ctx.event_with_id(ROOM, stable_id(h, "answer"))
        assert event is not None
        await h.other.ctx.send_ephemeral("#lobby", Receipt(user=mx("alice"), event=event, ts=1))
        assert signals(h, ROMEO)[1:] == [("Alice", "displayed", event.id)]


async def test_what_policies_deny_reaches_nobody() -> None:
    class NoSignals:
        async def check(self, crossing: Crossing) -> Verdict | None:
            if isinstance(crossing, EphemeralIn):
                return Verdict(Action.DENY, (Reason(code="NO", policy="p", rule="no"),))
            return None

    async with xmpp_server(policy=NoSignals()) as h:
        await enter_all(h)
        h.link.receive(state("composing"))
        h.say(JULIET, "the last")
        await h.link.until(lambda: "the last" in h.link.bodies(ROMEO))
        assert signals(h, ROMEO) == h.other.signals == []


async def test_one_person_has_a_share_of_the_signals() -> None:
    async with xmpp_server() as h:
        await enter_all(h)
        for _ in range(30):
            h.link.receive(state("composing"))
        h.say(JULIET, "the last")
        await h.link.until(lambda: "the last" in h.link.bodies(ROMEO))
        dropped = h.counted("xmpp_dropped")["signals"]
        assert dropped > 0
        assert len(signals(h, ROMEO)) + dropped == 30
