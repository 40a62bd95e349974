"""The hosted MUC as transcripts: a stanza in, what is said and what is asked for out."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hansa import (
    Content,
    Event,
    JoinRule,
    Member,
    Membership,
    Message,
    Name,
    NativeId,
    Role,
    RoomInfo,
    RoomMember,
    RoomView,
    Topic,
    ViewDelta,
)
from hansa_xmpp.proto import errors
from hansa_xmpp.proto import iq as query
from hansa_xmpp.proto.commands import (
    Command,
    GroupchatMessage,
    HistoryEntry,
    HistoryRequest,
    Ignored,
    JoinGrant,
    JoinRequest,
    NickChange,
    PresenceUpdate,
    RoomChanges,
    SendStanzas,
    SessionClosed,
)
from hansa_xmpp.proto.muc import Muc
from hansa_xmpp.proto.render import OutboundStanza
from hypothesis import given
from hypothesis import strategies as st
from xmpp.stanzas import GW, NS, PING, ROOM, X, arrived, elements, groupchat, iq, join, lines

JULIET, ROMEO = "juliet@x.example/a", "romeo@x.example/b"
J, R = (NativeId("xmpp", full.split("/")[0]) for full in (JULIET, ROMEO))
ALICE, BOB = NativeId("matrix", "@alice:m.example"), NativeId("matrix", "@bob:m.example")


class Room:
    """A MUC with a view, and the core's part played: every request is granted."""

    def __init__(self, *people: RoomMember) -> None:
        self.muc = Muc(ROOM, "xmpp", lambda ref: f"o-{ref}", max_sessions=5)
        self.view = RoomView("r1", RoomInfo(topic="welcome"))
        self.view.load(people)
        self.seq = 10
        self.sync()

    def receive(self, text: str) -> list[Command]:
        return self.muc.handle_stanza(arrived(text))

    def enter(self, full: str, nick: str, *history: Event) -> list[OutboundStanza]:
        (request,) = self.receive(join(full, nick))
        assert isinstance(request, JoinRequest)
        person = RoomMember(user=request.user, membership=Membership.JOIN, name=nick)
        self.view.apply(ViewDelta(upserts=(person,)))
        shown = ((e, self.muc.past_message(e, e.content, None, self.view)) for e in history)
        past = [HistoryEntry(event, stanza) for event, stanza in shown if stanza is not None]
        admission = JoinGrant(upto=self.seq, history=past, subject=self.view.facts.topic)
        return list(self.muc.complete_join(request, admission, self.view))

    def rank(self, user: NativeId, role: Role) -> None:
        person = self.view.person(user)
        assert person is not None
        self.view.apply(ViewDelta(upserts=(replace(person, role=role),)))

    def sync(self) -> list[OutboundStanza]:
        return [
            s
            for some in self.muc.sync_occupants(self.view)
            for c in some
            if isinstance(c, SendStanzas)
            for s in c.stanzas
        ]

    def event(self, sender: NativeId, content: Content, origin: str = "") -> Event:
        self.seq += 1
        ref = NativeId(sender.network, origin or f"o{self.seq}")
        return Event(
            id=f"e{self.seq}",
            room="r1",
            seq=self.seq,
            origin=ref,
            sender=sender,
            content=content,
            ts=0,
            received=self.seq * 1000,
        )

    def live(self, sender: NativeId, content: Content, origin: str = "") -> list[Command]:
        return self.muc.broadcast_event(self.event(sender, content, origin), content, self.view)

    def member(
        self, user: NativeId, membership: Membership, sender: NativeId, name: str = "", reason: str = ""
    ) -> list[Command]:
        person = RoomMember(user=user, membership=membership, name=name or None)
        self.view.apply(ViewDelta(upserts=(person,)))
        return self.live(sender, Member(user=user, membership=membership, name=name or None, reason=reason))


def said(commands: list[Command]) -> list[str]:
    return lines(s for c in commands if isinstance(c, SendStanzas) for s in c.stanzas)


def others(commands: list[Command]) -> list[Command]:
    return [c for c in commands if not isinstance(c, SendStanzas)]


