"""What a real Synapse and a Hansa make of each other's past: redactions, upgrades."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from e2e.town import matrix_reads, matrix_sees
from peers.stage import Stage
from peers.synapse import MatrixUser
from peers.waiting import until

pytestmark = pytest.mark.e2e

JULIET = "juliet@capulet"
VERSIONS = pytest.mark.parametrize("version", ["9", "10", "11", "12"])


async def entered(hansa: Stage, alice: MatrixUser, version: str, hosted: str) -> str:
    """A room of either with Alice and Juliet in it."""
    if hosted == "here":
        room = (await hansa.run("matrix", "rooms", "create", "#lobby", "--version", version))["room"]
        await hansa.run("rooms", "create", "matrix:#lobby", "stage:lobby")
        await alice.join(room, via=hansa.name)
        level = "100" if version != "12" else "90"
        await hansa.run("matrix", "rooms", "level", room, alice.id, level)
    else:
        alias = f"verona{hansa.hansa.port}"
        room = await alice.create_room(version, room_alias_name=alias)
        await hansa.run("rooms", "create", f"matrix:#{alias}:{alice.id.partition(':')[2]}", "stage:lobby")
    await hansa.actor.join("lobby", JULIET, "Juliet")
    await matrix_sees(alice, room, "Juliet")
    return room


async def stored(hansa: Stage, event_id: str) -> dict[str, Any]:
    """An event's content as Hansa keeps and serves it."""
    row = await hansa.matrix._ctx.store.get("pdu", (event_id,))
    return orjson.loads(row.body)["content"] if row is not None else {"absent": True}


@VERSIONS
@pytest.mark.parametrize("hosted", ["here", "there"])
async def test_redactions_both_ways(version, hosted, stage, matrix_user):
    hansa, alice = await stage(), await matrix_user("alice")
    room = await entered(hansa, alice, version, hosted)
    said = await alice.say(room, "a secret")
    await hansa.actor.until("lobby", 1)
    where = f"/rooms/{quote(room, safe='')}/redact/{quote(said, safe='')}/{secrets.token_hex(4)}"
    await alice.call("PUT", where, {"reason": "typo"})
    await until("Hansa keeps it no more", lambda: _is(hansa, said, {}))

    theirs = (await hansa.actor.say("lobby", JULIET, "their secret")).event
    await matrix_reads(alice, room, hansa.ghost(JULIET), ["their secret"])
    native = await hansa.matrix._ctx.native_id(theirs)
    if hosted == "here":
        await hansa.run("matrix", "rooms", "redact", room, native, "--reason", "so")
    else:
        where = f"/rooms/{quote(room, safe='')}/redact/{quote(native, safe='')}/{secrets.token_hex(4)}"
        await alice.call("PUT", where, {})
        await until("Hansa keeps it no more", lambda: _is(hansa, native, {}))

    async def gone() -> bool:
        event = await alice.call("GET", f"/rooms/{quote(room, safe='')}/event/{quote(native, safe='')}")
        return event["content"] == {}

    await until("Alice reads it no more", gone)
    history = await hansa.actor.ctx.history("lobby", limit=50)
    assert not any("secret" in getattr(e.content, "text", "") for e in history)
    # Who comes now gets the room with its redacted events, and takes it.
    bob = await matrix_user("bob")
    await bob.join(room, via=hansa.name if hosted == "here" else "")
    await hansa.actor.say("lobby", JULIET, "all is well")

    async def read() -> bool:
        said = await bob.bodies(room, hansa.ghost(JULIET))
        assert "their secret" not in said
        return "all is well" in said

    await until("Bob reads on", read)


async def _is(hansa: Stage, event_id: str, content: dict[str, Any]) -> bool:
    return await stored(hansa, event_id) == content
