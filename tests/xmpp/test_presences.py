"""Presence in a hosted MUC: between occupants, to other networks, and of people of other networks."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import pytest
from hansa import (
    Action,
    Crossing,
    EphemeralIn,
    Membership,
    NativeId,
    PersonPresence,
    Presence,
    PresenceState,
    Reason,
    Verdict,
    texts_of,
)
from hansa.bus import presence_relay
from hansa_xmpp.proto.presence_xml import (
    MAX_EXTENSIONS,
    MAX_STATUS,
    OccupantPresence,
    choose_presence,
    parse_occupant_presence,
)
from xmpp.stanzas import ROOM, X, arrived, join
from xmpp.xmpp_server import XmppServer, mx, xm, xmpp_server

JULIET, PHONE, ROMEO = "juliet@x.example/a", "juliet@x.example/p", "romeo@x.example/b"
CAPS = "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='v='/>"
HASH = "<x xmlns='vcard-temp:x:update'><photo>ab12</photo></x>"
AWAY = "<show>away</show><status>at lunch</status>"


def presences(h: XmppServer, full: str, nick: str) -> list[Element]:
    """The presences of ``nick`` that a connection was sent."""
    return [
        e
        for e in h.link.sent
        if e.tag.endswith("}presence") and e.get("to") == full and e.get("from") == f"{ROOM}/{nick}"
    ]


def shows(h: XmppServer, full: str, nick: str) -> list[tuple[str, str]]:
    return [
        (e.findtext("{*}show") or "", e.findtext("{jabber:component:accept}status") or "")
        for e in presences(h, full, nick)
    ]


async def enter_all(h: XmppServer) -> None:
    await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
    await h.enter(JULIET, "Jule")
    await h.enter(ROMEO, "Romeo")


async def test_occupants_see_what_others_say_of_themselves() -> None:
    async with xmpp_server() as h:
        await enter_all(h)
        h.link.receive(join(JULIET, "Jule", inner=f"{AWAY}<priority>5</priority>{CAPS}{HASH}"))
        await h.link.until(lambda: ("away", "at lunch") in shows(h, ROMEO, "Jule"))
        told = presences(h, ROMEO, "Jule")[-1]
        assert told.find("{http://jabber.org/protocol/caps}c").attrib == {  # type: ignore[union-attr]
            "hash": "sha-1",
            "node": "n",
            "ver": "v=",
        }
        assert told.findtext("{vcard-temp:x:update}x/{vcard-temp:x:update}photo") == "ab12"
        assert told.findtext("{*}priority") == "5"
        assert shows(h, JULIET, "Jule")[-1] == ("away", "at lunch")
        await h.enter("mercutio@x.example/m", "Mercutio")  # who comes later is shown the same
        assert shows(h, "mercutio@x.example/m", "Jule") == [("away", "at lunch")]
        await h.until(lambda: h.other.presences)
        told_matrix = [(p.user, p.state, p.text) for p in h.other.presences]
        assert (xm("juliet"), PresenceState.HERE, "") in told_matrix


async def test_a_join_says_who_is_away() -> None:
    async with xmpp_server() as h:
        await h.enter(ROMEO, "Romeo")
        await h.enter(JULIET, "Jule", inner=f"{X}<show>dnd</show><status>in a call</status>")
        assert shows(h, ROMEO, "Jule") == [("dnd", "in a call")]
        await h.until(lambda: len(h.other.presences) == 2)
        last = h.other.presences[-1]
        assert (last.user, last.state, last.text) == (xm("juliet"), PresenceState.BUSY, "in a call")


async def test_of_several_connections_the_one_that_is_there_counts() -> None:
    async with xmpp_server() as h:
        await enter_all(h)
        await h.enter(PHONE, "Jule", inner=f"{X}<show>away</show>")
        before = len(shows(h, ROMEO, "Jule"))
        h.link.receive(join(JULIET, "Jule", inner=AWAY))
        await h.link.until(lambda: len(shows(h, ROMEO, "Jule")) > before)
        h.leave(JULIET)
        await h.link.until(lambda: shows(h, ROMEO, "Jule")[-1] == ("away", ""))
        assert all(e.get("type") is None for e in presences(h, ROMEO, "Jule"))


async def test_who_loses_the_connection_is_offline_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence_relay, "HOLD_S", 0.05)
    async with xmpp_server() as h:
        await enter_all(h)
        h.link.online.discard(JULIET)
        h.leave(JULIET)
        await h.until(lambda: states(h, xm("juliet"))[-1:] == [PresenceState.OFFLINE])
        assert h.ctx.get_view(ROOM).membership(xm("juliet")) is Membership.JOIN  # type: ignore[union-attr]
        await h.enter(JULIET, "Jule")
        await h.until(lambda: states(h, xm("juliet"))[-1] is PresenceState.HERE)


def states(h: XmppServer, user: NativeId) -> list[PresenceState]:
    return [one.state for one in h.other.presences if one.user == user]


async def test_people_of_other_networks_are_away_in_the_room() -> None:
    async with xmpp_server() as h:
        await enter_all(h)
        for state, text, show in (
            (PresenceState.AWAY, "tea & <b>", "away"),
            (PresenceState.BUSY, "", "dnd"),
            (PresenceState.OFFLINE, "", "xa"),
            (PresenceState.HERE, "back", ""),
        ):
            presence = PersonPresence(user=mx("alice"), state=state, text=text)
            await h.networks[0].show_presence(h.ctx.get_link(ROOM), presence)
            assert shows(h, ROMEO, "Alice")[-1] == (show, text)
        stranger = PersonPresence(user=mx("stranger"), state=PresenceState.AWAY)
        sent = len(h.link.sent)
        await h.networks[0].show_presence(h.ctx.get_link(ROOM), stranger)
        await h.networks[0].show_presence(h.ctx.get_link(ROOM), presence)  # the same again
        assert len(h.link.sent) == sent
        await h.enter(PHONE, "Jule")
        assert shows(h, PHONE, "Alice") == [("", "back")]


async def test_presence_of_another_network_comes_through_the_core() -> None:
    async with xmpp_server() as h:
        await enter_all(h)
        await h.other.ctx.send_presence(
            PersonPresence(user=mx("alice"), state=PresenceState.AWAY, text="at the ball")
        )
        await h.link.until(lambda: ("away", "at the ball") in shows(h, ROMEO, "Alice"))


async def test_a_leave_has_its_status() -> None:
    async with xmpp_server() as h:
        await enter_all(h)
        h.link.receive(
            f"<presence from='{JULIET}' to='{ROOM}/Jule' type='unavailable'><status>good night</status></presence>"
        )
        await h.link.until(lambda: ("", "good night") in shows(h, ROMEO, "Jule"))
        assert presences(h, ROMEO, "Jule")[-1].get("type") == "unavailable"


class NoWord:
    """Denies every crossing with the word."""

    async def check(self, crossing: Crossing) -> Verdict | None:
        if isinstance(crossing, EphemeralIn | Presence) and any("lunch" in t for t in texts_of(crossing)):
            return Verdict(Action.DENY, (Reason(code="NO", policy="p", rule="no"),))
        return None


@pytest.mark.parametrize("inner", [AWAY, f"{CAPS}<y xmlns='urn:y'>at lunch</y>"])
async def test_what_policies_deny_reaches_nobody(inner: str) -> None:
    async with xmpp_server(policy=NoWord()) as h:
        await enter_all(h)
        before = len(shows(h, ROMEO, "Jule"))
        h.link.receive(join(JULIET, "Jule", inner=inner))
        h.link.receive(
            f"<presence from='{JULIET}' to='{ROOM}/Jule' type='unavailable'><status>at lunch</status></presence>"
        )
        await h.link.until(lambda: presences(h, ROMEO, "Jule")[-1].get("type") == "unavailable")
        assert shows(h, ROMEO, "Jule")[before:] == [("", "")]
        assert "lunch" not in str([p.text for p in h.other.presences])


async def test_other_policies_take_the_texts_back_for_who_comes() -> None:
    async with xmpp_server(policy=NoWordLater(denies=False)) as h:
        await enter_all(h)
        h.link.receive(join(JULIET, "Jule", inner=AWAY))
        await h.link.until(lambda: ("away", "at lunch") in shows(h, ROMEO, "Jule"))
        await h.govern(NoWordLater(denies=True))
        await h.enter("mercutio@x.example/m", "Mercutio")
        assert shows(h, "mercutio@x.example/m", "Jule")[-1] == ("away", "")


class NoWordLater(NoWord):
    """Denies the word where it is told to."""

    def __init__(self, *, denies: bool) -> None:
        self.denies = denies

    async def check(self, crossing: Crossing) -> Verdict | None:
        return await super().check(crossing) if self.denies else None


async def test_one_person_has_a_share_of_the_presences() -> None:
    async with xmpp_server() as h:
        await enter_all(h)
        before = len(shows(h, ROMEO, "Jule"))
        for number in range(30):
            h.link.receive(join(JULIET, "Jule", inner=f"<status>{number}</status>"))
        h.say(JULIET, "the last")
        await h.link.until(lambda: "the last" in h.link.bodies(ROMEO))
        dropped = h.counted("xmpp_dropped")["presence"]
        assert dropped > 0
        assert len(shows(h, ROMEO, "Jule")) - before + dropped == 30


def parsed(inner: str) -> OccupantPresence:
    return parse_occupant_presence(arrived(join(JULIET, "Jule", inner=inner)))


def test_what_a_presence_may_hold() -> None:
    assert parsed("<show>asleep</show>") == OccupantPresence()
    assert parsed(f"<status>{'x' * 5000}</status>").status == "x" * (MAX_STATUS - 1) + "…"
    assert parsed(f"{X}<x xmlns='http://jabber.org/protocol/muc#user'><item role='moderator'/></x>") == (
        OccupantPresence()
    )
    for forged in (
        "<nick xmlns='http://jabber.org/protocol/nick'>Alice</nick>",
        "<occupant-id xmlns='urn:xmpp:occupant-id:0' id='x'/>",
        "<delay xmlns='urn:xmpp:delay' stamp='2020-01-01T00:00:00Z'/>",
        "<status>a</status><status>b</status>",
    ):
        assert parsed(forged).extensions == ""
    large = f"<y xmlns='urn:y'>{'x' * MAX_EXTENSIONS}</y>"
    assert parsed(f"<show>away</show>{large}") == OccupantPresence("away")


def test_the_presence_of_several_connections() -> None:
    away, here, chat, dnd = (OccupantPresence(show) for show in ("away", "", "chat", "dnd"))
    assert choose_presence([]) == here
    assert choose_presence([away]) == away
    assert choose_presence([away, dnd]) == choose_presence([dnd, away]) == dnd
    assert choose_presence([chat, here]) == chat
    assert choose_presence([OccupantPresence("", "a"), OccupantPresence("", "b")]).status == "b"