def alice(name: str | None = "Alice", role: Role = Role.MEMBER) -> RoomMember:
    return RoomMember(user=ALICE, membership=Membership.JOIN, name=name, role=role)


def test_a_join_shows_occupants_oneself_history_and_the_subject_last() -> None:
    room = Room(alice())
    room.enter(ROMEO, "romeo")
    old = room.event(ALICE, Message(text="before"))
    assert lines(room.enter(JULIET, "juliet", old)) == [
        "romeo/b < juliet presence:",
        "juliet/a < Alice presence:",
        "juliet/a < romeo presence:",
        "juliet/a < juliet presence: [100 110 170]",
        "juliet/a < Alice message groupchat: body=before delayed",
        "juliet/a < * message groupchat: subject=welcome",
    ]


def test_the_subject_is_sent_even_when_it_is_empty() -> None:
    room = Room()
    room.view.apply(ViewDelta(info=RoomInfo()))
    last = elements(room.enter(JULIET, "juliet"))[-1]
    assert [c.tag for c in last] == [f"{{{NS}}}subject"]


def test_presence_says_who_somebody_is() -> None:
    room = Room(alice("Alice 😀", Role.OWNER))
    first, own = elements(room.enter(JULIET, "juliet"))[:2][0], elements(room.sync())
    assert own == []
    assert first.get("from") == f"{ROOM}/Alice"
    text = ET.tostring(first, encoding="unicode")
    assert 'affiliation="owner" role="moderator" jid="alice%m.example@gw.example"' in text
    assert 'id="o-matrix:@alice:m.example"' in text
    nick = first.find("{http://jabber.org/protocol/nick}nick")
    assert nick is not None
    assert nick.text == "Alice 😀"


def test_nothing_is_said_of_a_join_before_it_is_granted() -> None:
    room = Room()
    room.enter(ROMEO, "romeo")
    (request,) = room.receive(join(JULIET, "juliet"))
    assert isinstance(request, JoinRequest)
    assert (request.user, request.nick, request.history) == (J, "juliet", HistoryRequest())
    assert room.muc.roster.by_session(JULIET) is None
    refused = elements(room.muc.reply_error(request, errors.FORBIDDEN, "no [d1]"))
    text = ET.tostring(refused[0], encoding="unicode")
    assert "http://jabber.org/protocol/muc" in text
    assert f'by="{ROOM}"' in text
    assert "no [d1]" in text
    assert lines(room.muc.reply_error(request, errors.FORBIDDEN, "")) == [
        "juliet/a < juliet presence error: auth forbidden"
    ]


def test_a_taken_nick_is_a_conflict_and_a_refused_one_is_free_again() -> None:
    room = Room(alice())
    room.enter(ROMEO, "romeo")
    for nick in ("Alice", "romeo"):
        answer = room.receive(join(JULIET, nick))
        assert said(answer) == [f"juliet/a < {nick} presence error: cancel conflict"]
    (request,) = room.receive(join(JULIET, "capulet"))
    assert isinstance(request, JoinRequest)
    assert said(room.receive(join("nurse@x.example/n", "capulet")))[0].endswith("cancel conflict")
    room.muc.reply_error(request, errors.FORBIDDEN, "")
    assert isinstance(room.receive(join("nurse@x.example/n", "capulet"))[0], JoinRequest)


def test_a_second_connection_of_one_account_shares_its_nick() -> None:
    room = Room()
    room.enter(ROMEO, "romeo")
    room.enter(JULIET, "juliet")
    again = lines(room.enter("juliet@x.example/phone", "julie"))
    assert again == [
        "juliet/phone < romeo presence:",
        "juliet/phone < juliet presence: [100 110 170 210]",
        "juliet/phone < * message groupchat: subject=welcome",
    ]
    left = room.receive(f"<presence from='{JULIET}' to='{ROOM}/juliet' type='unavailable'/>")
    assert said(left) == ["juliet/a < juliet presence unavailable: [110]"]
    assert others(left) == [SessionClosed(J, JULIET, last=False)]
    left = room.receive(f"<presence from='juliet@x.example/phone' to='{ROOM}' type='unavailable'/>")
    assert said(left) == [
        "juliet/phone < juliet presence unavailable: [110]",
        "romeo/b < juliet presence unavailable:",
    ]
    assert others(left) == [SessionClosed(J, "juliet@x.example/phone", last=True)]
    assert room.muc.roster.by_user(J) is None


