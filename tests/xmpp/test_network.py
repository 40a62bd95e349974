"""The network on a real core: what people see, and what the log says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hansa import (
    Action,
    Delivery,
    EventIn,
    Member,
    Membership,
    Message,
    Name,
    NativeId,
    Reason,
    Role,
    RoomMember,
    Topic,
    Verdict,
    ViewDelta,
)
from hansa.environment import SystemClock
from hansa_xmpp.absences import Absences
from hansa_xmpp.proto.stanza import NS_MUC_USER
from peers.waiting import until
from xmpp.stanzas import ROOM, join
from xmpp.xmpp_server import XmppServer, mx, xm, xmpp_server

JULIET, PHONE, ROMEO = "juliet@x.example/a", "juliet@x.example/p", "romeo@x.example/b"


async def test_a_join_is_committed_and_shown() -> None:
    async with xmpp_server() as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.enter(JULIET, "Jule")
        assert h.membership(xm("juliet")) is Membership.JOIN
        assert h.link.lines("juliet") == [
            "juliet/a < Alice presence:",
            "juliet/a < Jule presence: [100 110 170]",
            "juliet/a < * message groupchat: subject=",
        ]
        await h.until(lambda: h.other.got)
        assert h.other.got[0].content == Member(user=xm("juliet"), membership=Membership.JOIN, name="Jule")


async def test_words_cross_both_ways_and_are_reflected_once_in_log_order() -> None:
    async with xmpp_server() as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.enter(JULIET, "Jule")
        await h.enter(ROMEO, "Romeo")
        h.say(JULIET, "one", "/me two")
        await h.link.until(lambda: len(h.link.bodies(ROMEO)) == 2)
        await h.other.say("alice", "three")
        await h.link.until(lambda: len(h.link.bodies(ROMEO)) == 3)
        assert h.link.bodies(ROMEO) == h.link.bodies(JULIET) == ["one", "/me two", "three"]
        ids = [e.get("id") for e in h.link.sent if e.get("to") == JULIET and e.find("{*}body") is not None]
        assert ids[:2] == ["m0", "m1"]
        await h.until(lambda: len(h.other.got) == 4)
        assert [e.content for e in h.other.got[2:]] == [
            Message(text="one"),
            Message(text="two", style="emote"),
        ]
        stable = [e.find("{urn:xmpp:sid:0}stanza-id") for e in h.link.sent if e.find("{*}body") is not None]
        assert {s.get("id") for s in stable if s is not None} == {e.id for e in h.other.got[2:]} | {ids[2]}


async def test_topic_name_and_nick_cross() -> None:
    async with xmpp_server(owners=[str(xm("juliet"))]) as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.enter(JULIET, "Jule")
        h.link.receive(
            f"<message from='{JULIET}' to='{ROOM}' id='s' type='groupchat'><subject>T</subject></message>"
        )
        await h.link.line("juliet/a < Jule message groupchat: subject=T")
        form = (
            "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'>"
            "<field var='muc#roomconfig_roomname'><value>N</value></field></x></query>"
        )
        h.link.receive(f"<iq from='{JULIET}' to='{ROOM}' id='o' type='set'>{form}</iq>")
        await h.link.line("juliet/a < * iq result:")
        await h.link.line("juliet/a < * message groupchat: [104]")
        h.link.receive(join(JULIET, "Capulet", inner=""))
        await h.link.line("juliet/a < Capulet presence: [110]")
        await h.until(lambda: len(h.other.got) == 4)
        assert [e.content for e in h.other.got[1:]] == [
            Topic(text="T"),
            Name(text="N"),
            Member(user=xm("juliet"), membership=Membership.JOIN, name="Capulet"),
        ]
        await h.other.submit((mx("alice"), Topic(text="U")), (mx("alice"), Name(text="M")))
        await h.link.line("juliet/a < Alice message groupchat: subject=U")
        await h.other.member(mx("alice"), Membership.JOIN, name="Ally")
        await h.link.line("juliet/a < Alice presence unavailable: -> Ally [303]")
        await h.enter(ROMEO, "Romeo")
        assert h.link.lines("romeo")[-1] == "romeo/b < * message groupchat: subject=U"


async def test_only_the_last_connection_leaves() -> None:
    async with xmpp_server() as h:
        await h.enter(JULIET, "Jule")
        await h.enter(PHONE, "Jule")
        h.leave(JULIET)
        await h.link.line("juliet/a < Jule presence unavailable: [110]")
        h.say(PHONE, "still here")
        await h.link.until(lambda: h.link.bodies(PHONE))
        assert h.membership(xm("juliet")) is Membership.JOIN
        h.leave(PHONE)
        await h.until(lambda: h.membership(xm("juliet")) is Membership.LEAVE)
        await h.until(lambda: len(h.other.got) == 3)
        crossed = [e.content.membership for e in h.other.got if isinstance(e.content, Member)]
        assert crossed == [Membership.JOIN, Membership.LEAVE]


async def test_out_and_in_again_at_once() -> None:
    async with xmpp_server() as h:
        await h.enter(JULIET, "Jule")
        h.leave(JULIET)
        await h.enter(JULIET, "Jule")
        h.say(JULIET, "back")
        await h.link.until(lambda: h.link.bodies(JULIET))
        assert h.membership(xm("juliet")) is Membership.JOIN


async def test_a_kick_from_the_other_network() -> None:
    async with xmpp_server(owners=[str(mx("alice"))]) as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.enter(JULIET, "Jule")
        await h.enter(ROMEO, "Romeo")
        await h.other.member(xm("juliet"), Membership.LEAVE, by=mx("alice"))
        await h.link.line("juliet/a < Jule presence unavailable: [110 307]")
        await h.link.line("romeo/b < Jule presence unavailable: [307]")
        h.say(JULIET, "hello?")
        await h.link.line("juliet/a < * message error: modify not-acceptable")
        await h.enter(JULIET, "Jule")
        assert h.membership(xm("juliet")) is Membership.JOIN
        await h.other.member(xm("juliet"), Membership.BAN, by=mx("alice"))
        await h.link.line("juliet/a < Jule presence unavailable: [110 301]")
        h.link.receive(join(JULIET, "Jule"))
        await h.link.line("juliet/a < Jule presence error: auth forbidden")
        assert not [o for o in await kept(h) if o.startswith("juliet")]


async def until_kept(h: XmppServer, *fulls: str) -> None:
    """Wait until these connections are stored, and no others."""

    async def are_kept() -> bool:
        return await kept(h) == list(fulls)

    await until("the connections that are left", are_kept)


async def test_a_lost_connection_is_no_leave_and_who_comes_back_joins_nothing() -> None:
    async with xmpp_server() as h:
        await h.enter(ROMEO, "Romeo")
        await h.enter(JULIET, "Jule")
        before = h.app.rooms.room_of(NativeId("xmpp", ROOM)).head
        h.link.online.discard(JULIET)
        h.leave(JULIET)  # her server says so for her
        await h.link.line("romeo/b < Jule presence unavailable:")
        await h.until(lambda: h.counted("xmpp_sessions_lost") == {"": 1})
        assert h.membership(xm("juliet")) is Membership.JOIN
        await h.enter(JULIET, "Jule")
        assert h.app.rooms.room_of(NativeId("xmpp", ROOM)).head == before
        h.say(JULIET, "here again")
        await h.link.until(lambda: h.link.bodies(ROMEO) == ["here again"])


class LateClock(SystemClock):
    """The clock of a process; ``late`` are the ms that the wall clock is ahead, ``ahead`` the seconds that
    have passed.
    """

    late = 0

    ahead = 0.0

    def now(self) -> int:
        return super().now() + self.late

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


async def test_who_stays_away_for_days_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hansa_xmpp.stanza_handler._IDLE_INTERVAL_S", 0.01)
    async with xmpp_server(member_idle_days=3) as h:
        clock = LateClock()
        monkeypatch.setattr(h.ctx, "clock", clock)
        await h.enter(ROMEO, "Romeo")
        await h.enter(JULIET, "Jule")
        h.link.online.discard(JULIET)
        h.leave(JULIET)
        await h.until(lambda: h.counted("xmpp_sessions_lost"))
        assert h.membership(xm("juliet")) is Membership.JOIN
        looks = 0
        list_idle = Absences.list_idle

        async def list_and_count(absences: Absences) -> list[tuple[str, NativeId]]:
            nonlocal looks
            found = await list_idle(absences)
            looks += 1
            return found

        monkeypatch.setattr(Absences, "list_idle", list_and_count)
        clock.late = 400 * 86_400_000  # the wall clock jumps
        await h.until(lambda: looks >= 3)
        assert h.membership(xm("juliet")) is Membership.JOIN
        clock.ahead = 3 * 86_400 + 1
        await h.until(lambda: h.membership(xm("juliet")) is Membership.LEAVE)
        assert h.membership(xm("romeo")) is Membership.JOIN

        async def is_forgotten() -> bool:
            return await h.ctx.store.scan("absence") == []

        await until("the absence is over", is_forgotten)


async def test_who_comes_back_in_time_is_not_away() -> None:
    async with xmpp_server() as h:
        await h.enter(JULIET, "Jule")
        h.link.online.discard(JULIET)
        h.leave(JULIET)
        await h.until(lambda: h.counted("xmpp_sessions_lost"))
        assert [row.key for row in await h.ctx.store.scan("absence")] == [(ROOM, "juliet@x.example")]
        await h.enter(JULIET, "Jule")
        assert await h.ctx.store.scan("absence") == []


async def kept(h: XmppServer) -> list[str]:
    return [str(row.key[1]) for row in await h.ctx.store.scan("occupant")]


class Says:
    """A policy with one answer to what comes in from XMPP with this word."""

    def __init__(self, word: str, verdict: Verdict) -> None:
        self.word = word
        self.verdict = verdict

    async def check(self, crossing: object) -> Verdict | None:
        if not isinstance(crossing, EventIn) or crossing.sender.network != "xmpp":
            return None
        return self.verdict if self.word in crossing.facts.texts else None


def denial(**more: float) -> Verdict:
    return Verdict(Action.DENY, (Reason(code="NO", text="not that"),), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verdict", "condition"),
    [
        (denial(), "modify policy-violation"),
        (denial(retry_after=3.0), "wait resource-constraint"),
        (Verdict(Action.WITHHOLD, (Reason(code="W", text="not that"),)), "modify policy-violation"),
        (Verdict(Action.HOLD, (Reason(code="H", text="not that"),)), "modify policy-violation"),
    ],
)
async def test_what_a_policy_refuses_is_an_error_to_its_sender_alone(
    verdict: Verdict, condition: str
) -> None:
    async with xmpp_server(policy=Says("bad", verdict)) as h:
        await h.enter(ROMEO, "Romeo")
        h.link.receive(join(JULIET, "bad"))
        refused = condition.replace("modify policy-violation", "auth forbidden")
        await h.link.line(f"juliet/a < bad presence error: {refused}")
        assert h.membership(xm("juliet")) is None
        await h.enter(JULIET, "Jule")
        h.say(JULIET, "good", "bad", "better")
        await h.link.line(f"juliet/a < * message error: {condition}")
        await h.link.until(lambda: len(h.link.bodies(ROMEO)) == 2)
        assert h.link.bodies(ROMEO) == ["good", "better"]
        error = next(e for e in h.link.sent if e.get("type") == "error" and e.get("id") == "m1")
        text = error.findtext("{*}error/{urn:ietf:params:xml:ns:xmpp-stanzas}text")
        assert text is not None
        assert text.startswith("not that [")
        h.link.receive(join(JULIET, "bad", inner=""))
        await h.link.line(f"juliet/a < bad presence error: {condition}")
        assert "romeo/b < bad presence:" not in h.link.lines()


async def test_a_full_room_queue_is_resource_constraint() -> None:
    async with xmpp_server(queue=3) as h:
        await h.enter(JULIET, "Jule")
        h.say(JULIET, *(str(n) for n in range(10)))
        await h.link.until(lambda: len(h.link.bodies(JULIET)) == 3)
        errors = [x for x in h.link.lines() if "error" in x]
        assert errors == ["juliet/a < * message error: wait resource-constraint"] * 7
        assert h.counted("xmpp_refused") == {"queue": 7}
        h.say(JULIET, "again")
        await h.link.until(lambda: h.link.bodies(JULIET)[-1] == "again")


async def test_large_stanzas_are_counted_by_their_size() -> None:
    async with xmpp_server(queue_bytes=524_288) as h:
        await h.enter(JULIET, "Jule")
        await h.enter(ROMEO, "Romeo")
        h.say(JULIET, *("x" * 30_000 for _ in range(3)))
        h.say(ROMEO, "y" * 30_000)
        await h.link.until(lambda: len(h.link.bodies(JULIET)) == 2)
        assert h.counted("xmpp_refused") == {"queue": 2}
        h.say(ROMEO, "y" * 30_000)
        await h.link.until(lambda: len(h.link.bodies(JULIET)) == 3)


async def test_the_people_of_one_domain_leave_room_for_others() -> None:
    async with xmpp_server(queue_bytes=262_144) as h:
        await h.enter(JULIET, "Jule")
        crowd = [f"{number}@crowd.example/x" for number in range(100)]
        for one in crowd:
            h.say(one, "a")
        h.say(JULIET, "b")
        await h.link.until(lambda: h.link.bodies(JULIET) == ["b"])
        taken = sum("not-acceptable" in line for line in h.link.lines())
        assert h.counted("xmpp_refused") == {"queue": len(crowd) - taken}
        assert 10 < taken <= 262_144 // 2 // (4096 + 1024)
        h.say(crowd[-1], "a")  # nothing is held any more
        await h.link.until(lambda: sum("not-acceptable" in line for line in h.link.lines()) == taken + 1)


async def test_who_the_core_does_not_know_as_joined_is_not_here() -> None:
    async with xmpp_server() as h:
        await h.enter(JULIET, "Jule")
        gone = RoomMember(user=xm("juliet"), membership=Membership.LEAVE)
        h.ctx.get_view(ROOM).apply(ViewDelta(upserts=(gone,)))
        h.say(JULIET, "hello?")
        await h.link.line("juliet/a < * message error: modify not-acceptable")
        await h.link.line("juliet/a < Jule presence unavailable: [110 307 333]")


async def test_an_error_from_an_occupant_ends_its_stay() -> None:
    async with xmpp_server() as h:
        await h.enter(ROMEO, "Romeo")
        await h.enter(JULIET, "Jule")
        error = "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
        h.link.receive(f"<message from='{JULIET}' to='{ROOM}/Romeo' type='error'>{error}</message>")
        await h.link.line("romeo/b < Jule presence unavailable: [307 333]")
        await until_kept(h, ROMEO)
        assert h.membership(xm("juliet")) is Membership.JOIN


async def test_people_found_by_the_core_without_an_event_appear() -> None:
    async with xmpp_server() as h:
        await h.enter(ROMEO, "Romeo")
        person = RoomMember(user=mx("bob"), membership=Membership.JOIN, name="Bob")
        await h.ctx.reconcile_view(ROOM, ViewDelta(upserts=(person,)))
        await h.enter(JULIET, "Jule")
        assert "juliet/a < Bob presence:" in h.link.lines()
        assert "romeo/b < Bob presence:" in h.link.lines()


def ranks_shown(h: XmppServer, full: str, nick: str) -> list[tuple[str, str]]:
    """Affiliation and role of an occupant, as each presence told a client."""
    item = f".//{{{NS_MUC_USER}}}item"
    return [
        (found.get("affiliation", ""), found.get("role", ""))
        for e in h.link.sent
        if e.tag.endswith("}presence") and e.get("to") == full and e.get("from") == f"{ROOM}/{nick}"
        for found in e.findall(item)
    ]


async def test_another_rank_is_shown_to_everybody_in_the_room() -> None:
    async with xmpp_server() as h:
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.enter(ROMEO, "Romeo")
        await h.enter(JULIET, "Jule")
        for user in (mx("alice"), xm("juliet")):
            view = h.ctx.get_view(ROOM)
            assert view is not None
            person = view.person(user)
            assert person is not None
            change = ViewDelta(upserts=(replace(person, role=Role.MODERATOR),))
            await h.other.ctx.reconcile_view("#lobby", change)
        moderator = ("admin", "moderator")
        for full, nick in ((ROMEO, "Alice"), (ROMEO, "Jule"), (JULIET, "Jule")):
            await h.link.until(lambda full=full, nick=nick: moderator in ranks_shown(h, full, nick))
        shown = len(ranks_shown(h, ROMEO, "Jule"))
        await h.other.say("alice", "fence")
        await h.link.until(lambda: "fence" in h.link.bodies(ROMEO))
        assert len(ranks_shown(h, ROMEO, "Jule")) == shown


async def test_a_second_send_of_a_delivery_is_not_shown() -> None:
    async with xmpp_server() as h:
        await h.enter(JULIET, "Jule")
        await h.other.member(mx("alice"), Membership.JOIN)
        await h.other.say("alice", "once")
        await h.link.until(lambda: h.link.bodies(JULIET))
        (event,) = [e for e in await h.ctx.read_history(ROOM, limit=1) if isinstance(e.content, Message)]
        link = h.ctx.get_link(ROOM)
        assert link is not None
        again = Delivery(key=f"{link.id}#{event.seq}", link=link, event=event, content=event.content)
        assert await h.xmpp.send(again) == event.id
        assert h.link.bodies(JULIET) == ["once"]


async def test_who_was_never_in_the_room_gets_no_history_from_before_they_came() -> None:
    async with xmpp_server() as h:
        view = h.other.ctx.get_view("#lobby")
        assert view is not None
        closed = ViewDelta(info=replace(view.facts, history_visibility="joined"))
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        await h.other.say("alice", "in the open")
        await h.other.ctx.reconcile_view("#lobby", closed)
        await h.other.say("alice", "among us")
        await h.enter(JULIET, "Jule")
        assert h.link.bodies(JULIET) == ["in the open"]
        await h.other.say("alice", "welcome")
        await h.link.until(lambda: h.link.bodies(JULIET)[-1] == "welcome")
        await h.enter(PHONE, "Jule")
        assert h.link.bodies(PHONE) == ["in the open", "welcome"]
