"""A component link that swallows what it is given and is then reset: nothing acknowledged is lost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from e2e.three_servers import LOBBY, MUC, wait_linked, xmpp_config
from peers.waiting import until
from peers.wire import Wire

pytestmark = pytest.mark.e2e


async def test_what_a_black_holed_component_link_swallowed_is_sent_again(
    hansa, prosody, xmpp_user, local_user
):
    cable = await Wire().lay(prosody.component_port)
    try:
        seen = SimpleNamespace(component_port=cable.port, secret=prosody.secret)
        server = await hansa(xmpp_config(seen) + LOBBY)
        await wait_linked(server)
        alice, juliet = await local_user(server, "alice"), await xmpp_user("juliet")
        room = await alice.join(f"#lobby:{server.name}")
        await juliet.join(MUC, "Juliet")
        await alice.say(room, "before")
        await juliet.until("the first", lambda: "before" in juliet.bodies(MUC))
        await until("it is confirmed", lambda: _unconfirmed(server, 0))
        cable.freeze()
        texts = [f"into the hole {n}" for n in range(30)]
        for text in texts:
            await alice.say(room, text)
        await until("all was handed over", lambda: _unconfirmed(server, 30))
        await _reset(cable)
        await alice.say(room, "the last")
        await juliet.until("all", lambda: "the last" in juliet.bodies(MUC), 90)
        assert juliet.bodies(MUC) == ["before", *texts, "the last"]
        await until("it is confirmed", lambda: _unconfirmed(server, 0))
    finally:
        await cable.cut()


async def test_a_component_link_that_carries_nothing_is_known_as_dead_within_30_s(hansa, prosody):
    cable = await Wire().lay(prosody.component_port)
    try:
        seen = SimpleNamespace(component_port=cable.port, secret=prosody.secret)
        server = await hansa(xmpp_config(seen) + LOBBY)
        await wait_linked(server)
        cable.freeze()
        texts: list[str] = []

        async def down() -> bool:
            (network,) = [n for n in (await server.run("status"))["networks"] if n["id"] == "xmpp"]
            texts.append(network["text"])
            return bool(network["state"] == "down")

        await until("the link is known as dead", down, 35)
        assert "has not answered for 20 s" in texts[-1] or "no handshake" in texts[-1], texts[-1]
        await _reset(cable)
        await wait_linked(server)
    finally:
        await cable.cut()


async def _unconfirmed(server, count: int) -> bool:
    (found,) = [d for d in await server.run("deliveries", "ls") if d["destination"] == f"xmpp:{MUC}"]
    return found["waiting"] == 0 and found["unconfirmed"] == count


async def _reset(cable: Wire) -> None:
    """Both ends get a reset, and what was on the way is lost."""
    await cable.cut()
    cable.thaw()
    await cable.mend()