def test_the_same_join_twice_is_answered_twice() -> None:
    room = Room()
    first = lines(room.enter(JULIET, "juliet"))
    assert lines(room.enter(JULIET, "juliet")) == first
    assert room.muc.roster.session_jids() == (JULIET,)


def test_coming_back_under_another_nick_is_a_rename_and_a_whole_join() -> None:
    room = Room()
    room.enter(ROMEO, "romeo")
    room.enter(JULIET, "juliet")
    assert lines(room.enter(JULIET, "capulet")) == [
        "romeo/b < juliet presence unavailable: -> capulet [303]",
        "romeo/b < capulet presence:",
        "juliet/a < romeo presence:",
        "juliet/a < capulet presence: [100 110 170]",
        "juliet/a < * message groupchat: subject=welcome",
    ]


def test_a_nick_change() -> None:
    room = Room(alice())
    room.enter(ROMEO, "romeo")
    room.enter(JULIET, "juliet")
    (request,) = room.receive(join(JULIET, "capulet", inner=""))
    assert isinstance(request, NickChange)
    assert request.nick == "capulet"
    assert lines(room.muc.announce_nick(J, "capulet")) == [
        "romeo/b < juliet presence unavailable: -> capulet [303]",
        "juliet/a < juliet presence unavailable: -> capulet [110 303]",
        "romeo/b < capulet presence:",
        "juliet/a < capulet presence: [110]",
    ]
    assert room.muc.roster.by_nick("juliet") is None
    assert said(room.receive(join(JULIET, "Alice", inner="")))[0].endswith("cancel conflict")
    (update,) = room.receive(join(JULIET, "capulet", inner="<show>away</show>"))
    assert isinstance(update, PresenceUpdate)
    assert update.presence.show == "away"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (f"<presence from='{JULIET}' to='{ROOM}'>{X}</presence>", "* presence error: modify jid-malformed"),
        (join("juliet@x.example", "j"), "j presence error: modify bad-request"),
        (join(JULIET, "j", inner=""), "j presence error: modify not-acceptable"),
        (groupchat(JULIET, "<body>hi</body>"), "* message error: modify not-acceptable"),
        (join(JULIET, "j", id_="i" * 257), "j presence error: modify bad-request"),
    ],
)
def test_what_a_stranger_is_answered(text: str, answer: str) -> None:
    assert [a.split(" < ")[1] for a in said(Room().receive(text))] == [answer]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (
            f"<message from='{JULIET}' to='{ROOM}' type='chat'><body>x</body></message>",
            "cancel feature-not-implemented",
        ),
        (
            f"<message from='{JULIET}' to='{ROOM}/romeo' type='groupchat'><body>x</body></message>",
            "modify bad-request",
        ),
        (groupchat(JULIET, f"<body>{'x' * 32769}</body>"), "modify policy-violation"),
        (groupchat(JULIET, f"<subject>{'x' * 32769}</subject>"), "modify policy-violation"),
        (groupchat(JULIET, "<body>x</body>", id_="i" * 257), "modify bad-request"),
        (
            groupchat(JULIET, f"<body>x</body><origin-id xmlns='urn:xmpp:sid:0' id='{'i' * 257}'/>"),
            "modify bad-request",
        ),
    ],
)
def test_what_an_occupant_is_refused(text: str, answer: str) -> None:
    room = Room()
    room.enter(JULIET, "juliet")
    (line,) = said(room.receive(text))
    assert line.endswith(answer)


@pytest.mark.parametrize(
    "text",
    [
        f"<presence from='{JULIET}' to='{ROOM}/j' type='error'><x xmlns='http://jabber.org/protocol/muc'/></presence>",
        f"<message from='{JULIET}' to='{ROOM}' type='error'/>",
        f"<presence from='{JULIET}' to='{ROOM}/j' type='unavailable'/>",
        f"<presence from='{JULIET}' to='{ROOM}/j' type='subscribe'/>",
    ],
)
def test_what_is_never_answered(text: str) -> None:
    (ignored,) = Room().receive(text)
    assert isinstance(ignored, Ignored)


