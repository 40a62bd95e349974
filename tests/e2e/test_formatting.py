"""Formatted text between people of a real Synapse and of a real Prosody."""

from __future__ import annotations

import secrets
from urllib.parse import quote

import pytest
from e2e.three_servers import LOBBY, MUC, wait_linked, wait_matrix_member, xmpp_config
from peers.waiting import until

pytestmark = pytest.mark.e2e
UNSTYLED = "{urn:xmpp:styling:0}unstyled"


async def say(user, room: str, body: str, html: str) -> None:
    content = {"msgtype": "m.text", "body": body, "format": "org.matrix.custom.html", "formatted_body": html}
    path = f"/rooms/{quote(room, safe='')}/send/m.room.message/{secrets.token_hex(6)}"
    await user.call("PUT", path, content)


async def test_formatted_text_crosses_both_ways(hansa, prosody, matrix_user, xmpp_user):
    server = await hansa(xmpp_config(prosody) + LOBBY)
    await wait_linked(server)
    juliet, romeo, alice = await xmpp_user("juliet"), await xmpp_user("romeo"), await matrix_user("alice")
    await juliet.join(MUC, "Juliet")
    await romeo.join(MUC, "Romeo")
    room = await alice.join(f"#lobby:{server.name}")
    ghost = await wait_matrix_member(alice, room, "Juliet")

    html = "<b>bold</b> and <a href='https://x.example/'>this</a><ul><li>one</li></ul><blockquote>said</blockquote>"
    await say(alice, room, "**bold** and this", html)
    body = "*bold* and this (https://x.example/)\n- one\n> said"
    await juliet.until("the formatted text", lambda: body in juliet.bodies(MUC))
    await alice.say(room, "*not bold*")
    await juliet.until("the plain text", lambda: "*not bold*" in juliet.bodies(MUC))
    marked = {m.findtext("{*}body"): m.find(UNSTYLED) is not None for m in juliet.messages(MUC)}
    assert marked[body] is False
    assert marked["*not bold*"] is True

    styled = "*strong* and `code`\n> quoted"
    assert await juliet.verdict(juliet.say(MUC, styled), MUC) is None
    await romeo.until("what Juliet said", lambda: styled in romeo.bodies(MUC))
    assert styled in juliet.bodies(MUC)

    async def arrived():
        events = await alice.history(room)
        return [e["content"] for e in events if e["type"] == "m.room.message" and e["sender"] == ghost]

    [content] = await until("Alice reads it", arrived)
    assert content["body"] == "strong and code\nquoted"
    assert content["format"] == "org.matrix.custom.html"
    assert content["formatted_body"] == (
        "<strong>strong</strong> and <code>code</code><blockquote>quoted</blockquote>"
    )

    nurse = await xmpp_user("nurse")
    await nurse.join(MUC, "Nurse", history="maxstanzas='10'")
    await nurse.until("the past", lambda: styled in nurse.bodies(MUC))
    assert nurse.bodies(MUC)[:3] == [body, "*not bold*", styled]
