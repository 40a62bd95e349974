"""The vCards of a hosted room, of its occupants and of people in direct chats."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from hansa import (
    Action,
    Crossing,
    MediaStream,
    Member,
    Membership,
    Message,
    NativeId,
    ProfileQuery,
    Reason,
    RoomInfo,
    Verdict,
    ViewDelta,
)
from hansa_xmpp.vcards import MAX_PHOTO
from xmpp.stanzas import GW, ROOM, iq
from xmpp.test_administration import result_of
from xmpp.xmpp_server import ScriptedAuthority, XmppServer, mx, xmpp_server

JULIET, STRANGER = "juliet@x.example/a", "mal@x.example/m"
QUERY = "<vCard xmlns='vcard-temp'/>"
PICTURES = {"face": b"\x89PNG face", "large": b"\x89PNG" + bytes(MAX_PHOTO), "room": b"\x89PNG room"}


async def open_media(
    self: ScriptedAuthority, media: str, *, first: int = 0, last: int | None = None
) -> MediaStream:
    """The other network's files."""
    del self, first, last

    async def chunks() -> AsyncGenerator[bytes]:
        yield PICTURES[media]

    return MediaStream(media_type="image/png", name="", size=0, chunks=chunks())


@asynccontextmanager
async def with_pictures(monkeypatch: pytest.MonkeyPatch, **options: Any) -> AsyncIterator[XmppServer]:
    """Juliet, and Alice and Bob of another network with pictures, are in a room with a picture."""
    monkeypatch.setattr(ScriptedAuthority, "open_media", open_media, raising=False)
    async with xmpp_server(**options) as h:
        for name, picture in (("alice", "face"), ("bob", "large")):
            content = Member(
                user=mx(name),
                membership=Membership.JOIN,
                name=name.title(),
                avatar=NativeId("matrix", picture),
            )
            (outcome,) = await h.other.submit((mx(name), content))
            assert outcome.refused is None
        info = RoomInfo(name="Lobby", avatar=NativeId("matrix", "room"))
        await h.other.ctx.reconcile_view("#lobby", ViewDelta(info=info))
        await h.enter(JULIET, "Jule")
        yield h


async def ask(h: XmppServer, full: str, to: str) -> Element:
    before = len(h.link.sent)
    h.link.receive(iq(full, to, QUERY))

    def answers() -> list[Element]:
        return [e for e in h.link.sent[before:] if e.tag.endswith("}iq") and e.get("to") == full]

    (found,) = await h.link.until(answers)
    assert isinstance(found, Element) and found.get("from") == to
    return found


def card(answer: Element) -> tuple[str, bytes]:
    assert answer.get("type") == "result", result_of(answer)
    photo = answer.findtext(".//{vcard-temp}BINVAL") or ""
    return answer.findtext(".//{vcard-temp}FN") or "", base64.b64decode(photo)


async def test_a_room_and_its_occupants_have_names_and_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    async with with_pictures(monkeypatch) as h:
        answer = await ask(h, JULIET, f"{ROOM}/Alice")
        assert card(answer) == ("Alice", PICTURES["face"])
        assert answer.findtext(".//{vcard-temp}TYPE") == "image/png"
        assert card(await ask(h, JULIET, ROOM)) == ("Lobby", PICTURES["room"])
        assert card(await ask(h, STRANGER, ROOM)) == ("Lobby", PICTURES["room"])
        assert card(await ask(h, JULIET, f"{ROOM}/Bob")) == ("Bob", b"")  # too large
        assert result_of(await ask(h, STRANGER, f"{ROOM}/Alice")) == "not-acceptable"
        assert result_of(await ask(h, JULIET, f"{ROOM}/Nobody")) == "item-not-found"
        assert result_of(await ask(h, JULIET, f"{ROOM}/Jule")) == "service-unavailable"
        await h.other.ctx.reconcile_view("#lobby", ViewDelta(info=RoomInfo(join_rule="invite")))
        assert result_of(await ask(h, STRANGER, ROOM)) == "forbidden"


async def test_a_puppet_has_one_for_who_has_a_chat_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with with_pictures(monkeypatch) as h:
        puppet = f"alice%m.example@{GW}"
        assert result_of(await ask(h, JULIET, puppet)) == "item-not-found"
        h.link.receive(
            f"<message from='{JULIET}' to='{puppet}' id='c' type='chat'><body>hello</body></message>"
        )
        await h.until(lambda: any(e.content == Message(text="hello") for e in h.other.got))
        name, _ = card(await ask(h, JULIET, puppet))
        assert name == "alice"
        assert result_of(await ask(h, STRANGER, puppet)) == "item-not-found"


async def test_policies_judge_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hides:
        async def check(self, crossing: Crossing) -> Verdict | None:
            if isinstance(crossing, ProfileQuery) and crossing.user == mx("alice"):
                return Verdict(Action.DENY, (Reason(code="NO", text="hidden"),))
            return None

    async with with_pictures(monkeypatch, policy=Hides()) as h:
        assert result_of(await ask(h, JULIET, f"{ROOM}/Alice")) == "forbidden"
        assert card(await ask(h, JULIET, f"{ROOM}/Bob"))[0] == "Bob"


async def test_one_user_has_a_share_of_the_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    async with with_pictures(monkeypatch) as h:
        for _ in range(50):
            assert result_of(await ask(h, STRANGER, ROOM)) == "result"
        assert result_of(await ask(h, STRANGER, ROOM)) == "resource-constraint"
        assert result_of(await ask(h, JULIET, ROOM)) == "result"