def test_a_full_room() -> None:
    room = Room()
    for n in range(5):
        room.enter(f"u{n}@x.example/r", f"u{n}")
    assert said(room.receive(join(JULIET, "juliet")))[0].endswith("wait service-unavailable")
    room.receive(f"<presence from='u0@x.example/r' to='{ROOM}' type='unavailable'/>")
    assert isinstance(room.receive(join(JULIET, "juliet"))[0], JoinRequest)


def test_words_are_a_request_and_shown_only_by_the_log() -> None:
    room = Room()
    room.enter(ROMEO, "romeo")
    room.enter(JULIET, "juliet")
    (request,) = room.receive(groupchat(JULIET, "<body>hi</body>", id_="m7"))
    assert isinstance(request, GroupchatMessage)
    assert (request.user, request.content, request.ids.id) == (J, Message(text="hi"), "m7")
    shown = room.live(J, Message(text="hi"), "n m7 o7")
    assert said(shown) == [
        "romeo/b < juliet message groupchat: body=hi",
        "juliet/a < juliet message groupchat: body=hi",
    ]
    reflected = elements(s for c in shown if isinstance(c, SendStanzas) for s in c.stanzas)[1]
    assert reflected.get("id") == "m7"
    by = {c.tag: (c.get("id"), c.get("by")) for c in reflected if c.tag.startswith("{urn:xmpp")}
    assert by == {
        "{urn:xmpp:sid:0}stanza-id": ("e11", ROOM),
        "{urn:xmpp:sid:0}origin-id": ("o7", None),
        "{urn:xmpp:occupant-id:0}occupant-id": ("o-xmpp:juliet@x.example", None),
    }


def test_words_of_another_network_carry_the_events_id() -> None:
    room = Room(alice())
    room.enter(JULIET, "juliet")
    (send,) = room.live(ALICE, Message(text="hello"))
    assert isinstance(send, SendStanzas)
    (shown,) = elements(send.stanzas)
    assert (shown.get("id"), shown.get("from")) == ("e11", f"{ROOM}/Alice")


def test_nobody_is_given_twice_what_was_history() -> None:
    room = Room(alice())
    room.enter(ROMEO, "romeo")
    room.seq += 1
    event = room.event(ALICE, Message(text="hello"))
    room.enter(JULIET, "juliet", event)
    assert said(room.muc.broadcast_event(event, event.content, room.view)) == [
        "romeo/b < Alice message groupchat: body=hello"
    ]


def test_topic_name_and_what_has_no_words() -> None:
    room = Room(alice())
    room.enter(JULIET, "juliet")
    assert said(room.live(J, Topic(text="new"), "n s1 ")) == [
        "juliet/a < juliet message groupchat: subject=new"
    ]
    assert said(room.live(ALICE, Topic(text=""))) == ["juliet/a < Alice message groupchat: subject="]
    assert said(room.live(ALICE, Name(text="Lobby"))) == ["juliet/a < * message groupchat: [104]"]
    assert said(room.live(ALICE, Message(text=""))) == []


def test_people_of_other_networks_come_rename_and_go() -> None:
    room = Room()
    room.enter(JULIET, "juliet")
    assert said(room.member(ALICE, Membership.JOIN, ALICE, "juliet")) == [
        "juliet/a < juliet (alice) presence:"
    ]
    assert said(room.member(ALICE, Membership.JOIN, ALICE, "juliet")) == []
    assert said(room.member(ALICE, Membership.JOIN, ALICE, "Alice")) == [
        "juliet/a < juliet (alice) presence unavailable: -> Alice [303]",
        "juliet/a < Alice presence:",
    ]
    assert said(room.member(ALICE, Membership.LEAVE, ALICE)) == ["juliet/a < Alice presence unavailable:"]
    assert said(room.member(ALICE, Membership.LEAVE, ALICE)) == []
    room.member(ALICE, Membership.JOIN, ALICE, "Alice")
    room.member(BOB, Membership.JOIN, BOB, "Bob")
    assert said(room.member(ALICE, Membership.LEAVE, BOB)) == ["juliet/a < Alice presence unavailable: [307]"]
    room.member(ALICE, Membership.JOIN, ALICE, "Alice")
    assert said(room.member(ALICE, Membership.BAN, BOB)) == ["juliet/a < Alice presence unavailable: [301]"]


