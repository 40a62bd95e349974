"""Hansa as an XMPP server of its own, between a real Prosody and a real Synapse: no component, no secret."""

from __future__ import annotations

import re
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
from peers.prosody import HOST, Prosody, StanzaError, XmppUser
from peers.require import require_prosody
from peers.synapse import MatrixUser
from peers.tcp_cutter import TcpCutter

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
            services[f"_xmpps-server._tcp.{DOMAIN}"] = ports[1]
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


async def counted(server: Hansa, name: str) -> set[tuple[str, str]]:
    """The labels under which something was counted."""
    found = set()
    for line in (await server.metrics()).splitlines():
        if match := re.match(rf'hansa_{name}_total\{{direction="(\w+)",how="(\w+)"', line):
            found.add((match[1], match[2]))
    return found


@pytest.mark.parametrize("certificates", [False, True], ids=["dialback", "certificates"])
@pytest.mark.parametrize("direct", [False, True], ids=["STARTTLS", "direct TLS"])
async def test_people_of_another_server_are_in_a_room_without_an_xmpp_server_here(
    direct: bool,
    certificates: bool,
    native: Callable[..., Awaitable[Native]],
    hansa: Any,
    matrix_user: Callable[[str], Awaitable[MatrixUser]],
) -> None:
    peer = await native(direct=direct)
    route = f"tls:127.0.0.1:{peer.prosody.s2s_tls_port}" if direct else ""
    more = f"client_certificates = {str(certificates).lower()}"
    server = await hansa(peer.config(more, route=route))
    await wait_linked(server)
    for user in await talk(server, peer, await matrix_user("alice")):
        await user.close()
    opened = await counted(server, "xmpp_s2s_opened")
    assert opened == {("in", "certificate" if certificates else "dialback"), ("out", "certificate")}


async def test_servers_without_valid_certificates_prove_themselves_by_dialback(
    native: Callable[..., Awaitable[Native]], hansa: Any, matrix_user: Callable[[str], Awaitable[MatrixUser]]
) -> None:
    peer = await native("other.example", secure=False)
    server = await hansa(peer.config(f'unverified = ["{HOST}"]'))
    await wait_linked(server)
    for user in await talk(server, peer, await matrix_user("alice")):
        await user.close()
    assert await counted(server, "xmpp_s2s_opened") == {("in", "dialback"), ("out", "dialback")}


async def test_a_certificate_of_another_name_is_refused_by_both_sides(
    native: Callable[..., Awaitable[Native]], hansa: Any
) -> None:
    peer = await native("other.example")
    server = await hansa(peer.config())
    await wait_linked(server)
    juliet = await peer.prosody.user("juliet")
    with pytest.raises(StanzaError):
        await juliet.join(MUC, "Juliet")
    await juliet.close()
    assert await counted(server, "xmpp_s2s_opened") == set()


async def test_a_stream_that_is_cut_in_a_burst_loses_nothing(
    native: Callable[..., Awaitable[Native]], hansa: Any, local_user: Callable[..., Awaitable[MatrixUser]]
) -> None:
    peer = await native()
    way = await TcpCutter().lay(peer.prosody.s2s_port)
    server = await hansa(peer.config(route=f"127.0.0.1:{way.port}"))
    await wait_linked(server)
    hugo = await local_user(server, "hugo")
    room = await hugo.join(f"#lobby:{server.name}")
    juliet = await peer.prosody.user("juliet")
    await juliet.join(MUC, "Juliet")
    said = [f"line {number}" for number in range(200)]
    for number, text in enumerate(said):
        await hugo.say(room, text)
        if number in {40, 90, 150}:
            await way.cut()
            await way.mend()
    await juliet.until("the last line", lambda: said[-1] in juliet.bodies(MUC))
    ids = [e.find("{urn:xmpp:sid:0}stanza-id").get("id") for e in juliet.messages(MUC)]
    texts = dict(zip(ids, juliet.bodies(MUC), strict=True))
    assert list(texts.values()) == said
    await juliet.close()
    await way.cut()
