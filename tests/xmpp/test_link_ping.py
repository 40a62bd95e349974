"""What the XMPP server has not confirmed is sent again, and a link that carries nothing is ended."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hansa import Membership, Message
from hansa_xmpp import link_ping
from hansa_xmpp.link_ping import LinkPing
from xmpp.stanzas import GW, element
from xmpp.xmpp_server import mx, xmpp_server

JULIET = "juliet@x.example/a"


async def test_messages_that_a_dead_link_swallowed_are_sent_again_in_order() -> None:
    async with xmpp_server() as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.enter(JULIET, "Jule")
        await h.other.say("alice", "before")
        await h.link.until(lambda: h.link.bodies(JULIET))
        await h.confirmed()
        h.link.is_hole, h.link.is_echoing = True, False
        pings = h.link.link_pings
        await h.other.say("alice", *(f"t{n}" for n in range(30)))
        consumer = h.app.consumers["xmpp:lobby@" + GW]
        await h.until(lambda: consumer.position == consumer.room.head and h.link.link_pings > pings)
        assert consumer.confirmed == consumer.room.head - 30
        h.link.is_hole, h.link.is_echoing = False, True
        h.link.down()
        h.link.up()
        await h.link.until(lambda: len(h.link.bodies(JULIET)) >= 31)
        await h.confirmed()
        assert h.link.bodies(JULIET) == ["before", *(f"t{n}" for n in range(30))]


async def test_a_link_without_an_answer_is_ended_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_ping, "PING_EVERY_S", 0.01)
    monkeypatch.setattr(link_ping, "ANSWER_TIMEOUT_S", 0.05)
    async with xmpp_server() as h:
        await h.until(lambda: h.link.link_pings > 1)
        assert h.link.ended == []
        h.link.is_echoing = False
        await h.until(lambda: h.link.ended)
        assert h.app.status()["xmpp"] == ("down", "the XMPP server has not answered for 0 s")
        assert sum(h.counted("xmpp_link_dead").values()) == 1


async def test_a_server_that_answers_the_ping_with_an_error_has_confirmed_too() -> None:
    async with xmpp_server() as h:
        h.link.is_echoing = False
        sent: list[Any] = []
        ping = _ping(sent)
        task = asyncio.ensure_future(ping.run())
        ping.on_link_state(True)
        ping.on_sent("room@gw", 7, ping.connection)
        ping.on_sent("room@gw", 9, ping.connection - 1)
        ping.request("room@gw")
        ping.request("room that was sent nothing@gw")
        await h.until(lambda: sent)
        assert not ping.answered(element(f"<iq from='x.example' to='{GW}' id='link-1' type='result'/>"))
        assert not ping.answered(element(f"<iq from='{GW}' to='{GW}' id='other' type='result'/>"))
        assert not ping.answered(element(f"<message from='{GW}' to='{GW}' id='link-1'/>"))
        assert ping.answered(element(f"<iq from='{GW}' to='{GW}' id='link-of-another-time' type='error'/>"))
        assert ping.confirmed == []
        name = element(next(iter(sent[0].texts()))).get("id")
        assert ping.answered(element(f"<iq from='{GW}' to='{GW}' id='{name}' type='error'/>"))
        await h.until(lambda: ping.confirmed == [("room@gw", 7)])
        task.cancel()


class _Recorded(LinkPing):
    confirmed: list[tuple[str, int]]


def _ping(sent: list[Any]) -> _Recorded:
    confirmed: list[tuple[str, int]] = []
    ctx: Any = SimpleNamespace(
        config=SimpleNamespace(component=GW),
        random=SimpleNamespace(bytes=bytes),
        confirm_sent=lambda native, seq: confirmed.append((native, seq)),
    )
    made = _Recorded(ctx, sent.extend, lambda reason: None)
    made.confirmed = confirmed
    return made


async def test_each_part_of_a_long_text_is_shown() -> None:
    async with xmpp_server() as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.enter(JULIET, "Jule")
        text = "word " * 30_000
        await h.other.submit((mx("alice"), Message(text=text)))
        await h.confirmed()
        said = h.link.bodies(JULIET)
        assert len(said) > 1
        assert "".join(said).split() == text.split()