@pytest.mark.parametrize(("membership", "code"), [(Membership.LEAVE, "307"), (Membership.BAN, "301")])
def test_a_kick_and_a_ban_reach_every_connection(membership: Membership, code: str) -> None:
    room = Room(alice())
    room.enter(ROMEO, "romeo")
    room.enter(JULIET, "juliet")
    room.enter("juliet@x.example/phone", "juliet")
    commands = room.member(J, membership, ALICE, reason="enough")
    assert said(commands) == [
        f"romeo/b < juliet presence unavailable: [{code}]",
        f"juliet/a < juliet presence unavailable: [110 {code}]",
        f"juliet/phone < juliet presence unavailable: [110 {code}]",
    ]
    assert others(commands) == [
        SessionClosed(J, JULIET, False),
        SessionClosed(J, "juliet@x.example/phone", False),
    ]
    sent = [s for c in commands if isinstance(c, SendStanzas) for s in c.stanzas]
    text = ET.tostring(elements(sent)[0], encoding="unicode")
    assert "enough" in text
    assert 'nick="Alice"' in text
    assert ('affiliation="outcast"' in text) == (code == "301")


def test_a_leave_that_a_later_join_undid_moves_nobody() -> None:
    room = Room(alice())
    room.enter(JULIET, "juliet")
    leave = Member(user=J, membership=Membership.LEAVE)
    assert room.live(J, leave) == []
    assert room.live(ALICE, leave) == []
    assert room.muc.roster.by_session(JULIET) is not None


@pytest.mark.parametrize("kind", ["message", "presence"])
def test_an_error_from_a_dead_connection_evicts_it(kind: str) -> None:
    room = Room()
    room.enter(ROMEO, "romeo")
    room.enter(JULIET, "juliet")
    error = "<error type='cancel'><{} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    start = f"<{kind} from='{JULIET}' to='{ROOM}/romeo' type='error'>"
    assert room.receive(start + error.format("not-allowed") + f"</{kind}>") == [Ignored("error")]
    commands = room.receive(start + error.format("recipient-unavailable") + f"</{kind}>")
    assert said(commands) == [
        "juliet/a < juliet presence unavailable: [110 307 333]",
        "romeo/b < juliet presence unavailable: [307 333]",
    ]
    assert others(commands) == [SessionClosed(J, JULIET, last=True, lost=True)]


def test_people_unknown_to_events_are_found_in_the_view() -> None:
    room = Room()
    room.enter(JULIET, "juliet")
    room.view.apply(ViewDelta(upserts=(alice(),)))
    assert said(room.live(ALICE, Message(text="hi"))) == [
        "juliet/a < Alice presence:",
        "juliet/a < Alice message groupchat: body=hi",
    ]
    room.view.apply(ViewDelta(removed=(ALICE,), upserts=(RoomMember(user=BOB, membership=Membership.JOIN),)))
    assert lines(room.sync()) == [
        "juliet/a < Alice presence unavailable:",
        "juliet/a < bob presence:",
    ]


def test_somebody_who_left_does_not_speak_under_anothers_nick() -> None:
    room = Room()
    room.enter(JULIET, "alice")
    assert said(room.live(ALICE, Message(text="late"))) == [
        "juliet/a < alice (alice) message groupchat: body=late"
    ]


@pytest.mark.parametrize(
    ("history", "asked"),
    [
        (
            "<history maxstanzas='7' maxchars='0' seconds='60'/>",
            HistoryRequest(stanzas=7, chars=0, seconds=60),
        ),
        ("<history since='1970-01-01T00:00:01.5Z'/>", HistoryRequest(since=1500)),
        ("<history since='tomorrow' maxstanzas='-1' seconds='٣'/>", HistoryRequest()),
        ("<history maxstanzas='99999999999999'/>", HistoryRequest()),
    ],
)
def test_the_history_asked_for(history: str, asked: HistoryRequest) -> None:
    x = f"<x xmlns='http://jabber.org/protocol/muc'>{history}</x>"
    (request,) = Room().receive(join(JULIET, "j", inner=x))
    assert isinstance(request, JoinRequest)
    assert request.history == asked


