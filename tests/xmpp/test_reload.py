"""Users see in a room what the current policies let pass, even where earlier policies let it in."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import hansa_governance
import pytest
from hansa import Member, Membership, Name, NativeId, RoomMember, Topic, ViewDelta
from hansa.environment import SystemClock
from hansa.store.memory import MemoryDisk
from hansa_governance.policy import GovernancePolicy
from xmpp.stanzas import ROOM, groupchat, iq, join
from xmpp.xmpp_server import XmppServer, mx, xm, xmpp_server

JULIET, ROMEO, NURSE = "juliet@x.example/a", "romeo@x.example/b", "nurse@x.example/n"
WORD = "classified"


def judge(**options: Any) -> GovernancePolicy:
    """The governance plugin with a table."""
    return GovernancePolicy(hansa_governance.Config.model_validate(options), "gov", SystemClock())


def told(h: XmppServer, to: str, since: int = 0) -> str:
    return "".join(ET.tostring(e, "unicode") for e in h.link.sent[since:] if e.get("to", "").startswith(to))


def spoken(h: XmppServer, to: str, since: int) -> list[str]:
    return [text for e in h.link.sent[since:] if e.get("to") == to and (text := e.findtext("{*}body"))]


async def furnished(h: XmppServer) -> None:
    """A room whose name, topic, people and words hold a word."""
    await h.other.member(mx("alice"), Membership.JOIN, name=f"Alice {WORD}")
    await h.other.member(mx("bob"), Membership.JOIN, name="Bob")
    await h.enter(JULIET, "Jule")
    await h.enter(ROMEO, f"Romeo {WORD}")
    await h.other.submit((mx("alice"), Topic(text=f"a {WORD} topic")), (mx("alice"), Name(text=WORD)))
    h.say(ROMEO, f"it is {WORD}")
    await h.link.until(lambda: f"it is {WORD}" in h.link.bodies(JULIET))


async def test_occupants_are_shown_other_names_and_no_topic_once_policies_deny_them() -> None:
    async with xmpp_server(policy=judge(words=["nothing"])) as h:
        await furnished(h)
        since = len(h.link.sent)
        await h.govern(judge(words=[WORD]))
        await h.link.until(lambda: "code='104'" in told(h, "juliet@", since).replace('"', "'"))
        assert h.link.lines("juliet@")[-6:] == [
            f"juliet/a < Romeo {WORD} presence unavailable: -> romeo [303]",
            "juliet/a < romeo presence:",
            f"juliet/a < Alice {WORD} presence unavailable: -> alice [303]",
            "juliet/a < alice presence:",
            "juliet/a < * message groupchat: subject=",
            "juliet/a < * message groupchat: [104]",
        ]
        assert "romeo/b < romeo presence: [110 210]" in h.link.lines("romeo@")
        assert "Bob" not in told(h, "juliet@", since)
        h.say(ROMEO, "hello")
        await h.link.until(lambda: "hello" in spoken(h, JULIET, since))
        await h.enter(NURSE, "Nurse")
        h.link.receive(iq(NURSE, ROOM, "<query xmlns='http://jabber.org/protocol/disco#info'/>"))
        h.link.receive(groupchat(NURSE, "<body>the last</body>"))
        await h.link.until(lambda: "the last" in h.link.bodies(NURSE))
        assert WORD not in told(h, "nurse@")


async def test_nothing_is_shown_again_where_nothing_is_denied() -> None:
    async with xmpp_server(policy=judge(words=["nothing"])) as h:
        await furnished(h)
        since = len(h.link.sent)
        await h.govern(judge(words=["something"]))
        h.say(ROMEO, "hello")
        await h.link.until(lambda: "hello" in spoken(h, JULIET, since))
        await h.until(
            lambda: h.app.rooms.room_of(NativeId("xmpp", ROOM)).generation == h.app.decisions.generation
        )
        h.say(ROMEO, "the last")
        await h.link.until(lambda: "the last" in spoken(h, JULIET, since))
        assert [line for line in h.link.lines("juliet@")[-2:] if "body" not in line] == []


async def test_a_nick_that_was_taken_back_is_kept_nowhere() -> None:
    """After a restart the occupant has the nick that it was given."""
    disk = MemoryDisk()
    async with xmpp_server(disk, policy=judge(words=["nothing"])) as h:
        await h.enter(ROMEO, f"Romeo {WORD}")
        await h.govern(judge(words=[WORD]))
        await h.link.line("romeo/b < romeo presence: [110 210]")
    async with xmpp_server(disk, policy=judge(words=[WORD])) as h:
        h.link.online.add(ROMEO)
        await h.enter(NURSE, "Nurse")
        assert WORD not in told(h, "nurse@")
        assert "nurse/n < romeo presence:" in h.link.lines("nurse@")


async def test_a_restart_under_other_policies_shows_occupants_the_topic_that_is_left() -> None:
    disk = MemoryDisk()
    async with xmpp_server(disk, policy=judge(words=["nothing"])) as h:
        await furnished(h)
    async with xmpp_server(disk, policy=judge(words=[WORD]), up=False) as h:
        h.link.online |= {JULIET, ROMEO}
        h.link.up()
        await h.link.line("juliet/a < * message groupchat: subject=")
        await h.link.line("romeo/b < romeo presence: [110 210]")


async def test_what_changes_while_the_link_is_down_is_shown_when_it_is_up() -> None:
    async with xmpp_server(policy=judge(words=["nothing"])) as h:
        await furnished(h)
        h.link.down()
        since = len(h.link.sent)
        await h.govern(judge(words=[WORD]))
        await h.until(
            lambda: h.app.rooms.room_of(NativeId("xmpp", ROOM)).generation == h.app.decisions.generation
        )
        assert told(h, "juliet@", since) == ""
        h.link.up()
        await h.link.until(lambda: "code='104'" in told(h, "juliet@", since).replace('"', "'"))
        assert "juliet/a < alice presence:" in h.link.lines("juliet@")
        assert h.link.lines("juliet@")[-2] == "juliet/a < * message groupchat: subject="


@pytest.mark.parametrize("denied", [{"deny_servers": ["evil.example"]}, {"deny_users": ["mal@*"]}])
async def test_who_is_denied_since_enters_on_no_other_connection(denied: dict[str, Any]) -> None:
    async with xmpp_server(policy=judge(words=["nothing"])) as h:
        await h.enter("mal@evil.example/1", "Mal")
        await h.govern(judge(**denied))
        for resource in ("1", "2"):
            since = len(h.link.sent)
            h.link.receive(join(f"mal@evil.example/{resource}", "Mal"))
            wanted = f"mal/{resource} < Mal presence error: auth forbidden"
            await h.link.until(lambda wanted=wanted: wanted in h.link.lines("mal@"))
            assert "subject" not in told(h, f"mal@evil.example/{resource}", since)


async def test_a_word_in_the_resource_of_a_connection_is_shown_to_nobody() -> None:
    async with xmpp_server(policy=judge(words=[WORD])) as h:
        await h.enter(JULIET, "Jule")
        await h.enter(ROMEO, "Romeo")
        h.link.receive(join(f"juliet@x.example/{WORD}", "Jule"))
        await h.link.line(f"juliet/{WORD} < Jule presence error: auth forbidden")
        h.link.receive(join(f"nurse@x.example/{WORD}", "Nurse"))
        await h.link.line(f"nurse/{WORD} < Nurse presence error: auth forbidden")
        assert WORD not in told(h, "romeo@")


@pytest.mark.parametrize("way", ["xmpp", "matrix"])
async def test_nobody_of_a_denied_server_is_asked_in(way: str) -> None:
    user = "http://jabber.org/protocol/muc#user"
    async with xmpp_server(policy=judge(deny_servers=["evil.example"])) as h:
        await h.enter(JULIET, "Jule")
        await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
        if way == "xmpp":
            invite = f"<x xmlns='{user}'><invite to='mal@evil.example'><reason>come</reason></invite></x>"
            h.link.receive(f"<message from='{JULIET}' to='{ROOM}' id='i'>{invite}</message>")
            await h.link.line("juliet/a < * message error: auth forbidden")
        else:
            content = Member(user=xm("mal", "evil.example"), membership=Membership.INVITE, reason="come")
            await h.other.submit((mx("alice"), content))
        good = Member(user=xm("good"), membership=Membership.INVITE)
        (outcome,) = await h.other.submit((mx("alice"), good))
        assert outcome.refusal is None
        await h.link.until(lambda: told(h, "good@x.example"))
        assert told(h, "mal@") == ""


async def test_who_is_out_by_what_nobody_is_told_is_out_of_the_room() -> None:
    """A ban whose words are withheld, or a state that was found to differ: there is no event to show."""
    async with xmpp_server() as h:
        await h.enter(JULIET, "Jule")
        await h.enter(ROMEO, "Romeo")
        banned = RoomMember(user=xm("juliet"), membership=Membership.BAN, server="x.example", name="Jule")
        await h.ctx.reconcile_view(ROOM, ViewDelta(upserts=(banned,)))
        await h.link.line("juliet/a < Jule presence unavailable: [110 301]")
        await h.link.line("romeo/b < Jule presence unavailable: [301]")
        h.say(ROMEO, "they are gone")
        await h.link.until(lambda: "they are gone" in h.link.bodies(ROMEO))
        assert h.link.bodies(JULIET) == []
        since = len(h.link.sent)
        h.say(JULIET, "hello?")
        await h.link.until(lambda: "not-acceptable" in told(h, "juliet@", since))


async def test_names_are_back_once_a_policy_answers_again() -> None:
    class Away:
        broken = False

        async def check(self, crossing: Any) -> None:
            if self.broken:
                raise ConnectionError("the service is away")

    away = Away()
    async with xmpp_server(policy=judge(words=["nothing"])) as h:
        await furnished(h)
        since = len(h.link.sent)
        away.broken = True
        await h.govern(away)
        await h.link.until(lambda: "code='104'" in told(h, "juliet@", since).replace('"', "'"))
        assert h.link.lines("juliet@")[-2] == "juliet/a < * message groupchat: subject="
        away.broken = False
        since = len(h.link.sent)
        await h.govern(away)
        await h.link.until(lambda: "code='104'" in told(h, "juliet@", since).replace('"', "'"))
        assert h.link.lines("juliet@")[-10:] == [
            "juliet/a < juliet presence unavailable: -> Jule [110 303]",
            "juliet/a < Jule presence: [110 210]",
            f"juliet/a < romeo presence unavailable: -> Romeo {WORD} [303]",
            f"juliet/a < Romeo {WORD} presence:",
            f"juliet/a < alice presence unavailable: -> Alice {WORD} [303]",
            f"juliet/a < Alice {WORD} presence:",
            "juliet/a < bob presence unavailable: -> Bob [303]",
            "juliet/a < Bob presence:",
            f"juliet/a < * message groupchat: subject=a {WORD} topic",
            "juliet/a < * message groupchat: [104]",
        ]
