"""Corrections, reactions, retractions and replies in a hosted MUC, on a real core with a scripted network."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import pytest
from hansa import (
    Action,
    Content,
    Crossing,
    Custom,
    Edit,
    Event,
    EventOut,
    Kind,
    Membership,
    Message,
    NativeId,
    Reaction,
    Reason,
    Retraction,
    Role,
    RoomMember,
    Verdict,
    ViewDelta,
    texts_of,
    words_of,
)
from hansa_xmpp.proto.payload import MAX_PAYLOAD
from hansa_xmpp.proto.targeted import MAX_REACTIONS
from xmpp.stanzas import NS, ROOM, groupchat, iq
from xmpp.xmpp_server import XmppServer, mx, xm, xmpp_server

JULIET, ROMEO, EVE = "juliet@x.example/a", "romeo@x.example/b", "eve@x.example/c"
REPLACE = "<replace xmlns='urn:xmpp:message-correct:0' id='{}'/>"
RETRACT = "<retract xmlns='urn:xmpp:message-retract:1' id='{}'/>"
SID = "{urn:xmpp:sid:0}stanza-id"
BODY = f"{{{NS}}}body"


def reactions(target: str, *keys: str) -> str:
    inner = "".join(f"<reaction>{key}</reaction>" for key in keys)
    return f"<reactions xmlns='urn:xmpp:reactions:0' id='{target}'>{inner}</reactions>"


def moderate(target: str) -> str:
    inner = "<retract xmlns='urn:xmpp:message-retract:1'/><reason>spam</reason>"
    return f"<moderate xmlns='urn:xmpp:message-moderate:1' id='{target}'>{inner}</moderate>"


def got(h: XmppServer, full: str) -> list[Element]:
    """The messages that a client got, but subjects."""
    return [
        e
        for e in h.link.sent
        if e.get("to") == full and e.tag.endswith("}message") and e.find(f"{{{NS}}}subject") is None
    ]


async def message(h: XmppServer, full: str, number: int) -> Element:
    await h.link.until(lambda: len(got(h, full)) >= number)
    return got(h, full)[number - 1]


def child(e: Element, name: str, xmlns: str) -> Element:
    found = e.find(f"{{{xmlns}}}{name}")
    assert found is not None, [c.tag for c in e]
    return found


def error_of(e: Element) -> str:
    assert e.get("type") == "error", [c.tag for c in e]
    return next(c.tag.rpartition("}")[2] for c in child(e, "error", NS) if not c.tag.endswith("}text"))


async def errors_to(h: XmppServer, full: str, number: int) -> Element:
    def found() -> list[Element]:
        return [e for e in h.link.sent if e.get("to") == full and e.get("type") == "error"]

    await h.link.until(lambda: len(found()) >= number)
    return found()[number - 1]


async def said(h: XmppServer, number: int) -> list[Content]:
    """What the scripted network got besides memberships."""

    def found() -> list[Content]:
        return [e.content for e in h.other.got if e.content.kind is not Kind.MEMBER]

    await h.until(lambda: len(found()) >= number)
    return found()


async def event_of(h: XmppServer, e: Element) -> Event:
    found = await h.ctx.event_with_id(ROOM, child(e, "stanza-id", "urn:xmpp:sid:0").get("id", ""))
    assert found is not None
    return found


async def enter_both(h: XmppServer) -> None:
    await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
    await h.enter(JULIET, "Jule")
    await h.enter(ROMEO, "Romeo")


async def test_two_occupants_lose_nothing_that_a_message_brings() -> None:
    extra = (
        "<x xmlns='urn:some:ext' xmlns:o='urn:o' o:k='1' n='&lt;&apos;'>t<y/>u<z xmlns='urn:z'>&amp;</z></x>"
        "<markable xmlns='urn:xmpp:chat-markers:0'/><thread>th</thread>"
    )
    forged = (
        "<stanza-id xmlns='urn:xmpp:sid:0' id='forged' by='lobby@gw.example'/>"
        "<occupant-id xmlns='urn:xmpp:occupant-id:0' id='forged'/>"
        "<delay xmlns='urn:xmpp:delay' stamp='2000-01-01T00:00:00Z'/>"
        "<x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x>"
        "<addresses xmlns='http://jabber.org/protocol/address'><address type='to' jid='a@b'/></addresses>"
        "<retracted xmlns='urn:xmpp:message-retract:1' id='x'/>"
    )
    async with xmpp_server() as h:
        await enter_both(h)
        h.link.receive(groupchat(JULIET, f"<body>*one*</body>{forged}{extra}"))
        shown = await message(h, ROMEO, 1)
        assert shown.findtext(BODY) == "*one*"
        x = child(shown, "x", "urn:some:ext")
        assert (x.attrib, x.text, x[0].tail) == ({"{urn:o}k": "1", "n": "<'"}, "t", "u")
        assert child(x, "z", "urn:z").text == "&"
        assert shown.find("{urn:xmpp:chat-markers:0}markable") is not None
        assert shown.findtext(f"{{{NS}}}thread") == "th"
        assert "forged" not in [e.get("id") for e in shown]
        assert [len(shown.findall(SID)), shown.find("{urn:xmpp:delay}delay")] == [1, None]
        for gone in ("retracted", "addresses", "x"):
            assert not [e for e in shown if e.tag.endswith(f"}}{gone}") and "some:ext" not in e.tag]
        await h.enter(EVE, "Eve")
        past = await message(h, EVE, 1)
        assert child(past, "x", "urn:some:ext").text == "t"
        assert past.find("{urn:xmpp:delay}delay") is not None
        assert h.other.got[-2].payload == b""


async def test_a_message_that_carries_too_much_is_refused_alone() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        much = f"<x xmlns='urn:some:ext'>{'x' * MAX_PAYLOAD}</x>"
        h.link.receive(groupchat(JULIET, "<body>before</body>", id_="m1"))
        h.link.receive(groupchat(JULIET, f"<body>too much</body>{much}", id_="m2"))
        h.link.receive(groupchat(JULIET, "<body>after</body>", id_="m3"))
        assert (await message(h, ROMEO, 2)).findtext(BODY) == "after"
        assert [one.findtext(BODY) for one in got(h, ROMEO)] == ["before", "after"]
        [error] = [one for one in got(h, JULIET) if one.get("type") == "error"]
        assert error.get("id") == "m2"
        assert error.find(".//{urn:ietf:params:xml:ns:xmpp-stanzas}policy-violation") is not None


async def test_an_encrypted_message_and_one_without_words_reach_the_others() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        sealed = "<encrypted xmlns='urn:xmpp:omemo:2'><payload>abc</payload></encrypted>"
        h.link.receive(groupchat(JULIET, f"<body>not for you</body>{sealed}{REPLACE.format('m0')}", id_="e"))
        shown = await message(h, ROMEO, 1)
        assert child(shown, "encrypted", "urn:xmpp:omemo:2").findtext("{urn:xmpp:omemo:2}payload") == "abc"
        assert child(shown, "replace", "urn:xmpp:message-correct:0").get("id") == "m0"
        h.link.receive(groupchat(JULIET, "<invite xmlns='urn:xmpp:call-invites:0'/>", id_="c"))
        assert child(await message(h, ROMEO, 2), "invite", "urn:xmpp:call-invites:0") is not None
        assert (await said(h, 2))[1] == Custom(type="urn:xmpp:call-invites:0")


async def test_a_correction_is_an_edit_and_the_history_has_the_latest_text() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        h.link.receive(groupchat(JULIET, "<body>helo</body><e xmlns='urn:e'>1</e>", id_="1"))
        h.link.receive(groupchat(ROMEO, "<body>other</body>", id_="1"))
        await message(h, ROMEO, 2)
        h.link.receive(groupchat(JULIET, f"<body>hello</body>{REPLACE.format('1')}", id_="2"))
        h.link.receive(groupchat(JULIET, f"<body>hello!</body>{REPLACE.format('2')}", id_="3"))
        shown = await message(h, ROMEO, 4)
        assert shown.findtext(BODY) == "hello!"
        assert (shown.get("id"), child(shown, "replace", "urn:xmpp:message-correct:0").get("id")) == (
            "3",
            "1",
        )
        first = await event_of(h, next(e for e in got(h, ROMEO) if e.findtext(BODY) == "helo"))
        assert (await said(h, 4))[2:] == [
            Edit(target=first.id, message=Message(text="hello")),
            Edit(target=first.id, message=Message(text="hello!")),
        ]
        await h.enter(EVE, "Eve")
        past = {e.findtext(BODY): e for e in got(h, EVE)}
        assert set(past) == {"hello!", "other"}
        assert past["hello!"].get("id") == "1"
        assert child(past["hello!"], "stanza-id", "urn:xmpp:sid:0").get("id") == first.id
        assert past["hello!"].find("{urn:xmpp:message-correct:0}replace") is None
        assert past["hello!"].find("{urn:e}e") is None  # a correction replaces everything


async def test_only_ones_own_message_can_be_corrected() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        h.link.receive(groupchat(JULIET, "<body>mine</body>", id_="1"))
        await message(h, ROMEO, 1)
        h.link.receive(groupchat(ROMEO, f"<body>yours</body>{REPLACE.format('1')}", id_="2"))
        assert error_of(await errors_to(h, ROMEO, 1)) == "item-not-found"
        h.link.receive(groupchat(ROMEO, f"<body>yours</body>{REPLACE.format('')}", id_="3"))
        assert error_of(await errors_to(h, ROMEO, 2)) == "not-acceptable"
        assert await said(h, 1) == [Message(text="mine")]


async def test_an_edit_of_the_other_network_is_a_correction() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        await h.other.say("alice", "helo")
        first = await message(h, ROMEO, 1)
        event = await event_of(h, first)
        (edit,) = await h.other.submit((mx("alice"), Edit(target=event.id, message=Message(text="hello"))))
        shown = await message(h, ROMEO, 2)
        assert child(shown, "replace", "urn:xmpp:message-correct:0").get("id") == first.get("id") == event.id
        assert (shown.get("from"), shown.findtext(BODY)) == (f"{ROOM}/Alice", "hello")
        assert edit.event is not None
        await h.other.submit((mx("alice"), Retraction(target=edit.event.id)))
        shown = await message(h, ROMEO, 3)
        assert shown.findtext(BODY) == "helo"
        assert child(shown, "replace", "urn:xmpp:message-correct:0").get("id") == event.id


async def test_reactions_are_a_set_and_cross_as_their_differences() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        await h.other.say("alice", "hi")
        event = await event_of(h, await message(h, ROMEO, 1))
        h.link.receive(groupchat(JULIET, reactions(event.id, "👍", "🎉", "👍"), id_="r1"))
        sent = await said(h, 2)
        assert sent == [Reaction(target=event.id, key="👍"), Reaction(target=event.id, key="🎉")]
        shown = await message(h, ROMEO, 3)
        assert (shown.get("from"), shown.get("id")) == (f"{ROOM}/Jule", "r1")
        assert keys(shown) == ["👍", "🎉"]
        h.link.receive(groupchat(JULIET, reactions(event.id, "🎉"), id_="r2"))
        shown = await message(h, ROMEO, 4)
        assert (shown.get("id"), keys(shown)) == ("r2", ["🎉"])
        (thumb, _) = [e for e in h.other.got if e.content.kind is Kind.REACTION]
        assert (await said(h, 3))[2] == Retraction(target=thumb.id, of=Kind.REACTION, of_target=event.id)
        h.link.receive(groupchat(JULIET, reactions(event.id, "🎉"), id_="r3"))
        shown = await message(h, JULIET, 5)
        assert (shown.get("id"), keys(shown)) == ("r3", ["🎉"])
        h.link.receive(groupchat(JULIET, reactions(event.id), id_="r4"))
        assert keys(await message(h, ROMEO, 5)) == []
        assert [one async for one in h.ctx.related(event, Kind.REACTION)] == []


def keys(e: Element) -> list[str | None]:
    return [r.text for r in child(e, "reactions", "urn:xmpp:reactions:0")]


async def test_a_reaction_of_the_other_network_is_shown_and_taken_back_by_whoever_may() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        h.link.receive(groupchat(JULIET, "<body>hi</body>", id_="1"))
        event = await event_of(h, await message(h, ROMEO, 1))
        (first, _) = await h.other.submit(
            (mx("alice"), Reaction(target=event.id, key="👍")),
            (mx("alice"), Reaction(target=event.id, key="🎉")),
        )
        assert first.event is not None
        shown = await message(h, ROMEO, 3)
        assert (shown.get("from"), keys(shown)) == (f"{ROOM}/Alice", ["👍", "🎉"])
        mod = RoomMember(user=mx("mod"), membership=Membership.JOIN, role=Role.MODERATOR)
        await h.ctx.reconcile_view(ROOM, ViewDelta(upserts=(mod,)))
        await h.other.submit((mx("mod"), Retraction(target=first.event.id)))
        shown = await message(h, ROMEO, 4)
        assert (shown.get("from"), keys(shown)) == (f"{ROOM}/Alice", ["🎉"])


async def test_what_is_wrong_with_reactions_is_told_to_their_sender() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        await h.other.say("alice", "hi")
        event = await event_of(h, await message(h, ROMEO, 1))
        many = [str(n) for n in range(MAX_REACTIONS + 1)]
        for number, (inner, condition) in enumerate(
            (
                (reactions(event.id, *many), "not-acceptable"),
                (reactions(event.id, "x" * 65), "not-acceptable"),
                (reactions("", "x"), "not-acceptable"),
                (reactions("nothing", "x"), "item-not-found"),
                (reactions("1", "x"), "item-not-found"),
            ),
            1,
        ):
            h.link.receive(groupchat(JULIET, inner))
            assert error_of(await errors_to(h, JULIET, number)) == condition
        h.link.receive(groupchat(JULIET, reactions(event.id, *many[1:])))
        assert len(await said(h, MAX_REACTIONS)) == MAX_REACTIONS


async def test_a_retraction_takes_a_message_out_of_the_history() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        h.link.receive(groupchat(JULIET, "<body>secret</body><x xmlns='urn:e'>more</x>", id_="1"))
        event = await event_of(h, await message(h, ROMEO, 1))
        h.link.receive(groupchat(JULIET, f"<body>secrets</body>{REPLACE.format('1')}", id_="2"))
        edited = child(await message(h, ROMEO, 2), "stanza-id", "urn:xmpp:sid:0").get("id", "")
        h.link.receive(groupchat(ROMEO, RETRACT.format(event.id), id_="3"))
        assert error_of(await errors_to(h, ROMEO, 1)) == "forbidden"
        h.link.receive(groupchat(JULIET, RETRACT.format(edited), id_="4"))
        shown = await message(h, ROMEO, 4)
        assert (shown.get("from"), shown.get("id")) == (f"{ROOM}/Jule", "4")
        assert child(shown, "retract", "urn:xmpp:message-retract:1").get("id") == event.id
        assert (await said(h, 3))[2] == Retraction(target=event.id)
        await h.enter(EVE, "Eve")
        assert got(h, EVE) == []
        row = b"".join(row.body for row in await h.app.core.scan("event"))
        assert b"secret" not in row
        assert b"more" not in row


async def test_a_moderator_retracts_by_the_rooms_own_form() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        await h.other.say("alice", "spam")
        event = await event_of(h, await message(h, ROMEO, 1))
        h.link.receive(iq(JULIET, ROOM, moderate(event.id), "set", "q1"))
        assert error_of(await errors_to(h, JULIET, 1)) == "forbidden"
        mod = RoomMember(user=xm("juliet"), membership=Membership.JOIN, name="Jule", role=Role.MODERATOR)
        await h.ctx.reconcile_view(ROOM, ViewDelta(upserts=(mod,)))
        h.link.receive(iq(JULIET, ROOM, moderate(event.id), "set", "q2"))
        await h.link.line("juliet/a < * iq result:")
        shown = await message(h, ROMEO, 2)
        assert shown.get("from") == ROOM
        retract = child(shown, "retract", "urn:xmpp:message-retract:1")
        assert retract.get("id") == event.id
        assert child(retract, "moderated", "urn:xmpp:message-moderate:1").get("by") == f"{ROOM}/Jule"
        assert retract.findtext("{urn:xmpp:message-retract:1}reason") == "spam"
        assert (await said(h, 1))[0] == Retraction(target=event.id, reason="spam")
        h.link.receive(iq(EVE, ROOM, moderate(event.id), "set", "q3"))
        assert error_of(await errors_to(h, EVE, 1)) == "forbidden"


async def test_a_retraction_by_the_other_network() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        await h.other.say("alice", "oops")
        event = await event_of(h, await message(h, ROMEO, 1))
        await h.other.submit((mx("alice"), Retraction(target=event.id)))
        shown = await message(h, ROMEO, 2)
        assert shown.get("from") == f"{ROOM}/Alice"
        assert child(shown, "retract", "urn:xmpp:message-retract:1").get("id") == event.id
        assert "retracted" in (shown.findtext(BODY) or "")


@pytest.mark.parametrize(
    ("ranges", "text"),
    [
        ("<body start='0' end='11'/>", "yes 👍"),
        ("<body start='0' end='10'/>", "yes 👍"),
        ("<body start='0' end='99'/>", "> Alice: 👍\nyes 👍"),
        ("<body start='9' end='2'/>", "> Alice: 👍\nyes 👍"),
        ("<body start='-1' end='x'/>", "> Alice: 👍\nyes 👍"),
        ("<body start='0' end='5'/><body start='3' end='11'/>", "yes 👍"),
        ("", "> Alice: 👍\nyes 👍"),
        ("<body/>", "> Alice: 👍\nyes 👍"),
    ],
)
async def test_a_reply_names_its_event_and_loses_the_quote(ranges: str, text: str) -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        await h.other.say("alice", "👍")
        event = await event_of(h, await message(h, ROMEO, 1))
        whole = "&gt; Alice: 👍\nyes 👍"
        reply = (
            f"<reply xmlns='urn:xmpp:reply:0' id='{event.id}' to='{ROOM}/Alice'/>"
            f"<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'>{ranges}</fallback>"
        )
        h.link.receive(groupchat(JULIET, f"<body>{whole}</body>{reply}"))
        (content,) = await said(h, 1)
        assert isinstance(content, Message)
        assert content.reply_to == event.id
        shown = await message(h, ROMEO, 2)
        assert shown.findtext(BODY) == "> Alice: 👍\nyes 👍"
        assert child(shown, "reply", "urn:xmpp:reply:0").get("id") == event.id
        if text.startswith(">"):
            assert "Alice" in content.text
        else:
            assert content.text == text


async def test_a_reply_of_the_other_network_has_a_quote_that_is_marked_as_one() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        h.link.receive(groupchat(JULIET, "<body>one 👍\ntwo</body>", id_="1"))
        event = await event_of(h, await message(h, ROMEO, 1))
        await h.other.submit((mx("alice"), Message(text="yes", reply_to=event.id)))
        shown = await message(h, ROMEO, 2)
        body = shown.findtext(BODY) or ""
        reply = child(shown, "reply", "urn:xmpp:reply:0")
        assert (reply.get("id"), reply.get("to")) == (event.id, f"{ROOM}/Jule")
        part = child(child(shown, "fallback", "urn:xmpp:fallback:0"), "body", "urn:xmpp:fallback:0")
        start, end = int(part.get("start", "")), int(part.get("end", ""))
        assert (body[start:end], body[end:]) == ("> Jule: one 👍 two\n", "yes")


async def test_a_reply_to_what_is_not_known_stays_whole() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        quote = "<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='4'/></fallback>"
        reply = f"<reply xmlns='urn:xmpp:reply:0' id='nothing'/>{quote}"
        h.link.receive(groupchat(JULIET, f"<body>&gt; a\nb</body>{reply}"))
        (content,) = await said(h, 1)
        assert isinstance(content, Message)
        assert content.reply_to == ""
        assert "a" in content.text


async def test_a_text_that_is_too_long_for_one_message_comes_in_parts() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        await h.other.say("alice", "word " * 10_000)
        await message(h, ROMEO, 2)
        assert "".join(h.link.bodies(ROMEO)) == "word " * 10_000
        ids = [child(e, "stanza-id", "urn:xmpp:sid:0").get("id", "") for e in got(h, ROMEO)]
        assert len(set(ids)) == len(ids) == 2
        h.link.receive(groupchat(JULIET, reactions(ids[1], "👍")))
        assert await said(h, 1) == [Reaction(target=ids[0], key="👍")]


async def test_a_room_says_what_it_supports() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        h.link.receive(iq(JULIET, ROOM, "<query xmlns='http://jabber.org/protocol/disco#info'/>"))
        await h.link.line("juliet/a < * iq result:")
        info = next(e for e in h.link.sent if e.get("id") == "q")
        features = {e.get("var") for e in info.iter("{http://jabber.org/protocol/disco#info}feature")}
        assert features >= {
            "urn:xmpp:message-correct:0",
            "urn:xmpp:message-moderate:1",
            "urn:xmpp:message-retract:1",
            "urn:xmpp:reactions:0",
            "urn:xmpp:reply:0",
        }
        limit = next(e for e in info.iter("{jabber:x:data}field") if e.get("var") == "max_reactions_per_user")
        assert limit.findtext("{jabber:x:data}value") == str(MAX_REACTIONS)


async def test_policies_read_reactions_edits_and_what_a_message_brings() -> None:
    async with xmpp_server(policy=Denies("grue")) as h:
        await enter_both(h)
        h.link.receive(groupchat(JULIET, "<body>hi</body><x xmlns='urn:e'>dusk</x>", id_="1"))
        shown = await message(h, ROMEO, 1)
        assert child(shown, "x", "urn:e").text == "dusk"
        event = await event_of(h, shown)
        for number, inner in enumerate(
            (
                reactions(event.id, "grue"),
                f"<body>grue</body>{REPLACE.format('1')}",
                f"<body>hello</body>{REPLACE.format('1')}<x xmlns='urn:e'>grue</x>",
                f"{RETRACT.format(event.id)}<body>grue</body>",
            ),
            1,
        ):
            h.link.receive(groupchat(JULIET, inner, id_="2"))
            assert error_of(await errors_to(h, JULIET, number)) == "policy-violation", inner
        await h.govern(Denies("dusk"))
        await h.enter(EVE, "Eve")
        (past,) = got(h, EVE)
        assert (past.findtext(BODY), past.find("{urn:e}x")) == ("hi", None)


async def test_a_retracted_correction_does_not_show_one_that_was_withheld() -> None:
    async with xmpp_server(policy=Withholds("grue")) as h:
        await enter_both(h)
        await h.other.say("alice", "helo")
        event = await event_of(h, await message(h, ROMEO, 1))
        for text in ("grue", "hello"):
            (edit,) = await h.other.submit((mx("alice"), Edit(target=event.id, message=Message(text=text))))
            assert edit.event is not None
        assert (await message(h, ROMEO, 2)).findtext(BODY) == "hello"
        await h.other.submit((mx("alice"), Retraction(target=edit.event.id)))
        assert (await message(h, ROMEO, 3)).findtext(BODY) == "helo"


class Denies:
    """Denies what says a word."""

    def __init__(self, word: str) -> None:
        self._word = word

    async def check(self, crossing: Crossing) -> Verdict | None:
        if any(self._word in text for text in texts_of(crossing)):
            return Verdict(Action.DENY, (Reason(code="WORD", policy="p", rule="word"),))
        return None


class Withholds:
    """Denies the way out for what says a word."""

    def __init__(self, word: str) -> None:
        self._word = word

    async def check(self, crossing: Crossing) -> Verdict | None:
        if isinstance(crossing, EventOut) and self._word in words_of(crossing.content):
            return Verdict(Action.DENY, (Reason(code="WORD", policy="p", rule="word"),))
        return None


async def test_who_enters_gets_the_reactions_of_now_and_what_was_retracted_from_before() -> None:
    async with xmpp_server() as h:
        await enter_both(h)
        h.link.receive(groupchat(JULIET, "<body>first</body>", id_="1"))
        h.link.receive(groupchat(JULIET, "<body>second</body>", id_="2"))
        first, second = [await event_of(h, await message(h, ROMEO, n)) for n in (1, 2)]
        h.link.receive(groupchat(ROMEO, reactions(first.id, "👍", "🎉"), id_="3"))
        h.link.receive(groupchat(ROMEO, reactions(first.id, "🎉", "🚀"), id_="4"))
        await h.other.submit((mx("alice"), Reaction(target=first.id, key="👀")))
        h.link.receive(groupchat(JULIET, RETRACT.format(second.id), id_="5"))
        retract = "{urn:xmpp:message-retract:1}retract"
        await h.link.until(lambda: any(e.find(retract) is not None for e in got(h, ROMEO)))
        await h.until(lambda: h.ctx.delivered_seq(ROOM) == h.app.rooms.room_of(NativeId("xmpp", ROOM)).head)
        again = "romeo@x.example/again"
        await h.enter(EVE, "Eve")
        await h.enter(again, "Romeo")
        for full, retractions in ((EVE, 0), (again, 1)):
            history = got(h, full)
            assert all(e.find("{urn:xmpp:delay}delay") is not None for e in history)
            assert len([e for e in history if e.find(retract) is not None]) == retractions, full
            of = "{urn:xmpp:reactions:0}reactions"
            found = {
                e.get("from", "").partition("/")[2]: [
                    key.text for key in child(e, "reactions", "urn:xmpp:reactions:0")
                ]
                for e in history
                if e.find(of) is not None
            }
            assert found == {"Romeo": ["🎉", "🚀"], "Alice": ["👀"]}
            assert history[0].findtext(BODY) == "first"