def ask(room: Room, text: str) -> list[Command]:
    return query.to_room(arrived(text), room.muc, room.view)


def test_self_ping() -> None:
    room = Room(alice())
    own = f"{ROOM}/juliet"
    assert said(ask(room, iq(JULIET, own, PING))) == ["juliet/a < juliet iq error: modify not-acceptable"]
    room.enter(JULIET, "juliet")
    assert said(ask(room, iq(JULIET, own, PING))) == ["juliet/a < juliet iq result:"]
    assert said(ask(room, iq("juliet@x.example/other", own, PING)))[0].endswith("modify not-acceptable")
    assert said(ask(room, iq(JULIET, f"{ROOM}/Alice", PING)))[0].endswith("cancel service-unavailable")
    assert said(ask(room, iq(JULIET, f"{ROOM}/nobody", PING)))[0].endswith("cancel item-not-found")
    assert said(ask(room, iq(JULIET, ROOM, PING))) == ["juliet/a < * iq result:"]


DISCO = "<query xmlns='http://jabber.org/protocol/disco#info'/>"


def test_disco_says_conference_at_the_room_and_at_the_service() -> None:
    room = Room()
    room.view.apply(ViewDelta(info=RoomInfo(name="The & Lobby")))
    answers = [
        *ask(room, iq(JULIET, ROOM, DISCO)),
        *query.to_service(arrived(iq(JULIET, GW, DISCO)), []),
    ]
    for answer in answers:
        assert isinstance(answer, SendStanzas)
        text = ET.tostring(elements(answer.stanzas)[0], encoding="unicode")
        assert 'category="conference" type="text"' in text
        assert 'var="http://jabber.org/protocol/muc"' in text
    text = ET.tostring(elements(answers[0].stanzas)[0], encoding="unicode")
    assert 'name="The &amp; Lobby"' in text
    assert all(
        f'var="{v}"' in text for v in ("muc_open", "muc_public", "urn:xmpp:occupant-id:0", "urn:xmpp:sid:0")
    )
    room.view.apply(ViewDelta(info=RoomInfo(join_rule="invite")))
    (answer,) = ask(room, iq(JULIET, ROOM, DISCO))
    assert isinstance(answer, SendStanzas)
    text = ET.tostring(elements(answer.stanzas)[0], encoding="unicode")
    assert 'var="muc_membersonly"' in text
    assert 'var="muc_hidden"' in text


def test_the_service_lists_rooms() -> None:
    items = "<query xmlns='http://jabber.org/protocol/disco#items'/>"
    (answer,) = query.to_service(arrived(iq(JULIET, GW, items)), [(ROOM, "Lobby")])
    assert isinstance(answer, SendStanzas)
    assert f'jid="{ROOM}" name="Lobby"' in ET.tostring(elements(answer.stanzas)[0], encoding="unicode")


OWNER = "<query xmlns='http://jabber.org/protocol/muc#owner'>{}</query>"


def submit_form(*fields: tuple[str, str]) -> str:
    inner = "".join(f"<field var='{var}'><value>{value}</value></field>" for var, value in fields)
    return OWNER.format(f"<x xmlns='jabber:x:data' type='submit'>{inner}</x>")


