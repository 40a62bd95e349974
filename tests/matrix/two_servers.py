"""Requests and events for tests of both directions of federation, against the network in memory."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from hansa import Custom, Member, Membership, NativeId, SubmitResult
from hansa import Submission as Submitted
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw
from matrix.server_with_peer import THEIRS, ServerWithPeer

each_version = pytest.mark.parametrize("version", ["1", "2", "3", "5", "6", "8", "9", "10", "11", "12"])
USER, OTHER = f"@m:{THEIRS}", f"@n:{THEIRS}"


def at(*parts: str) -> str:
    return "/".join(quote(part, safe="") for part in parts)


async def ours(
    house: ServerWithPeer, type_: str, state_key: str | None, content: dict[str, Any], what: Any = None
) -> SubmitResult:
    """The bridge user of the house sends an event into ``room``; ``what`` it is in the core's words."""
    matrix = house.matrix
    made = Submitted(
        origin=NativeId("matrix", f"ours-{type_}-{len(house.peer.asked)}-{content}"),
        room=NativeId("matrix", house.room.room_id),
        sender=NativeId("matrix", matrix.bridge_user),
        content=what or Custom(type=type_),
        ts=0,
        native=(type_, state_key, content),
    )
    return (await house.app.contexts["matrix"].submit([made]))[0]


async def invited(house: ServerWithPeer, user: str) -> SubmitResult:
    """The bridge user invites a user of another server."""
    home = await house.app.contexts["matrix"].home_of(user)
    what = Member(user=home, membership=Membership.INVITE)
    return await ours(house, "m.room.member", user, {"membership": "invite"}, what)


async def levels_with(house: ServerWithPeer, **change: Any) -> None:
    """Change the power levels of ``room``."""
    room = house.matrix.get_room(house.room.room_id)
    key = ("m.room.power_levels", "")
    now = (await room.events_of(await room.state(), [key]))[key]  # the create event is among them
    outcome = await ours(house, "m.room.power_levels", "", {**now.content, **change})
    assert outcome.refusal is None


async def said(house: ServerWithPeer, count: int) -> list[str]:
    """The ids of so many messages of the forger's person, one after the other."""
    found = []
    for number in range(count):
        raw = house.forger.message(house.room, f"m{number}")
        assert await house.fate(raw) == "accepted"
        house.room.keep(pdu_from_raw(raw, house.room.version))
        found.append(event_id(raw, house.room.version))
    return found


def named(references: list[Any]) -> list[str]:
    """The ids in a list of references, which up to room version 2 are pairs."""
    return [one if isinstance(one, str) else one[0] for one in references]


def ids_of(house: ServerWithPeer, raws: list[dict[str, Any]]) -> list[str]:
    return [event_id(raw, house.room.version) for raw in raws]


async def status_of(house: ServerWithPeer, raw: dict[str, Any]) -> str:
    """Returns the status of an event, as soon as it is stored."""
    name = event_id(raw, house.room.version)
    async with asyncio.timeout(5):
        while True:
            row = await house.matrix.store.get("pdu", (name,))
            if row is not None:
                return str(row.fields["status"])
            await asyncio.sleep(0)


async def refused(
    house: ServerWithPeer, status: int, code: str, method: str, target: str, body: Any = None
) -> Any:
    found, answer = await house.ask(method, target, body)
    assert (found, answer["errcode"]) == (status, code), answer
    return answer
