"""Survival of failures: a link that breaks, a process that dies, a history that meets the present."""

from __future__ import annotations

import asyncio
import random

import pytest
from hansa import Membership, Message
from hansa.store.memory import MemoryDisk
from peers.waiting import until
from xmpp.stanzas import ROOM, join
from xmpp.xmpp_server import XmppServer, mx, xm, xmpp_server

JULIET, PHONE, ROMEO = "juliet@x.example/a", "juliet@x.example/p", "romeo@x.example/b"


def history(attributes: str) -> str:
    return f"<x xmlns='http://jabber.org/protocol/muc'><history {attributes}/></x>"


async def until_kept(h: XmppServer, *fulls: str) -> None:
    """Wait until these connections are stored, and no others."""

    async def are_kept() -> bool:
        return await kept(h) == list(fulls)

    await until("the connections that are left", are_kept)


async def kept(h: XmppServer) -> list[str]:
    return [str(row.key[1]) for row in await h.ctx.store.scan("occupant")]


async def test_a_message_while_the_link_is_down_is_shown_once_when_it_is_back() -> None:
    async with xmpp_server() as h:
        await h.enter(JULIET, "Jule")
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.other.say("alice", "before")
        await h.link.until(lambda: h.link.bodies(JULIET))
        await h.confirmed()
        h.link.down()
        await h.other.say("alice", "one", "two")
        h.link.up()
        await h.link.until(lambda: len(h.link.bodies(JULIET)) == 3)
        assert h.link.bodies(JULIET) == ["before", "one", "two"]
        assert h.app.counters.get(("dead_letters", (("network", "xmpp"),))) is None