def test_an_owner_configures_the_room_and_no_field_is_taken_without_effect() -> None:
    room = Room()
    room.view.apply(ViewDelta(info=RoomInfo(name="Old <name>")))
    named = submit_form(("muc#roomconfig_roomname", "New"))
    assert said(ask(room, iq(JULIET, ROOM, named, "set"))) == ["juliet/a < * iq error: auth forbidden"]
    room.enter(JULIET, "juliet")
    for role in (Role.MEMBER, Role.MODERATOR):
        room.rank(J, role)
        for type_, query_ in (("get", OWNER.format("")), ("set", named)):
            answer = said(ask(room, iq(JULIET, ROOM, query_, type_)))
            assert answer == ["juliet/a < * iq error: auth forbidden"]
    room.rank(J, Role.OWNER)
    (form,) = ask(room, iq(JULIET, ROOM, OWNER.format("")))
    assert isinstance(form, SendStanzas)
    fields = [
        (e.get("var", ""), e.findtext("{jabber:x:data}value") or "")
        for e in elements(form.stanzas)[0].iter("{jabber:x:data}field")
    ]
    assert dict(fields)["muc#roomconfig_roomname"] == "Old <name>"
    escaped = [(var, value.replace("<", "&lt;")) for var, value in fields]
    (same,) = ask(room, iq(JULIET, ROOM, submit_form(*escaped), "set"))
    assert isinstance(same, RoomChanges) and same.contents == ()
    both = submit_form(("muc#roomconfig_roomname", "New"), ("muc#roomconfig_membersonly", "true"))
    (request,) = ask(room, iq(JULIET, ROOM, both, "set"))
    assert isinstance(request, RoomChanges)
    assert (request.user, request.contents) == (J, (Name(text="New"), JoinRule(rule="invite")))
    refused = {
        submit_form(("muc#roomconfig_maxusers", "5")): "modify not-acceptable",
        submit_form(("muc#roomconfig_moderatedroom", "1")): "modify not-acceptable",
        submit_form(("muc#roomconfig_membersonly", "perhaps")): "modify not-acceptable",
        submit_form(("muc#roomconfig_whois", "moderators")): "modify not-acceptable",
        submit_form(("FORM_TYPE", "other")): "modify bad-request",
        submit_form(("muc#roomconfig_roomname", "x" * 1025)): "modify policy-violation",
        submit_form(*[("muc#roomconfig_persistentroom", "1")] * 101): "modify policy-violation",
        OWNER.format("<destroy xmlns='http://jabber.org/protocol/muc#owner'/>"): "cancel feature-not-impl",
        OWNER.format(""): "modify bad-request",
        OWNER.format("<x xmlns='jabber:x:data' type='form'/>"): "modify bad-request",
    }
    for text, error in refused.items():
        assert error in said(ask(room, iq(JULIET, ROOM, text, "set")))[0], text
    named_field = ask(room, iq(JULIET, ROOM, submit_form(("muc#roomconfig_maxusers", "5")), "set"))
    assert isinstance(named_field[0], SendStanzas)
    assert "muc#roomconfig_maxusers" in "".join(elements(named_field[0].stanzas)[0].itertext())
    cancel = OWNER.format("<x xmlns='jabber:x:data' type='cancel'/>")
    assert said(ask(room, iq(JULIET, ROOM, cancel, "set"))) == ["juliet/a < * iq result:"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (iq(JULIET, ROOM, ""), "modify bad-request"),
        (iq(JULIET, ROOM, PING + PING), "modify bad-request"),
        (iq(JULIET, ROOM, PING, "fetch"), "modify bad-request"),
        (iq(JULIET, ROOM, PING, id_=""), "modify bad-request"),
        (iq(JULIET, ROOM, PING, id_="i" * 257), "modify bad-request"),
        (iq(JULIET, ROOM, "<vCard xmlns='vcard-temp'/>"), "cancel service-unavailable"),
        (iq(JULIET, ROOM, DISCO.replace("/>", " node='x'/>")), "cancel item-not-found"),
    ],
)
def test_odd_queries(text: str, answer: str) -> None:
    (line,) = said(ask(Room(), text))
    assert line.endswith(answer)


def test_results_are_not_answered() -> None:
    room = Room()
    for type_ in ("result", "error"):
        assert ask(room, iq(JULIET, ROOM, PING, type_)) == []
        assert query.unknown_room(arrived(iq(JULIET, ROOM, PING, type_))) == [SendStanzas(())]


steps = st.tuples(
    st.sampled_from(["join", "nick", "leave", "admit", "refuse", "puppet", "gone"]),
    st.sampled_from(["u1@x.example/a", "u1@x.example/b", "u2@x.example/a", "u3@x.example/a"]),
    st.sampled_from(["n1", "n2", "n3"]),
)


