"""Who is away, between users of a real Synapse, users of a real Prosody and users of Hansa, in one room."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import pytest
from e2e.three_servers import LOBBY, MUC, wait_linked, wait_matrix_member, xmpp_config
from peers.hansa import Hansa
from peers.prosody import XmppUser
from peers.synapse import MatrixUser, Synapse
from peers.waiting import until

pytestmark = pytest.mark.e2e
CAPS = "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://juliet.example' ver='v='/>"


def with_presence(prosody: Any) -> Callable[[Hansa], str]:
    """The configuration of a Hansa whose Matrix network has presence."""

    def more(hansa: Hansa) -> str:
        hansa.base = hansa.base.replace('plugin = "matrix"\n', 'plugin = "matrix"\npresence_enabled = true\n')
        return xmpp_config(prosody) + LOBBY

    return more


async def set_status(user: MatrixUser, presence: str, text: str) -> None:
    body = {"presence": presence, "status_msg": text}
    await user.call("PUT", f"/presence/{quote(user.id, safe='')}/status", body)


async def wait_status(user: MatrixUser, other: str, presence: str, text: str) -> None:
    """Waits until the client of a Matrix user is told the presence of another user."""
    told: dict[str, tuple[str, str]] = {}
    since = ""

    async def is_told() -> bool:
        nonlocal since
        query = f"/sync?timeout=0&set_presence=offline{since}"
        found = await user.call("GET", query)
        since = f"&since={found['next_batch']}"
        for event in found.get("presence", {}).get("events", []):
            content = event["content"]
            told[event["sender"]] = (content["presence"], content.get("status_msg", ""))
        return told.get(other) == (presence, text)

    await until(f"{user.id} sees {other} {presence}: {text}", is_told)


async def wait_show(user: XmppUser, nick: str, show: str, text: str) -> Any:
    """Waits until an occupant is sent a presence of another one."""

    def shown() -> Any:
        for e in reversed(user.stanzas):
            if e.tag.endswith("presence") and e.get("from") == f"{MUC}/{nick}":
                said = e.findtext("{*}show") or "", e.findtext("{jabber:client}status") or ""
                return [e] if said == (show, text) else []
        return []

    return (await user.until(f"{nick} {show}: {text}", shown))[0]


async def test_who_is_away_is_seen_on_every_side(
    ca: Any,
    tmp_path: Any,
    hansa: Any,
    prosody: Any,
    xmpp_user: Callable[[str], Awaitable[XmppUser]],
    local_user: Callable[[Any, str], Awaitable[MatrixUser]],
) -> None:
    synapse = Synapse(tmp_path / "synapse", ca, presence=True)
    await synapse.start()
    try:
        server = await hansa(with_presence(prosody))
        await wait_linked(server)
        juliet, romeo = await xmpp_user("juliet"), await xmpp_user("romeo")
        await juliet.join(MUC, "Juliet")
        await romeo.join(MUC, "Romeo")
        hugo, alice = await local_user(server, "hugo"), await local_user(synapse, "alice")
        room = await hugo.join(f"#lobby:{server.name}")
        await alice.join(f"#lobby:{server.name}")
        ghost = await wait_matrix_member(alice, room, "Juliet")
        for user in (hugo, alice):
            nick = user.id[1:].partition(":")[0]
            await romeo.until(f"{nick} in the room", lambda nick=nick: nick in romeo.occupants(MUC))
            await set_status(user, "unavailable", f"{nick} is at the ball")
            await wait_show(romeo, nick, "away", f"{nick} is at the ball")
        juliet.raw(
            f"<presence to='{MUC}/Juliet'><show>away</show><status>on the balcony</status>{CAPS}</presence>"
        )
        told = await wait_show(romeo, "Juliet", "away", "on the balcony")
        assert told.find("{http://jabber.org/protocol/caps}c").get("node") == "https://juliet.example"
        for user in (hugo, alice):
            await wait_status(user, ghost, "unavailable", "on the balcony")
        juliet.raw(f"<presence to='{MUC}/Juliet'><show>dnd</show></presence>")
        await wait_show(romeo, "Juliet", "dnd", "")
        for user in (hugo, alice):
            await wait_status(user, ghost, "unavailable", "busy")
        juliet.cut()
        for user in (hugo, alice):
            await wait_status(user, ghost, "offline", "")
    finally:
        synapse.stop()
