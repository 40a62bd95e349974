"""SIGKILL in the middle of messages, edits and retractions: none is lost, none comes twice, what is retracted stays so."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from e2e.three_servers import LOBBY, MUC, wait_linked, wait_matrix_member, xmpp_config
from peers.synapse import MatrixUser, Refusal
from peers.waiting import until

pytestmark = pytest.mark.e2e
_MESSAGES, _KILLS = 40, 4
_NS = {
    "c": "jabber:client",
    "sid": "urn:xmpp:sid:0",
    "correct": "urn:xmpp:message-correct:0",
    "retract": "urn:xmpp:message-retract:1",
}


async def put(user: MatrixUser, path: str, content: dict[str, Any]) -> str:
    """The id of an event, asked for under one transaction id until it is acknowledged."""
    path = f"{path}/{secrets.token_hex(8)}"

    async def acknowledged() -> str:
        try:
            answer = await user.call("PUT", path, content)
        except (aiohttp.ClientError, OSError):
            return ""
        except Refusal as refusal:
            if refusal.status not in {429, 502, 503}:
                raise
            return ""
        return str(answer["event_id"])

    return str(await until(f"an answer to {path}", acknowledged))


async def say_edit_and_retract(user: MatrixUser, room: str, number: int) -> None:
    """Message ``m N``, which becomes ``e N``; every third one is retracted."""
    base = f"/rooms/{quote(room, safe='')}"
    event_id = await put(user, f"{base}/send/m.room.message", {"msgtype": "m.text", "body": f"m {number}."})
    new = {"msgtype": "m.text", "body": f"e {number}."}
    relation = {"rel_type": "m.replace", "event_id": event_id}
    edit = {**new, "m.new_content": new, "m.relates_to": relation}
    await put(user, f"{base}/send/m.room.message", edit)
    if number % 3 == 0:
        await put(user, f"{base}/redact/{quote(event_id, safe='')}", {})


def shown(user) -> tuple[Counter[str], set[str]]:
    """How often a client showed each line, and the lines that were retracted. A client shows nothing twice that
    has a stanza-id which it knows.
    """
    lines: Counter[str] = Counter()
    seen: set[str] = set()
    texts: dict[str, str] = {}
    gone: set[str] = set()
    for message in (e for e in user.stanzas if e.tag.endswith("message")):
        sid, body = message.find("sid:stanza-id", _NS), message.findtext("c:body", "", _NS)
        retracted = message.find("retract:retract", _NS)
        if sid is None or sid.get("id", "") in seen:
            continue
        seen.add(sid.get("id", ""))
        if retracted is not None:
            gone.add(texts.get(retracted.get("id", ""), "?"))
        elif body:
            lines[body] += 1
            texts[sid.get("id", "")] = body
    return lines, gone


async def test_a_kill_loses_and_repeats_no_edit_and_no_retraction(hansa, prosody, xmpp_user, local_user):
    server = await hansa(xmpp_config(prosody) + LOBBY)
    await wait_linked(server)
    juliet, hugo = await xmpp_user("juliet"), await local_user(server, "hugo")
    await juliet.join(MUC, "Juliet")
    room = await hugo.join(f"#lobby:{server.name}")
    await wait_matrix_member(hugo, room, "Juliet")
    seed = secrets.randbits(32)
    print(f"{_KILLS} kills by seed {seed}")
    chance = random.Random(seed)

    async def speak() -> None:
        for number in range(_MESSAGES):
            await say_edit_and_retract(hugo, room, number)

    speaking = asyncio.ensure_future(speak())
    for _ in range(_KILLS):
        await asyncio.sleep(chance.uniform(0.1, 0.8))  # the moment is what is tried
        await server.kill()
        await server.start()
    await speaking
    await wait_linked(server)
    await hugo.say(room, "fence")
    await juliet.until("the fence", lambda: "fence" in juliet.bodies(MUC))

    lines, gone = shown(juliet)
    for number in range(_MESSAGES):
        retracted = number % 3 == 0
        said, edited = lines[f"m {number}."], lines[f"e {number}."]
        if retracted:  # after a break a client may come too late for the words
            assert said <= 1 and edited <= 1, number
            assert not said or f"m {number}." in gone, number
        else:
            assert (said, edited) == (1, 1), number
    nurse = await xmpp_user("nurse")
    await nurse.join(MUC, "Nurse", history="maxstanzas='1000'")
    await nurse.until("the past", lambda: "fence" in nurse.bodies(MUC))
    past = Counter(nurse.bodies(MUC))
    for number in range(_MESSAGES):
        kept = past[f"m {number}."] + past[f"e {number}."]
        assert kept == (0 if number % 3 == 0 else 1), (number, past)
    bodies = Counter(await hugo.bodies(room))
    for number in range(_MESSAGES):
        assert bodies[f"m {number}."] == (0 if number % 3 == 0 else 1)
