"""Two Hansas that meet over XMPP alone, and no XMPP server: the room of one is a room elsewhere for the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from e2e.room_sides import MatrixSide
from e2e.three_servers import wait_linked
from peers.ca import PrivateCA
from peers.hansa import Hansa
from peers.process import free_port
from peers.synapse import MatrixUser

pytestmark = pytest.mark.e2e
HOME, AWAY = "home.example", "away.example"


def xmpp(ca: PrivateCA, domain: str, own: int, other: str, port: int) -> str:
    chain, key = ca.issue(domain, domain)
    return f"""
[networks.xmpp]
plugin = "xmpp"
component = "{domain}"
listen = ["127.0.0.1:{own}"]
certificate = "{chain}"
key = "{key}"
ca_file = "{ca.certificate}"
routes = {{ "{other}" = "127.0.0.1:{port}" }}
"""


async def test_two_organizations_share_a_room_without_an_xmpp_server(
    ca: PrivateCA, hansa: Any, local_user: Callable[[Hansa, str], Awaitable[MatrixUser]]
) -> None:
    home_port, away_port = free_port(), free_port()
    home = await hansa(xmpp(ca, HOME, home_port, AWAY, away_port))
    ann = await local_user(home, "ann")
    room = await ann.create_room("11", room_alias_name="garden")
    await home.run("rooms", "create", f"matrix:#garden:{home.name}", "xmpp:garden")
    links = f'\n[[rooms]]\nlinks = ["matrix:#garden", "xmpp:garden@{HOME}"]\n'
    away = await hansa(xmpp(ca, AWAY, away_port, HOME, home_port) + links)
    await wait_linked(away)
    bob = await local_user(away, "bob")
    here = MatrixSide("home", ann, room)
    there = MatrixSide("away", bob, await bob.join(f"#garden:{away.name}"))
    await here.say("hello from home")
    await there.see("hello from home")
    await there.say("hello from away")
    await here.see("hello from away")
    await there.edit("hello from away", "good day from away")
    await here.see('edit of "hello from away": good day from away')
    await here.react("hello from away", "👍")
    await there.see('reaction 👍 to "hello from away"')
    await here.send_file("balcony.png")
    await there.see("balcony.png")
    await there.say("to be taken back")
    await here.see("to be taken back")
    await there.retract("to be taken back")
    await here.see("removal")
