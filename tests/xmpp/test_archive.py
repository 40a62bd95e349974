"""The archive of a hosted room (XEP-0313), on a real core with a scripted network."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from hansa import (
    Action,
    Membership,
    NativeId,
    Reaction,
    Reason,
    RoomInfo,
    Topic,
    Verdict,
    ViewDelta,
    texts_of,
)
from hansa_xmpp import archive
from xmpp.stanzas import GW, NS, ROOM, groupchat, iq
from xmpp.xmpp_server import XmppServer, mx, xmpp_server

JULIET, ROMEO, EVE = "juliet@x.example/a", "romeo@x.example/b", "eve@x.example/c"
MAM, RSM, CLIENT = "{urn:xmpp:mam:2}", "{http://jabber.org/protocol/rsm}", "{jabber:client}"
REACTIONS = "{urn:xmpp:reactions:0}reactions"
RETRACT = "{urn:xmpp:message-retract:1}"


def form(**fields: str | list[str]) -> str:
    inner = "<field var='FORM_TYPE' type='hidden'><value>urn:xmpp:mam:2</value></field>"
    for name, values in fields.items():
        listed = values if isinstance(values, list) else [values]
        each = "".join(f"<value>{value}</value>" for value in listed)
        inner += f"<field var='{name.strip('_').replace('_', '-')}'>{each}</field>"
    return f"<x xmlns='jabber:x:data' type='submit'>{inner}</x>"


def rsm(inner: str) -> str:
    return f"<set xmlns='http://jabber.org/protocol/rsm'>{inner}</set>"


@dataclass
class Answer:
    """What a query was answered with."""

    iq: Element
    results: list[Element] = field(default_factory=list)

    @property
    def error(self) -> str:
        found = self.iq.find(f"{{{NS}}}error")
        if found is None:
            return ""
        return next(c.tag.rpartition("}")[2] for c in found if not c.tag.endswith("}text"))

    @property
    def ids(self) -> list[str]:
        return [result.get("id", "") for result in self.results]

    @property
    def messages(self) -> list[Element]:
        return [m for r in self.results if (m := r.find(f".//{CLIENT}message")) is not None]

    @property
    def bodies(self) -> list[str]:
        return [m.findtext(f"{CLIENT}body") or "" for m in self.messages]

    @property
    def complete(self) -> bool:
        (fin,) = self.iq.findall(f"{MAM}fin")
        return fin.get("complete") == "true"

    def end(self, name: str) -> str:
        return self.iq.findtext(f"{MAM}fin/{RSM}set/{RSM}{name}") or ""


async def ask(h: XmppServer, full: str, inner: str, type_: str = "set", to: str = ROOM) -> Answer:
    before = len(h.link.sent)
    name = f"q{before}"
    h.link.receive(iq(full, to, inner, type_=type_, id_=name))
    found = await h.link.until(lambda: [e for e in h.link.sent if e.get("id") == name])
    results = [e for e in h.link.sent[before:] if e.get("to") == full and e.find(f"{MAM}result") is not None]
    return Answer(found[0], [r for e in results if (r := e.find(f"{MAM}result")) is not None])


async def query(h: XmppServer, full: str, page: str = "", more: str = "", **fields: Any) -> Answer:
    filters = form(**fields) if fields else ""
    page = rsm(page) if page else ""
    return await ask(h, full, f"<query xmlns='urn:xmpp:mam:2' queryid='f27'>{filters}{page}{more}</query>")


async def settled(h: XmppServer) -> None:
    room = h.app.rooms.room_of(NativeId("xmpp", ROOM))
    await h.until(lambda: h.ctx.delivered_seq(ROOM) == room.head)


async def heard(h: XmppServer, text: str) -> Element:
    """The message with a text, as a client got it live."""

    def found() -> list[Element]:
        return [
            e for e in h.link.sent if e.findtext(f"{{{NS}}}body") == text and e.get("type") == "groupchat"
        ]

    return (await h.link.until(found))[-1]


def stanza_id(e: Element) -> str:
    found = e.find("{urn:xmpp:sid:0}stanza-id")
    assert found is not None
    return found.get("id", "")


async def enter_both(h: XmppServer) -> None:
    await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
    await h.enter(JULIET, "Jule")
    await h.enter(ROMEO, "Romeo")


def sayer(h: XmppServer, full: str, inner: str, id_: str) -> None:
    h.link.receive(groupchat(full, inner, id_=id_))


async def test_who_was_away_reads_what_they_missed_as_it_was_sent() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        extra = "<x xmlns='urn:some:ext'>kept</x><thread>t</thread>"
        sayer(h, JULIET, f"<body>helo</body>{extra}", "k1")
        first = await heard(h, "helo")
        sayer(h, JULIET, "<body>hello</body><replace xmlns='urn:xmpp:message-correct:0' id='k1'/>", "k2")
        await heard(h, "hello")
        mark = "<reaction>👍</reaction>"
        sayer(
            h,
            ROMEO,
            f"<reactions xmlns='urn:xmpp:reactions:0' id='{stanza_id(first)}'>{mark}</reactions>",
            "k3",
        )
        await h.link.until(lambda: [e for e in h.link.sent if e.find(REACTIONS) is not None])
        await h.other.say("alice", "from afar")
        await h.other.submit((mx("alice"), Topic(text="news")))
        await heard(h, "from afar")
        await settled(h)
        live = [
            e for e in h.link.sent if e.get("to") == ROMEO and e.find("{urn:xmpp:sid:0}stanza-id") is not None
        ]
        h.link.online.discard(ROMEO)  # the connection is lost, and Romeo stays a member
        h.leave(ROMEO)
        await h.until(lambda: h.app.counters.get(("xmpp_sessions_lost", (("plugin", "xmpp"),))))
        found = await query(h, "romeo@x.example/other")
        assert found.complete
        assert found.ids[: len(live)] == [stanza_id(e) for e in live]
        assert (found.end("first"), found.end("last")) == (found.ids[0], found.ids[-1])
        assert all(r.get("queryid") == "f27" for r in found.results)
        for was, stored in zip(live, found.messages, strict=False):
            assert stored.get("to") is None
            assert [was.get(a) for a in ("from", "id", "type")] == [
                stored.get(a) for a in ("from", "id", "type")
            ]
            tags = {c.tag.replace(NS, "jabber:client") for c in was}
            assert tags == {c.tag for c in stored} - {"{http://jabber.org/protocol/muc#user}x"}
        items = [m.find(".//{http://jabber.org/protocol/muc#user}item") for m in found.messages]
        assert [i.get("jid") for i in items if i is not None][:2] == ["juliet@x.example"] * 2
        delays = [r.find(".//{urn:xmpp:delay}delay") for r in found.results]
        assert all(d is not None and (d.get("stamp") or "").endswith("Z") for d in delays)
        assert found.bodies[:2] == ["helo", "hello"]
        assert [m.findtext(f"{CLIENT}subject") for m in found.messages][-1] == "news"


async def test_what_was_retracted_is_a_tombstone_and_the_retraction_stands_in_the_archive() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        sayer(h, JULIET, "<body>my secret</body><x xmlns='urn:some:ext'>secret too</x>", "k1")
        own = stanza_id(await heard(h, "my secret"))
        sayer(h, JULIET, "<body>other secret</body>", "k2")
        sayer(
            h, JULIET, "<body>edited secret</body><replace xmlns='urn:xmpp:message-correct:0' id='k1'/>", "k3"
        )
        second = await heard(h, "other secret")
        other = await h.ctx.event_with_id(ROOM, stanza_id(second))
        assert other is not None
        await h.other.submit((mx("alice"), Reaction(target=own, key="👀")))
        sayer(h, JULIET, f"<retract xmlns='{RETRACT[1:-1]}' id='{own}'><reason>so</reason></retract>", "k4")
        await h.link.until(lambda: [e for e in h.link.sent if e.find(f"{RETRACT}retract") is not None])
        await settled(h)
        found = await query(h, ROMEO)
        assert found.complete
        (stone,) = [m for m in found.messages if m.find(f"{RETRACT}retracted") is not None]
        assert (stone.get("from"), stone.get("id"), stanza_id(stone)) == (f"{ROOM}/Jule", "k1", own)
        retracted = stone.find(f"{RETRACT}retracted")
        assert retracted is not None
        assert (retracted.get("id"), retracted[0].text) == ("k4", "so")
        assert retracted.get("stamp")
        (told,) = [m for m in found.messages if m.find(f"{RETRACT}retract") is not None]
        assert told.get("id") == "k4"
        written = "".join(e.text or "" for r in found.results for e in r.iter())
        assert "my secret" not in written
        assert "edited" not in written
        assert "secret too" not in written
        assert found.bodies.count("other secret") == 1


async def test_each_person_reads_what_the_visibility_and_their_membership_allow() -> None:
    async with xmpp_server(owners=[str(mx("alice"))]) as h:
        await enter_both(h)
        joined = RoomInfo(history_visibility="joined")
        await h.ctx.reconcile_view(ROOM, ViewDelta(info=joined))
        h.say(JULIET, "before eve")
        before = stanza_id(await heard(h, "before eve"))
        assert (await query(h, EVE)).error == "forbidden"
        assert (await ask(h, EVE, "<metadata xmlns='urn:xmpp:mam:2'/>", "get")).error == "forbidden"
        await h.enter(EVE, "Eve")
        h.say(JULIET, "with eve")
        await heard(h, "with eve")
        found = await query(h, EVE)
        assert (found.bodies, found.complete) == (["with eve"], True)
        assert (await query(h, ROMEO)).bodies == ["before eve", "with eve"]
        for name in ("before_id", "after_id", "ids"):
            assert (await query(h, EVE, **{name: before})).error == "item-not-found", name
        assert (await query(h, EVE, page=f"<after>{before}</after>")).error == "item-not-found"
        await h.other.member(NativeId("xmpp", "eve@x.example"), Membership.BAN, mx("alice"))
        await h.until(lambda: h.membership(NativeId("xmpp", "eve@x.example")) is Membership.BAN)
        assert (await query(h, EVE)).error == "forbidden"
        await h.ctx.reconcile_view(ROOM, ViewDelta(info=RoomInfo(history_visibility="world_readable")))
        assert (await query(h, EVE)).error == "forbidden"
        h.say(JULIET, "for all")
        await heard(h, "for all")
        assert (await query(h, "nobody@far.example/x")).bodies == ["for all"]


class Censor:
    """Denies a word once it is told to, and a server."""

    def __init__(self) -> None:
        self.word = "-"

    async def check(self, crossing: Any) -> Verdict | None:
        bad = any(self.word in text for text in texts_of(crossing))
        bad = bad or getattr(crossing, "server", "") == "evil.example"
        return Verdict(Action.DENY, (Reason(code="NO", text="not that"),)) if bad else None


async def test_policies_of_now_judge_what_is_read_and_who_reads() -> None:
    async with xmpp_server(policy=Censor()) as h:
        await enter_both(h)
        h.say(JULIET, "one classified", "two")
        await heard(h, "two")
        assert (await query(h, ROMEO)).bodies == ["one classified", "two"]
        stricter = Censor()
        stricter.word = "classified"
        await h.govern(stricter)
        found = await query(h, ROMEO)
        assert found.bodies == ["two"]
        await h.enter("tom@evil.example/a", "Tom")
        assert (await query(h, "tom@evil.example/a")).error == "forbidden"


async def talk(h: XmppServer, chance: Random, number: int) -> None:
    """Messages, corrections, reactions, nicks, and long texts in parts."""
    for n in range(number):
        what = chance.random()
        if what < 0.1:
            await h.other.member(mx("alice"), Membership.JOIN, name=f"Alice {n}")
        elif what < 0.2:
            await h.other.say("alice", f"long {n} " + "word " * chance.choice([7000, 14_000]))
        else:
            await h.other.say("alice", f"m{n}")


@pytest.mark.parametrize("seed", range(4))
async def test_pages_have_every_message_once_in_both_directions(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_PERSON_RATE", 0.0)
    chance = Random(seed)
    async with xmpp_server() as h:
        await h.enter(JULIET, "Jule")
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await talk(h, chance, 40)
        await settled(h)
        monkeypatch.setattr(archive, "MAX_EXAMINED", 1000)
        whole = await query(h, JULIET, page="<max>100</max>")
        assert len(set(whole.ids)) == len(whole.ids) > 30
        assert any("." in name for name in whole.ids)
        for size in (1, 2, 7, 60):
            for examined in (3, 1000):
                monkeypatch.setattr(archive, "MAX_EXAMINED", examined)
                forth, last, complete = list[str](), "", False
                for _ in range(200):
                    after = f"<after>{last}</after>" if last else ""
                    page = await query(h, JULIET, page=f"<max>{size}</max>{after}")
                    forth, last, complete = [*forth, *page.ids], page.end("last"), page.complete
                    if complete:
                        break
                assert (forth, complete) == (whole.ids, True), (seed, size, examined)
                back, first, complete = list[str](), "", False
                for _ in range(200):
                    flip = chance.choice(["", "<flip-page/>"])
                    asked = f"<max>{size}</max><before>{first}</before>"
                    page = await query(h, JULIET, page=asked, more=flip)
                    back = [*(page.ids[::-1] if flip else page.ids), *back]
                    first, complete = page.end("first"), page.complete
                    if complete:
                        break
                assert (back, complete) == (whole.ids, True), (seed, size, examined)


async def test_filters_by_time_sender_and_ids() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        h.say(JULIET, "one")
        await heard(h, "one")
        h.say(ROMEO, "two")
        await heard(h, "two")
        await h.other.say("alice", "three")
        await heard(h, "three")
        ids = [stanza_id(await heard(h, text)) for text in ("one", "two", "three")]
        stamps = [
            r.find(".//{urn:xmpp:delay}delay").get("stamp")  # type: ignore[union-attr]
            for r in (await query(h, ROMEO)).results
        ]
        assert (await query(h, ROMEO, start=stamps[0], end=stamps[-1])).bodies == ["one", "two", "three"]
        assert (await query(h, ROMEO, start="2999-01-01T00:00:00Z")).complete
        assert (await query(h, ROMEO, end="1999-01-01T00:00:00Z")).results == []
        assert (await query(h, ROMEO, with_="juliet@x.example")).bodies == ["one"]
        assert (await query(h, ROMEO, with_="juliet@x.example/a")).bodies == ["one"]
        assert (await query(h, ROMEO, with_=f"{ROOM}/Romeo")).bodies == ["two"]
        assert (await query(h, ROMEO, with_=f"alice%m.example@{GW}")).bodies == ["three"]
        assert (await query(h, ROMEO, with_="stranger@x.example")).results == []
        assert (await query(h, ROMEO, after_id=ids[0])).bodies == ["two", "three"]
        assert (await query(h, ROMEO, after_id=ids[0], before_id=ids[2])).bodies == ["two"]
        assert (await query(h, ROMEO, ids=[ids[2], ids[0]])).bodies == ["one", "three"]
        assert (await query(h, ROMEO, page="<max>1</max><before/>", ids=[ids[2], ids[0]])).bodies == ["three"]
        assert (await query(h, ROMEO, page="<max>0</max>")).results == []
        assert (await query(h, ROMEO, ids=[ids[0], "none"])).error == "item-not-found"


async def test_metadata_and_the_form_and_what_the_room_says_it_can() -> None:
    async with xmpp_server() as h:
        await h.enter(JULIET, "Jule")
        asked = "<metadata xmlns='urn:xmpp:mam:2'/>"
        empty = await ask(h, JULIET, asked, "get")
        assert [len(e) for e in empty.iq] == [0]
        h.say(JULIET, "one", "two", "three")
        await heard(h, "three")
        ids = (await query(h, JULIET)).ids
        metadata = (await ask(h, JULIET, asked, "get")).iq[0]
        assert [(e.tag, e.get("id")) for e in metadata] == [(f"{MAM}start", ids[0]), (f"{MAM}end", ids[-1])]
        fields = (await ask(h, JULIET, "<query xmlns='urn:xmpp:mam:2'/>", "get")).iq.iter(
            "{jabber:x:data}field"
        )
        names = {f.get("var") for f in fields}
        assert names == {"FORM_TYPE", "with", "start", "end", "before-id", "after-id", "ids"}
        info = await ask(h, JULIET, "<query xmlns='http://jabber.org/protocol/disco#info'/>", "get")
        features = {f.get("var") for f in info.iq.iter("{http://jabber.org/protocol/disco#info}feature")}
        assert {
            "urn:xmpp:mam:2",
            "urn:xmpp:mam:2#extended",
            "urn:xmpp:message-retract:1#tombstone",
        } <= features


@pytest.mark.parametrize(
    ("inner", "error"),
    [
        ("<query xmlns='urn:xmpp:mam:2' node='n'/>", "item-not-found"),
        (f"<query xmlns='urn:xmpp:mam:2' queryid='{'q' * 300}'/>", "bad-request"),
        ("<metadata xmlns='urn:xmpp:mam:2'/>", "bad-request"),
        (f"<query xmlns='urn:xmpp:mam:2'>{form(unknown='x')}</query>", "feature-not-implemented"),
        (
            f"<query xmlns='urn:xmpp:mam:2'>{form(include_groupchat='true')}</query>",
            "feature-not-implemented",
        ),
        (f"<query xmlns='urn:xmpp:mam:2'>{form(start='yesterday')}</query>", "bad-request"),
        (f"<query xmlns='urn:xmpp:mam:2'>{form(start=['2020-01-01T00:00:00Z'] * 2)}</query>", "bad-request"),
        (f"<query xmlns='urn:xmpp:mam:2'>{form(ids=[])}</query>", "bad-request"),
        (
            f"<query xmlns='urn:xmpp:mam:2'>{form(ids=[str(n) for n in range(101)])}</query>",
            "policy-violation",
        ),
        (f"<query xmlns='urn:xmpp:mam:2'>{form()}{form()}</query>", "bad-request"),
        ("<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'/></query>", "bad-request"),
        ("<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='form'/></query>", "bad-request"),
        (f"<query xmlns='urn:xmpp:mam:2'>{rsm('<max>-1</max>')}</query>", "bad-request"),
        (f"<query xmlns='urn:xmpp:mam:2'>{rsm('<index>5</index>')}</query>", "feature-not-implemented"),
        (f"<query xmlns='urn:xmpp:mam:2'>{rsm('<after>none</after>')}</query>", "item-not-found"),
        (f"<query xmlns='urn:xmpp:mam:2'>{rsm('<before>none</before>')}</query>", "item-not-found"),
    ],
)
async def test_what_is_no_query_is_refused(inner: str, error: str) -> None:
    async with xmpp_server() as h:
        await h.enter(JULIET, "Jule")
        assert (await ask(h, JULIET, inner)).error == error


async def test_a_person_who_asks_much_is_slowed_down_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(archive, "_PERSON_RATE", 0.0001)
    monkeypatch.setattr(archive, "_PERSON_BURST", 3.0)
    async with xmpp_server() as h:
        await enter_both(h)
        h.say(JULIET, "one")
        await heard(h, "one")
        for n in range(6):
            h.link.receive(iq(JULIET, ROOM, "<query xmlns='urn:xmpp:mam:2'/>", type_="set", id_=f"many{n}"))
        await h.link.until(lambda: [e for e in h.link.sent if e.get("id") == "many2"])
        assert (await query(h, ROMEO)).bodies == ["one"]
        assert not [e for e in h.link.sent if e.get("id") == "many3"]


async def test_ids_are_paid_for_before_they_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_PERSON_RATE", 0.0001)
    monkeypatch.setattr(archive, "_PERSON_BURST", 3.0)
    async with xmpp_server() as h:
        await enter_both(h)
        h.say(JULIET, "one")
        named = form(ids=[f"unknown{n}" for n in range(40)])
        asked = f"<query xmlns='urn:xmpp:mam:2'>{named}</query>"
        h.link.receive(iq(JULIET, ROOM, asked, type_="set", id_="named"))
        await heard(h, "one")
        assert (await query(h, ROMEO)).bodies == ["one"]
        assert not [e for e in h.link.sent if e.get("id") == "named"]