async def test_nothing_is_sent_to_an_occupant_before_it_has_answered() -> None:
    async with xmpp_server() as h:
        await h.enter(JULIET, "Jule")
        await h.enter(ROMEO, "Romeo")
        h.link.down()
        await h.other.member(mx("alice"), Membership.JOIN)
        await h.other.say("alice", "one")
        h.link.silent = {JULIET}
        h.link.sent.clear()
        h.link.up()
        ping = await h.link.until(lambda: next((e for e in h.link.sent if e.get("to") == JULIET), None))
        h.leave(ROMEO)
        h.link.receive(join(PHONE, "Jule"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert [e.tag.partition("}")[2] for e in h.link.sent] == ["iq", "iq"]
        assert (ping.get("from"), ping.get("type")) == (ROOM, "get")
        h.link.receive(f"<iq from='{JULIET}' to='{ROOM}' id='{ping.get('id')}' type='result'/>")
        await h.link.until(lambda: h.link.bodies(JULIET))
        await h.link.line("juliet/p < * message groupchat: subject=")


async def test_an_answer_counts_only_from_the_one_who_was_asked() -> None:
    async with xmpp_server(ping_timeout=0.2) as h:
        await h.enter(JULIET, "Jule")
        h.link.down()
        h.link.silent = {JULIET}
        h.link.sent.clear()
        h.link.up()
        ping = await h.link.until(lambda: next((e for e in h.link.sent if e.get("to") == JULIET), None))
        h.link.receive(f"<iq from='{ROMEO}' to='{ROOM}' id='{ping.get('id')}' type='result'/>")
        h.link.receive(f"<iq from='{JULIET}' to='{ROOM}' id='other' type='result'/>")
        await until_kept(h)
        assert h.membership(xm("juliet")) is Membership.JOIN


@pytest.mark.parametrize("how", ["error", "silence"])
async def test_who_is_gone_after_a_restart_is_no_occupant_and_stays_a_member(how: str) -> None:
    disk = MemoryDisk()
    async with xmpp_server(disk) as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.enter(JULIET, "Jule")
        await h.enter(PHONE, "Jule")
        await h.enter(ROMEO, "Romeo")
    async with xmpp_server(disk, up=False, ping_timeout=0.2) as h:
        assert await kept(h) == [JULIET, PHONE, ROMEO]
        await h.until(lambda: "matrix" in h.app.status() and h.app.status()["matrix"][0] == "up")
        await h.other.say("alice", "welcome back")
        h.link.online = {ROMEO}
        if how == "silence":
            h.link.silent = {JULIET, PHONE}
        h.link.up()
        await h.link.line("romeo/b < Jule presence unavailable: [307 333]")
        await h.link.until(lambda: h.link.bodies(ROMEO))
        assert h.link.lines("juliet") == []
        await until_kept(h, ROMEO)
        assert h.membership(xm("juliet")) is Membership.JOIN
        assert h.membership(xm("romeo")) is Membership.JOIN
        h.say(ROMEO, "alone")
        await h.link.line("romeo/b < Romeo message groupchat: body=alone")


async def test_a_member_whose_connection_nobody_remembers_is_away() -> None:
    disk = MemoryDisk()
    async with xmpp_server(disk) as h:
        await h.enter(JULIET, "Jule")
        await h.ctx.store.commit([_delete(JULIET)])
    async with xmpp_server(disk) as h:

        async def is_noted() -> bool:
            return [row.key for row in await h.ctx.store.scan("absence")] == [(ROOM, "juliet@x.example")]

        await until("her absence is noted", is_noted)
        assert h.membership(xm("juliet")) is Membership.JOIN


def _delete(full: str) -> object:
    from hansa import Delete

    return Delete("occupant", (ROOM, full))


async def test_a_renamed_occupant_keeps_the_new_nick_over_a_restart() -> None:
    disk = MemoryDisk()
    async with xmpp_server(disk) as h:
        await h.enter(JULIET, "Jule")
        h.link.receive(join(JULIET, "Capulet", inner=""))
        await h.link.line("juliet/a < Capulet presence: [110]")
        await h.until(lambda: h.app.pipeline.waiting("x") == 0)
        h.say(JULIET, "x")
        await h.link.until(lambda: h.link.bodies(JULIET))
    async with xmpp_server(disk, up=False) as h:
        h.link.online = {JULIET}
        h.link.up()
        h.say(JULIET, "me again")
        await h.link.line("juliet/a < Capulet message groupchat: body=me again")


async def test_occupant_ids_survive_a_restart() -> None:
    disk, seen = MemoryDisk(), set[str | None]()
    for _ in range(2):
        async with xmpp_server(disk) as h:
            await h.enter(JULIET, "Jule")
            own = h.link.sent[-2].find("{urn:xmpp:occupant-id:0}occupant-id")
            assert own is not None
            seen.add(own.get("id"))
            h.leave(JULIET)
            await h.until(lambda: h.membership(xm("juliet")) is Membership.LEAVE)
    assert len(seen) == 1


async def test_a_join_over_a_link_that_broke_meanwhile_asks_first() -> None:
    async with xmpp_server(ping_timeout=0.2) as h:
        await h.enter(ROMEO, "Romeo")
        h.link.down()
        h.link.is_up = True
        h.link.receive(join(JULIET, "Jule"))
        h.link.receive(join(PHONE, "Jule"))
        h.link.online.add(PHONE)
        h.link.up()
        await h.link.line("juliet/p < Jule presence: [100 110 170]")
        assert h.link.lines("juliet/a") == []
        assert await kept(h) == [PHONE, ROMEO]


@pytest.mark.parametrize("seed", range(30))
async def test_history_and_live_are_each_body_once_in_order(seed: int) -> None:
    """A user joins at any moment of a burst: each message is either history or live, never both."""
    chance = random.Random(seed)
    async with xmpp_server() as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.enter(ROMEO, "Romeo")
        texts = [f"t{n}" for n in range(150)]
        joins = {chance.randrange(150) for _ in range(3)}
        for n, text in enumerate(texts):
            if n in joins:
                h.link.online.add(f"u{n}@x.example/r")
                h.link.receive(
                    join(f"u{n}@x.example/r", f"u{n}", inner=history("since='1970-01-01T00:00:00Z'"))
                )
            if chance.random() < 0.5:
                await h.other.say("alice", text)
            else:
                h.say(ROMEO, text)
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                await h.until(lambda text=text: text in h.link.bodies(ROMEO))
        await h.link.until(lambda: len(h.link.bodies(ROMEO)) == 150)
        for n in joins:
            await h.link.until(lambda n=n: len(h.link.bodies(f"u{n}@x.example/r")) >= 150)
            assert h.link.bodies(f"u{n}@x.example/r") == texts, f"seed {seed}"


async def test_a_backlog_a_crash_and_a_rejoin_since() -> None:
    """The link is down, 300 messages come, the process dies; later the link is back and juliet rejoins."""
    disk = MemoryDisk()
    async with xmpp_server(disk) as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.enter(JULIET, "Jule")
        await h.other.say("alice", "last seen")
        await h.link.until(lambda: h.link.bodies(JULIET))
        await h.confirmed()
        since = (await h.ctx.read_history(ROOM, limit=1))[0].received + 1
        await h.until(lambda: h.ctx.clock.now() >= since)  # what comes now is of a later millisecond
        h.link.down()
        for n in range(0, 150, 10):
            await h.other.say("alice", *(f"t{k}" for k in range(n, n + 10)))
    async with xmpp_server(disk, up=False) as h:
        await h.until(lambda: "matrix" in h.app.status() and h.app.status()["matrix"][0] == "up")
        for n in range(150, 300, 10):
            await h.other.say("alice", *(f"t{k}" for k in range(n, n + 10)))
        h.link.up()
        from hansa_xmpp.proto.convert import format_timestamp

        await h.enter(JULIET, "Jule", inner=history(f"since='{format_timestamp(since)}'"))
        await h.other.say("alice", "end")
        await h.link.until(lambda: "end" in h.link.bodies(JULIET))
        assert h.link.bodies(JULIET) == [*(f"t{k}" for k in range(300)), "end"]


async def test_who_begins_anew_and_is_refused_is_out() -> None:
    """A client that comes back while it is being asked, under a nick that is taken by now."""
    disk = MemoryDisk()
    async with xmpp_server(disk) as h:
        await h.enter(JULIET, "Jule")
        await h.enter(ROMEO, "Romeo")
    async with xmpp_server(disk, up=False) as h:
        h.link.online = {JULIET, ROMEO}
        h.link.up()
        h.link.receive(join(JULIET, "Romeo"))
        await until_kept(h, ROMEO)
        assert h.membership(xm("juliet")) is Membership.JOIN
        assert [x for x in h.link.lines("juliet") if "error" in x]
        h.say(ROMEO, "alone")
        await h.link.line("romeo/b < Romeo message groupchat: body=alone")
        assert h.link.bodies(JULIET) == [] and await kept(h) == [ROMEO]


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("", 5),
        ("maxstanzas='2'", 2),
        ("maxstanzas='0'", 0),
        ("maxchars='0'", 0),
        ("maxstanzas='100'", 12),
        ("since='1970-01-01T00:00:00Z'", 12),
        ("seconds='3600'", 12),
        ("seconds='3600' maxstanzas='7'", 7),
        ("since='2999-01-01T00:00:00Z'", 0),
        ("maxchars='900'", 2),
    ],
)
async def test_how_much_history(asked: str, shown: int) -> None:
    async with xmpp_server(history=5, history_most=12) as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        for n in range(20):
            await h.other.say("alice", f"t{n}")
            await h.other.member(mx("bob"), Membership.JOIN if n % 2 else Membership.LEAVE)
        await h.enter(JULIET, "Jule", inner=history(asked))
        assert h.link.bodies(JULIET) == [f"t{n}" for n in range(20 - shown, 20)]
        sizes = [len(x) for x in h.link.lines("juliet") if "body" in x]
        assert len(sizes) == shown


async def test_a_restarted_network_begins_anew() -> None:
    """A crash of the network's own task restarts it; occupants are asked again, nothing is lost."""
    async with xmpp_server() as h:
        await h.enter(JULIET, "Jule")
        await h.other.member(mx("alice"), Membership.JOIN)
        first, listener = h.xmpp, h.link.listener

        async def crash() -> None:
            raise RuntimeError("a bug")

        h.ctx.spawn(crash(), "crash")
        await h.until(lambda: len(h.networks) == 2)
        assert h.xmpp is not first
        await h.other.say("alice", "hello")
        await h.until(lambda: h.link.listener is not listener)
        h.link.up()
        await h.link.until(lambda: h.link.bodies(JULIET))
        assert [e.content for e in await h.ctx.read_history(ROOM, limit=1)] == [Message(text="hello")]