@given(st.lists(steps, max_size=40))
def test_whatever_happens_a_nick_has_one_holder_and_a_person_one_nick(
    history: list[tuple[str, str, str]],
) -> None:
    room, pending = Room(), dict[str, JoinRequest | NickChange]()
    for what, full, nick in history:
        bare = full.split("/")[0]
        request = pending.pop(bare, None)
        if request is not None:  # one person's requests are answered in order
            if what == "refuse" or isinstance(request, NickChange):
                room.muc.reply_error(request, errors.FORBIDDEN, "")
            else:
                list(room.muc.complete_join(request, JoinGrant(upto=0), room.view))
        if what in {"join", "nick"}:
            commands = room.receive(join(full, nick, X if what == "join" else ""))
            pending.update((bare, c) for c in commands if isinstance(c, JoinRequest | NickChange))
        elif what == "leave":
            room.receive(f"<presence from='{full}' to='{ROOM}' type='unavailable'/>")
        elif what == "puppet":
            room.member(NativeId("matrix", f"@{bare.split('@')[0]}:m"), Membership.JOIN, ALICE, nick)
        elif what == "gone":
            room.member(NativeId("matrix", f"@{bare.split('@')[0]}:m"), Membership.LEAVE, ALICE)
            room.member(NativeId("xmpp", bare), Membership.LEAVE, ALICE)
        occupants = list(room.muc.roster)
        assert len({o.nick for o in occupants}) == len(occupants)
        for occupant in occupants:
            assert room.muc.roster.by_nick(occupant.nick) is occupant
            assert occupant.sessions or occupant.user.network == "matrix"
            assert all(room.muc.roster.by_session(f) is occupant for f in occupant.sessions)
    for request in pending.values():
        room.muc.reply_error(request, errors.FORBIDDEN, "")
    held = {o.nick for o in room.muc.roster}
    assert all(
        room.muc.roster.is_nick_free(n, NativeId("x", "new")) == (n not in held) for n in ("n1", "n2", "n3")
    )


def test_a_large_room_is_shown_some_people_at_a_time() -> None:
    """Between two of these everybody else is served, and people come and go."""
    people = [
        RoomMember(
            user=NativeId("matrix", f"@u{number}:m.example"), membership=Membership.JOIN, name=f"U {number}"
        )
        for number in range(1000)
    ]
    room = Room()
    room.view.load(people)
    steps = [
        sum(len(c.stanzas) for c in some if isinstance(c, SendStanzas))
        for some in room.muc.sync_occupants(room.view)
    ]
    assert sum(steps) == 1000 and max(steps) <= 200
    assert not any(some for some in room.muc.sync_occupants(room.view))
    (request,) = room.receive(join(JULIET, "juliet"))
    assert isinstance(request, JoinRequest)
    person = RoomMember(user=request.user, membership=Membership.JOIN, name="juliet")
    room.view.apply(ViewDelta(upserts=(person,)))
    shown = room.muc.complete_join(request, JoinGrant(upto=0), room.view)
    first = next(shown)
    assert room.muc.roster.by_session(JULIET) is not None, "with the first stanza they are in"
    room.member(people[900].user, Membership.LEAVE, people[900].user)
    room.member(
        NativeId("matrix", "@new:m.example"), Membership.JOIN, NativeId("matrix", "@new:m.example"), "New"
    )
    rest = lines([first, *shown])
    assert len([one for one in rest if "presence:" in one]) == 1001, "all but who left; oneself"
    assert not any("U 900 presence" in one for one in rest)
    assert rest[-1] == "juliet/a < * message groupchat: subject="


def test_who_leaves_while_they_are_let_in_is_shown_nothing_more() -> None:
    room = Room(*(alice(),))
    (request,) = room.receive(join(JULIET, "juliet"))
    assert isinstance(request, JoinRequest)
    shown = room.muc.complete_join(request, JoinGrant(upto=0), room.view)
    next(shown)
    room.receive(f"<presence from='{JULIET}' to='{ROOM}' type='unavailable'/>")
    assert list(shown) == []
