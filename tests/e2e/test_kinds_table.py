"""One room of several networks: what each side sees of what the others do, as a table.

The table is a page of the documentation, and this test says whether it is true. After a change it is written
by ``HANSA_WRITE_TABLE=1``.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import pytest
from e2e.room_sides import PIXEL, IrcSide, MatrixSide, Side, XmppSide
from e2e.three_servers import MUC, wait_linked, wait_matrix_member, xmpp_config
from peers.prosody import XmppUser
from peers.synapse import MatrixUser
from peers.waiting import until

pytestmark = pytest.mark.e2e
PAGE = Path(__file__).parents[2] / "docs" / "what-people-see.md"


@dataclass(frozen=True)
class Act:
    """One thing that people do. ``do`` does it, with a text that tells the sides apart, or with the nick of a
    guest if it is done ``on_guest``. A side can do it if it has the method ``needs``. ``absent`` is the end of
    the line that others see, for an act before or after which the person cannot speak.
    """

    name: str
    needs: str
    do: Callable[[Any, str], Awaitable[None]]
    absent: str = ""
    on_guest: bool = False


MESSAGES = [
    Act("say", "say", lambda side, x: side.say(f"hello {x}")),
    Act("emote", "emote", lambda side, x: side.emote(f"waves {x}")),
    Act("bold", "say_bold", lambda side, x: side.say_bold(f"strong {x}")),
    Act("code", "say_code", lambda side, x: side.say_code(f"if {x}:\n    pass")),
    Act("mention", "mention", lambda side, x: side.mention("Paris", f"come {x}")),
    Act("reply", "reply", lambda side, x: side.reply(f"yes {x}", f"question {x}")),
    Act("thread", "answer_in_thread", lambda side, x: side.answer_in_thread(f"aside {x}", f"question {x}")),
    Act("edit", "edit", lambda side, x: side.edit(f"hello {x}", f"hullo {x}")),
    Act("react", "react", lambda side, x: side.react(f"question {x}", "👍")),
    Act("unreact", "unreact", lambda side, x: side.unreact(f"question {x}", "👍")),
    Act("retract", "retract", lambda side, x: side.retract(f"hello {x}")),
    Act("file", "send_file", lambda side, x: side.send_file(f"{x}.png")),
    Act("location", "send_location", lambda side, x: side.send_location(f"pier {x}")),
    Act("poll", "start_poll", lambda side, x: side.start_poll(f"drink {x}?")),
    Act("vote", "vote", lambda side, x: side.vote(f"drink {x}?", "tea")),
    Act("end of a poll", "end_poll", lambda side, x: side.end_poll(f"drink {x}?")),
    Act("call", "call", lambda side, x: side.call()),
    Act("topic", "set_topic", lambda side, x: side.set_topic(f"about {x}")),
    Act("name", "name_room", lambda side, x: side.name_room(f"lobby {x}")),
]
PEOPLE = [
    Act("promote", "promote", lambda side, guest: side.promote(guest), on_guest=True),
    Act("demote", "demote", lambda side, guest: side.demote(guest), on_guest=True),
    Act("kick", "kick", lambda side, guest: side.kick(guest), on_guest=True),
    Act("new nick", "rename", lambda side, x: side.rename(f"{side.name.split()[-1]}-{x}")),
    Act("leave", "leave", lambda side, x: side.leave(), absent=" leaves"),
    Act("join", "join", lambda side, x: side.join(), absent=" joins"),
]
Seen = dict[tuple[str, str, str], str]


class Guest(Protocol):
    """A person who is promoted, demoted and removed, and comes back."""

    nick: str

    async def come(self) -> str:
        """Be in the room, and say something there; returns it."""
        ...


def mark_of(side: Side) -> str:
    return "".join(word[0] for word in side.name.lower().split())


async def observe(sides: list[Side]) -> Seen:
    """``(act, by, seen by)`` -> what was seen, once every side has said everything that it can."""
    found: Seen = {}
    for actor in sides:
        x = mark_of(actor)
        asker = next(side for side in sides if side is not actor)
        await asker.say(f"question {x}")
        await actor.see(f"question {x}")
        for act in MESSAGES:
            if hasattr(actor, act.needs):
                await _fence(sides, actor, f"now {act.name} {x}")
                await act.do(actor, x)
                await _record(found, act, actor, actor, sides)
    return found


async def observe_people(sides: list[Side], guests: Mapping[str, Guest]) -> Seen:
    """The same of acts on people. ``guests`` says on which guest each side acts, if it may."""
    found: Seen = {}
    for actor in sides:
        for act in PEOPLE:
            x, guest = mark_of(actor), guests.get(actor.name)
            if act.on_guest and guest is None:
                continue
            speaker = next(side for side in sides if side is not actor) if act.absent else actor
            if guest is not None and act.on_guest:
                greeting = await guest.come()
                for side in sides:
                    await side.see(greeting)
            await _fence(sides, speaker, f"now {act.name} {x}", but=actor if act.absent else None)
            await act.do(actor, guest.nick if guest is not None and act.on_guest else x)
            await _record(found, act, actor, speaker, sides)
    return found


async def _record(found: Seen, act: Act, actor: Side, speaker: Side, sides: list[Side]) -> None:
    """Notes what came after the act. It may come after a line that was said later, by another connection;
    when that line was seen everywhere, and another one too, all has come.
    """
    x = mark_of(actor)
    but = actor if act.absent else None
    if act.absent:

        async def told() -> bool:
            lines = await speaker.lines()
            after = lines[lines.index(f"now {act.name} {x}") :]
            return any(line.endswith(act.absent) for line in after)

        await until(f"{speaker.name} sees who{act.absent}", told)
    await _fence(sides, speaker, f"done {act.name} {x}", but=but)
    await _fence(sides, speaker, f"end {act.name} {x}", but=but)
    for side in sides:
        if side is not actor:
            lines = await side.lines()
            start, end = lines.index(f"now {act.name} {x}"), lines.index(f"end {act.name} {x}")
            shown = [line for line in lines[start + 1 : end] if line != f"done {act.name} {x}"]
            found[act.name, actor.name, side.name] = " / ".join(shown)


async def _fence(sides: list[Side], speaker: Side, text: str, but: Side | None = None) -> None:
    await speaker.say(text)
    for side in sides:
        if side is not but:
            await side.see(text)


def page_of(found: Seen, sides: list[Side]) -> str:
    """The page of the documentation."""
    names = [side.name for side in sides]
    lines = [
        "<!-- Written by tests/e2e/test_kinds_table.py, with real servers and clients. Do not edit. -->",
        "",
        "# What people see",
        "",
        "One room has people on Synapse (Matrix), on this server (Hansa) and on the other networks. Each row is",
        "what one of them does, and what the clients of the others show. `LINK` is the address of a file.",
        "Paris (XMPP) and rosa (Matrix) are guests, who are promoted, demoted and removed.",
        "",
        f"| act | by | {' | '.join(names)} |",
        f"| --- | --- |{' --- |' * len(names)}",
    ]
    for act in (*MESSAGES, *PEOPLE):
        for actor in names:
            if any(key[:2] == (act.name, actor) for key in found):
                cells = ("" if name == actor else found[act.name, actor, name] or "nothing" for name in names)
                shown = (cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells)
                lines.append(f"| {act.name} | {actor} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


IRC = """
[networks.irc]
plugin = "irc"
host = "127.0.0.1"
port = {port}
transport = "tls"
ca_file = "{ca}"
lines_per_second = 0
puppets = 20
"""


class XmppGuest:
    """A guest with an XMPP client."""

    def __init__(self, user: XmppUser, nick: str) -> None:
        self.nick = nick
        self._user = user
        self._count = 0

    async def come(self) -> str:
        self._count += 1
        text = f"{self.nick} is here {self._count}"
        if self.nick not in self._user.occupants(MUC):
            await self._user.join(MUC, self.nick)
        self._user.say(MUC, text)
        return text


class MatrixGuest:
    """A guest with a Matrix client."""

    def __init__(self, user: MatrixUser, room: str, nick: str) -> None:
        self.nick = nick
        self._user = user
        self._room = room
        self._count = 0

    async def come(self) -> str:
        self._count += 1
        text = f"{self.nick} is here {self._count}"
        await self._user.join(self._room)
        await self._user.say(self._room, text)
        return text


async def test_every_side_sees_what_the_documentation_says(
    hansa, prosody, matrix_user, xmpp_user, local_user, installed_irc, ngircd, irc_user
):
    irene = await irc_user("irene")
    await irene.join("#lobby")
    irc = IRC.format(port=ngircd.tls_port, ca=ngircd.ca.certificate)
    server = await hansa(xmpp_config(prosody) + irc)
    alice, hugo = await matrix_user("alice"), await local_user(server, "hugo")
    room = await hugo.create_room("11", room_alias_name="lobby")
    await server.run("rooms", "create", f"matrix:#lobby:{server.name}", "xmpp:lobby", "irc:#lobby")
    await wait_linked(server)
    await irene.until("Hansa in the channel", lambda: any(" JOIN " in line for line in irene.lines[-20:]))
    irene.send("MODE #lobby +o hansa")
    juliet, romeo, paris = [await xmpp_user(name) for name in ("juliet", "romeo", "paris")]
    rosa = await matrix_user("rosa")
    await alice.join(f"#lobby:{server.name}")
    await rosa.join(f"#lobby:{server.name}")
    for user, nick in ((juliet, "Juliet"), (romeo, "Romeo"), (paris, "Paris")):
        await user.join(MUC, nick)
        await wait_matrix_member(alice, room, nick)
    irene.say("#lobby", "well met")
    await wait_matrix_member(alice, room, "irene")
    names = {name: user for user, name in (await alice.members(room)).items()}
    levels = (await hugo.state(room))["m.room.power_levels", ""]["content"]
    ranked = {**levels["users"], alice.id: 100, names["Juliet"]: 100, names["irene"]: 100}
    ranked[names["Romeo"]] = 50
    await hugo.set_state(room, "m.room.power_levels", {**levels, "users": ranked})
    sides: list[Side] = [
        MatrixSide("Matrix", alice, room),
        MatrixSide("Hansa", hugo, room),
        XmppSide("XMPP", juliet, MUC, "Juliet"),
        XmppSide("another XMPP", romeo, MUC, "Romeo"),
        IrcSide("IRC", irene, "#lobby"),
    ]
    found = await observe(sides)
    link = next(re.findall(r"https://\S+", line)[0] for line in irene.lines if "picture h.png" in line)
    context = ssl.create_default_context(cafile=str(server.ca.certificate))
    async with aiohttp.ClientSession() as http, http.get(link, ssl=context) as answer:
        assert (answer.status, await answer.read()) == (200, PIXEL)
    stranger, member = XmppGuest(paris, "Paris"), MatrixGuest(rosa, room, rosa.id[1:].partition(":")[0])
    guests: dict[str, Guest] = {"Matrix": stranger, "Hansa": stranger, "XMPP": member, "IRC": stranger}
    found |= await observe_people(sides, guests)
    # Users of the shared Synapse have names that no other test has.
    page = re.sub(r"(alice|rosa)[0-9a-f]{6}", r"\1", page_of(found, sides))
    if os.environ.get("HANSA_WRITE_TABLE"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page
