"""Hansa as an XMPP server of its own, between a real Prosody and a real Synapse: no component, no secret."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e.room_sides import MatrixSide, XmppSide
from e2e.three_servers import wait_linked, wait_matrix_member
from peers.ca import PrivateCA
from peers.dns import NameServer
from peers.hansa import Hansa
from peers.process import free_port
from peers.prosody import HOST, Prosody, XmppUser
from peers.require import require_prosody
from peers.synapse import MatrixUser

pytestmark = pytest.mark.e2e
DOMAIN = "hansa.example"
MUC = f"lobby@{DOMAIN}"


@dataclass
class Native:
    """A Prosody, the names, and how a Hansa is configured to meet both."""

    prosody: Prosody
    names: NameServer
    ca: PrivateCA
    ports: tuple[int, int]
    certificate: tuple[Path, Path]

    def config(self, more: str = "", route: str = "") -> str:
        plain, direct = self.ports
        chain, key = self.certificate
        return f"""
[networks.xmpp]
plugin = "xmpp"
component = "{DOMAIN}"
listen = ["127.0.0.1:{plain}"]
listen_tls = ["127.0.0.1:{direct}"]
certificate = "{chain}"
key = "{key}"
ca_file = "{self.ca.certificate}"
routes = {{ "{HOST}" = "{route or f"127.0.0.1:{self.prosody.s2s_port}"}" }}
{more}
[[rooms]]
links = ["matrix:#lobby", "xmpp:lobby"]
"""


@pytest.fixture
async def native(ca: PrivateCA, tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Native]]]:
    """Makes a Prosody that speaks to other servers."""
    require_prosody()
    made: list[Native] = []

    async def make(*names: str, secure: bool = True, direct: bool = False) -> Native:
        ports = free_port(), free_port()
        services = {f"_xmpp-server._tcp.{DOMAIN}": ports[0]}
        if direct:
            services = {f"_xmpps-server._tcp.{DOMAIN}": ports[1]}
        server = await NameServer(services).start()
        prosody = Prosody(tmp_path / "prosody", ca, dns=server.port, secure=secure)
        certificate = ca.issue(f"xmpp-{ports[0]}", *(names or (DOMAIN,)))
        made.append(Native(prosody, server, ca, ports, certificate))
        await prosody.start()
        return made[-1]

    yield make
    for one in made:
        await one.prosody.stop()
        one.names.stop()


async def talk(server: Hansa, native: Native, alice: MatrixUser) -> tuple[XmppUser, XmppUser]:
    """Two people of Prosody in a room with a person of Matrix: words in both directions."""
    room = await alice.join(f"#lobby:{server.name}")
    juliet, romeo = await native.prosody.user("juliet"), await native.prosody.user("romeo")
    await juliet.join(MUC, "Juliet")
    await romeo.join(MUC, "Romeo")
    await wait_matrix_member(alice, room, "Romeo")
    sides = MatrixSide("Matrix", alice, room), XmppSide("XMPP", juliet, MUC, "Juliet")
    matrix, xmpp = sides
    await xmpp.say("hello from XMPP")
    await matrix.see("hello from XMPP")
    await matrix.reply("hello from Matrix", "hello from XMPP")
    await xmpp.see("hello from Matrix")
    await xmpp.edit("hello from XMPP", "good day from XMPP")
    await matrix.see("good day from XMPP")
    await matrix.react("hello from XMPP", "👍")
    await xmpp.see("👍")
    await matrix.send_file("balcony.png")
    await xmpp.see("balcony.png")
    await xmpp.say("to be taken back")
    await matrix.see("to be taken back")
    await xmpp.retract("to be taken back")
    await matrix.see("removal")
    archived = await romeo.archive(MUC, page=10)
    bodies = [one.findtext("{jabber:client}body") for one in archived]
    assert "good day from XMPP" in bodies
    return juliet, romeo


@pytest.mark.parametrize("direct", [False, True], ids=["STARTTLS", "direct TLS"])
async def test_people_of_another_server_are_in_a_room_without_an_xmpp_server_here(
    direct: bool,
    native: Callable[..., Awaitable[Native]],
    hansa: Any,
    matrix_user: Callable[[str], Awaitable[MatrixUser]],
) -> None:
    peer = await native(direct=direct)
    route = f"tls:127.0.0.1:{peer.prosody.s2s_tls_port}" if direct else ""
    server = await hansa(peer.config(route=route))
    await wait_linked(server)
    alice = await matrix_user("alice")
    juliet, romeo = await talk(server, peer, alice)
    for user in (juliet, romeo):
        await user.close()
