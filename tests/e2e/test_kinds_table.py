"""One room of several networks: what each side sees of what the others do, as a table.

The table is a page of the documentation, and this test says whether it is true. After a change it is written
by ``HANSA_WRITE_TABLE=1``.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from e2e.room_sides import PIXEL, IrcSide, MatrixSide, Side, XmppSide
from e2e.three_servers import MUC, wait_linked, wait_matrix_member, xmpp_config

pytestmark = pytest.mark.e2e
PAGE = Path(__file__).parents[2] / "docs" / "what-people-see.md"

#: Each act: its name, and how a side does it. ``x`` tells the sides apart, ``other`` says lines to answer.
ACTS: list[tuple[str, Callable[[Any, str], Awaitable[None]]]] = [
    ("say", lambda side, x: side.say(f"hello {x}")),
    ("emote", lambda side, x: side.emote(f"waves {x}")),
    ("bold", lambda side, x: side.say_bold(f"strong {x}")),
    ("reply", lambda side, x: side.reply(f"yes {x}", f"question {x}")),
    ("edit", lambda side, x: side.edit(f"hello {x}", f"hullo {x}")),
    ("react", lambda side, x: side.react(f"question {x}", "👍")),
    ("unreact", lambda side, x: side.unreact(f"question {x}", "👍")),
    ("retract", lambda side, x: side.retract(f"hello {x}")),
    ("file", lambda side, x: side.send_file(f"{x}.png")),
    ("location", lambda side, x: side.send_location(f"pier {x}")),
    ("poll", lambda side, x: side.start_poll(f"drink {x}?")),
    ("topic", lambda side, x: side.set_topic(f"about {x}")),
]
_METHODS = {"file": "send_file", "location": "send_location", "poll": "start_poll", "bold": "say_bold"}


async def observe(sides: list[Side]) -> dict[tuple[str, str, str], str]:
    """``(act, by, seen by)`` -> what was seen, once every side has done everything that it can."""
    found: dict[tuple[str, str, str], str] = {}
    for actor in sides:
        x = "".join(word[0] for word in actor.name.lower().split())
        asker = next(side for side in sides if side is not actor)
        await asker.say(f"question {x}")
        await actor.see(f"question {x}")
        for act, do in ACTS:
            if not hasattr(actor, _METHODS.get(act, act if act != "topic" else "set_topic")):
                continue
            await _fence(sides, actor, f"now {act} {x}")
            await do(actor, x)
            await _fence(sides, actor, f"done {act} {x}")
            for side in sides:
                if side is not actor:
                    lines = await side.lines()
                    shown = lines[lines.index(f"now {act} {x}") + 1 : lines.index(f"done {act} {x}")]
                    found[act, actor.name, side.name] = " / ".join(shown)
    return found


async def _fence(sides: list[Side], actor: Side, text: str) -> None:
    await actor.say(text)
    for side in sides:
        await side.see(text)


def page_of(found: dict[tuple[str, str, str], str], sides: list[Side]) -> str:
    """The page of the documentation."""
    names = [side.name for side in sides]
    lines = [
        "<!-- Written by tests/e2e/test_kinds_table.py, with real servers and clients. Do not edit. -->",
        "",
        "# What people see",
        "",
        "One room has people on Synapse (Matrix), on this server (Hansa) and on the other networks. Each row is",
        "what one of them does, and what the clients of the others show. `LINK` is the address of a file.",
        "",
        f"| act | by | {' | '.join(names)} |",
        f"| --- | --- |{' --- |' * len(names)}",
    ]
    for act, _ in ACTS:
        for actor in names:
            if any(key[:2] == (act, actor) for key in found):
                cells = ("" if name == actor else found[act, actor, name] or "nothing" for name in names)
                shown = (cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells)
                lines.append(f"| {act} | {actor} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


IRC = """
[networks.irc]
plugin = "irc"
host = "127.0.0.1"
port = {port}
transport = "tls"
ca_file = "{ca}"
lines_per_second = 0
[[rooms]]
links = ["matrix:#lobby", "xmpp:lobby", "irc:#lobby"]
"""


async def test_every_side_sees_what_the_documentation_says(
    hansa, prosody, matrix_user, xmpp_user, local_user, installed_irc, ngircd, irc_user
):
    irene = await irc_user("irene")
    await irene.join("#lobby")
    irc = IRC.format(port=ngircd.tls_port, ca=ngircd.ca.certificate)
    server = await hansa(xmpp_config(prosody) + irc)
    await wait_linked(server)
    await irene.until("Hansa in the channel", lambda: any(" JOIN " in line for line in irene.lines[-20:]))
    juliet, romeo = await xmpp_user("juliet"), await xmpp_user("romeo")
    alice, hugo = await matrix_user("alice"), await local_user(server, "hugo")
    await juliet.join(MUC, "Juliet")
    await romeo.join(MUC, "Romeo")
    room = await hugo.join(f"#lobby:{server.name}")
    await alice.join(f"#lobby:{server.name}")
    await wait_matrix_member(alice, room, "Juliet")
    sides: list[Side] = [
        MatrixSide("Matrix", alice, room),
        MatrixSide("Hansa", hugo, room),
        XmppSide("XMPP", juliet, MUC),
        XmppSide("another XMPP", romeo, MUC),
        IrcSide("IRC", irene, "#lobby"),
    ]
    found = await observe(sides)
    link = next(re.findall(r"https://\S+", line)[0] for line in irene.lines if "picture h.png" in line)
    context = ssl.create_default_context(cafile=str(server.ca.certificate))
    async with aiohttp.ClientSession() as http, http.get(link, ssl=context) as answer:
        assert (answer.status, await answer.read()) == (200, PIXEL)
    # Users of the shared Synapse have names that no other test has.
    page = re.sub(r"alice[0-9a-f]{6}", "alice", page_of(found, sides))
    if os.environ.get("HANSA_WRITE_TABLE"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page
