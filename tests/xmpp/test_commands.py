"""Commands to the bridge: in a room, and in messages to the component itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hansa import Message, RoomInfo, ViewDelta
from hansa.model.chat_commands import CommandSettings
from xmpp.stanzas import GW, ROOM, groupchat
from xmpp.xmpp_server import XmppServer, xmpp_server

JULIET, ROMEO = "juliet@x.example/home", "romeo@x.example/orchard"
ON = CommandSettings(enabled=True)


def chat(body: str, *, type_: str = "chat", id_: str = "c") -> str:
    return f"<message from='{JULIET}' to='{GW}' id='{id_}' type='{type_}'><body>{body}</body></message>"


def to_juliet(h: XmppServer) -> list[str]:
    return [line for line in h.link.lines("juliet") if "message" in line]


async def test_a_command_in_a_room_is_seen_and_answered_by_nobody_else():
    async with xmpp_server(commands=ON) as h:
        await h.enter(JULIET, "Juliet")
        await h.enter(ROMEO, "Romeo")
        h.link.receive(groupchat(JULIET, "<body>!hansa who</body>", id_="m1"))
        await h.link.line("juliet/home < * message groupchat: body=xmpp (2): Juliet, Romeo")
        echo = next(e for e in h.link.sent if e.findtext("{*}body") == "!hansa who")
        assert (echo.get("from"), echo.get("to"), echo.get("id")) == (f"{ROOM}/Juliet", JULIET, "m1")
        h.say(JULIET, "after")
        await h.link.until(lambda: "after" in h.link.bodies(ROMEO))
        await h.until(lambda: Message(text="after") in [e.content for e in h.other.got])
        assert h.link.bodies(ROMEO) == ["after"]
        assert "!hansa who" not in [getattr(e.content, "text", "") for e in h.other.got]


async def test_the_component_answers_a_chat():
    async with xmpp_server(commands=ON) as h:
        h.link.receive(chat("help"))
        await h.link.until(lambda: h.link.bodies(JULIET))
        (answer,) = h.link.bodies(JULIET)
        assert answer.startswith("!hansa help: this list")
        sent = next(e for e in h.link.sent if e.find("{*}body") is not None)
        assert (sent.get("from"), sent.get("type")) == (GW, "chat")


@pytest.mark.parametrize("type_", ["headline", "error", "groupchat"])
async def test_what_answers_by_itself_is_not_answered(type_: str):
    async with xmpp_server(commands=ON) as h:
        h.link.receive(chat("help", type_=type_))
        h.link.receive(chat("status", id_="d"))
        await h.link.until(lambda: to_juliet(h))
        assert h.link.bodies(JULIET) == ["matrix: up\nxmpp: up"]


async def test_without_commands_the_component_takes_no_messages():
    async with xmpp_server() as h:
        h.link.receive(chat("help"))
        await h.link.line("juliet/home < gw.example message error: cancel service-unavailable")


async def test_public_rooms_are_found_by_words():
    async with xmpp_server() as h:
        await h.enter(JULIET, "Juliet")
        info = RoomInfo(name="About cats")
        await h.ctx.reconcile_view(ROOM, ViewDelta(info=info))
        (found,) = await h.other.ctx.find_rooms("CATS", limit=5)
        assert (found.address, found.name, found.members) == (ROOM, "About cats", 1)
        assert await h.other.ctx.find_rooms("dogs", limit=5) == []
        await h.ctx.reconcile_view(ROOM, ViewDelta(info=replace(info, join_rule="invite")))
        assert await h.other.ctx.find_rooms("cats", limit=5) == []
