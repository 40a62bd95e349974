"""What strangers send to the listeners for other servers: over real sockets and real TLS."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from hansa import ALLOW, Action, Verdict
from hansa_xmpp.proto import stream_xml
from hansa_xmpp.proto.parse import OversizedStanza
from hansa_xmpp.s2s import inbound, stream
from hansa_xmpp.s2s.certificates import Certificates
from hansa_xmpp.s2s.connect import Connector, Unreachable
from hansa_xmpp.s2s.inbound import InboundStreams
from hansa_xmpp.s2s.outbound import OutboundStreams
from hansa_xmpp.s2s.settings import ServerSettings
from peers.ca import PrivateCA
from xmpp.s2s.context import StreamContext

OWN, PEER, OTHER = "own.example", "peer.example", "other.example"
SECRET = b"secret"
HEADER = (
    "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' "
    "xmlns:db='jabber:server:dialback' from='{}' to='{}' version='1.0'>"
)
STARTTLS = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
MESSAGE = "<message from='juliet@{}/a' to='lobby@own.example' type='groupchat'><body>hello</body></message>"
SOON = 10.0


@dataclass
class House(StreamContext):
    """The listeners of a server, with what its network got, and the part of a context that they use."""

    ca: PrivateCA
    port: int = 0
    direct_port: int = 0
    denied: set[str] = field(default_factory=set)
    generation: int = 1
    got: list[Element] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    oversized: list[OversizedStanza] = field(default_factory=list)
    #: The domains whose servers confirm every dialback key, and those that were asked.
    believed: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    #: Set once the servers of the slow domains answer.
    slow: asyncio.Event = field(default_factory=asyncio.Event)

    def on_stanza(self, element: Element) -> None:
        if element.get("id") == "broken":
            raise RuntimeError("a fault of ours")
        self.got.append(element)

    def on_oversized(self, excess: OversizedStanza) -> None:
        self.oversized.append(excess)

    @property
    def policy_generation(self) -> int:
        return self.generation

    async def check(self, crossing: Any) -> Verdict:
        await asyncio.sleep(0)  # policies take their turns on the loop
        return Verdict(action=Action.DENY) if crossing.server in self.denied else ALLOW


class Peer:
    """One connection of a stranger."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.seen = ""

    def send(self, text: str) -> None:
        self.writer.write(text.encode())

    async def until(self, text: str) -> str:
        """Reads until this came, or the end; returns all of it."""
        async with asyncio.timeout(SOON):
            while text not in self.seen:
                data = await self._reader.read(4096)
                assert data, f"the end came before {text!r}: {self.seen}"
                self.seen += data.decode()
        return self.seen

    async def first(self) -> str:
        """Returns what comes first, up to features or the end."""
        with contextlib.suppress(AssertionError, OSError):
            await self.until("</stream:features>")
        return self.seen

    async def end(self) -> str:
        """Reads to the end; returns all that came."""
        async with asyncio.timeout(SOON):
            with contextlib.suppress(OSError):
                while data := await self._reader.read(4096):
                    self.seen += data.decode()
        return self.seen

    async def tls(
        self,
        house: House,
        *names: str,
        trusted: bool = True,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        context = ssl.create_default_context(cafile=str(house.ca.certificate))
        if certificate is not None:
            context.load_cert_chain(*certificate)
        if names:
            ca = house.ca if trusted else PrivateCA(house.ca.folder / "stranger")
            context.load_cert_chain(*ca.issue("-".join(names).replace("*", "all"), *names))
        await self.writer.start_tls(context, server_hostname=OWN)
        self.seen = ""


@pytest.fixture
def client_certificates() -> bool:
    """Servers that connect are asked for their certificates; tests of the opposite override it."""
    return True


@pytest.fixture
async def house(tmp_path: Path, client_certificates: bool) -> AsyncIterator[House]:
    ca = PrivateCA(tmp_path / "ca")
    made = House(ca)
    ctx: Any = made
    chain, key = ca.issue("own", OWN)
    settings = ServerSettings(
        domain=OWN,
        certificates=Certificates(chain, key, ca.certificate, made.faults.append),
        secret=SECRET,
        unverified=frozenset({OTHER}),
        client_certificates=client_certificates,
    )

    class Believer(Connector):
        async def verify_key(self, domain: str, stream_id: str, key: str) -> bool:
            made.asked.append((domain, key))
            if domain.startswith("slow"):
                await made.slow.wait()
            if domain == "away.example":
                raise Unreachable("away")
            if domain == "broken.example":
                raise RuntimeError("a fault of ours")
            return domain in made.believed

    connector = Believer(ctx, settings)
    outbound = OutboundStreams(ctx, OWN, connector, made.on_stanza)
    streams = InboundStreams(ctx, settings, connector, outbound)

    def serve(*, direct: bool) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
        return lambda reader, writer: streams.serve_connection(reader, writer, made, direct=direct)  # type: ignore[arg-type]

    servers = [await asyncio.start_server(serve(direct=direct), "127.0.0.1", 0) for direct in (False, True)]
    made.port, made.direct_port = (server.sockets[0].getsockname()[1] for server in servers)
    yield made
    for server in servers:
        server.close()
    for peer in made.peers:
        peer.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await peer.writer.wait_closed()


async def connect(house: House, *, direct: bool = False) -> Peer:
    port = house.direct_port if direct else house.port
    house.peers.append(Peer(*await asyncio.open_connection("127.0.0.1", port)))
    return house.peers[-1]


async def encrypted(
    house: House,
    *names: str,
    sender: str = PEER,
    trusted: bool = True,
    certificate: tuple[Path, Path] | None = None,
) -> Peer:
    """A stranger with TLS, and the features that it is offered."""
    peer = await connect(house)
    peer.send(HEADER.format(sender, OWN))
    await peer.until("</stream:features>")
    peer.send(STARTTLS)
    await peer.until("<proceed")
    await peer.tls(house, *names, trusted=trusted, certificate=certificate)
    peer.send(HEADER.format(sender, OWN))
    await peer.until("</stream:features>")
    return peer


async def proven(house: House, *names: str) -> Peer:
    peer = await encrypted(house, *names)
    peer.send(stream_xml.external_xml(PEER))
    await peer.until("<success")
    peer.seen = ""
    peer.send(HEADER.format(PEER, OWN))
    await peer.until("<stream:features")
    return peer


async def received(house: House, number: int) -> list[Element]:
    async with asyncio.timeout(SOON):
        while len(house.got) < number:
            await asyncio.sleep(0)
    return house.got


async def test_a_certificate_proves_a_domain_and_stanzas_pass(house: House) -> None:
    peer = await proven(house, PEER)
    peer.send(MESSAGE.format(PEER))
    (message,) = await received(house, 1)
    assert message.findtext("{jabber:server}body") == "hello"
    peer.send("</stream:stream>")
    await peer.end()
    assert house.counts["xmpp_s2s_opened in certificate"] == 1


async def test_direct_tls(house: House) -> None:
    peer = await connect(house, direct=True)
    await peer.tls(house, PEER)
    peer.send(HEADER.format(PEER, OWN))
    assert "EXTERNAL" in await peer.until("</stream:features>")


@pytest.mark.parametrize(
    ("sent", "condition"),
    [
        ("<not-a-stream/>", "invalid-namespace"),
        (HEADER.format(PEER, "nobody.example"), "host-unknown"),
        (HEADER.format(PEER, OWN).replace(" version='1.0'", ""), "unsupported-version"),
        (HEADER.format(PEER, OWN) + MESSAGE.format(PEER), "policy-violation"),
        (HEADER.format(PEER, OWN) + stream_xml.external_xml(PEER), "policy-violation"),
        (HEADER.format(PEER, OWN) + f"{STARTTLS}<presence/>", "policy-violation"),
        (f"<!DOCTYPE x [<!ENTITY a 'b'>]>{HEADER.format(PEER, OWN)}", "restricted-xml"),
        (HEADER.format(PEER, OWN) + "<!-- x -->", "restricted-xml"),
        (HEADER.format(PEER, OWN) + "<a></b>", "not-well-formed"),
        (HEADER.format(PEER, OWN) + f"<x>{'x' * 20_000}</x>", "policy-violation"),
        (HEADER.format(PEER, OWN) + "<x" + " a='b'" * 4000, "policy-violation"),
        (HEADER.format(PEER, OWN) + "<x>" * 20 + "</x>" * 20, "policy-violation"),
    ],
)
async def test_what_ends_a_stream_before_tls(sent: str, condition: str, house: House) -> None:
    peer = await connect(house)
    peer.send(sent)
    assert f"<{condition} " in await peer.end()
    assert house.got == []


async def test_half_a_stanza_from_before_tls_is_no_part_of_what_comes_over_it(house: House) -> None:
    peer = await connect(house)
    peer.send(HEADER.format(PEER, OWN))
    await peer.until("</stream:features>")
    peer.send(STARTTLS + "<message from='bank.example' to='own.example'><body>")
    await peer.until("<proceed")
    await peer.tls(house, PEER)
    peer.send(HEADER.format(PEER, OWN))
    await peer.until("EXTERNAL")
    peer.send(stream_xml.external_xml(PEER))
    await peer.until("<success")
    assert house.got == []


@pytest.mark.parametrize("names", [[OTHER], ["*.example"], []])
async def test_a_certificate_of_others_proves_nothing(names: list[str], house: House) -> None:
    peer = await encrypted(house, *names)
    assert "EXTERNAL" not in peer.seen
    peer.send(stream_xml.external_xml(PEER))
    assert "not-authorized" in await peer.until("</failure>")
    peer.send(stream_xml.result_xml(PEER, OWN, key="k"))
    await peer.until("type='invalid'")
    peer.send(MESSAGE.format(PEER))
    assert "<invalid-from " in await peer.end()
    assert (house.got, house.asked) == ([], [(PEER, "k")])


@pytest.mark.parametrize("client_certificates", [False])
@pytest.mark.parametrize("direct", [False, True])
async def test_a_certificate_that_is_for_servers_alone_ends_no_connection(direct: bool, house: House) -> None:
    house.believed.add(PEER)
    certificate = house.ca.issue("servers-alone", PEER, client=False)
    if direct:
        peer = await connect(house, direct=True)
        await peer.tls(house, certificate=certificate)
        peer.send(HEADER.format(PEER, OWN))
        await peer.until("</stream:features>")
    else:
        peer = await encrypted(house, certificate=certificate)
    assert "EXTERNAL" not in peer.seen
    peer.send(stream_xml.result_xml(PEER, OWN, key="right"))
    await peer.until("type='valid'")
    peer.send(MESSAGE.format(PEER))
    await received(house, 1)
    assert house.asked == [(PEER, "right")]


async def test_an_address_has_a_share_of_the_keys_that_are_confirmed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbound, "_OF_ADDRESS_VERIFIED", 2)
    peer = await encrypted(house)
    for number in range(3):
        peer.send(stream_xml.result_xml(f"slow{number}.example", OWN, key="k"))
    assert "slow2.example" in await peer.until("resource-constraint")
    assert house.counts["xmpp_s2s_refused verifications"] == 1
    house.slow.set()
    await peer.until("slow1.example' type='invalid'")
    peer.send(stream_xml.result_xml(PEER, OWN, key="k"))
    await peer.until(f"{PEER}' type='invalid'")


async def test_nobody_is_another_domain_than_that_of_the_certificate(house: House) -> None:
    peer = await encrypted(house, PEER)
    peer.send(stream_xml.external_xml("bank.example"))
    await peer.until("not-authorized")
    peer.send(stream_xml.external_xml(OWN))
    await peer.until("</failure>")
    peer.send(stream_xml.external_xml(PEER))
    await peer.until("<success")


async def test_a_certificate_that_is_not_trusted_ends_the_handshake(house: House) -> None:
    with pytest.raises((OSError, ssl.SSLError, AssertionError)):
        await encrypted(house, PEER, trusted=False)
    assert house.got == []


@pytest.mark.parametrize(
    ("sent", "condition"),
    [
        (MESSAGE.format("bank.example"), "invalid-from"),
        (MESSAGE.format(OWN), "invalid-from"),
        (MESSAGE.format(PEER).replace("lobby@own.example", "lobby@third.example"), "invalid-from"),
        (MESSAGE.format(PEER).replace("from=", "x="), "invalid-from"),
        ("<message from='@@' to='lobby@own.example'/>", "invalid-from"),
        ("<unknown xmlns='urn:x'/>", "unsupported-stanza-type"),
        (f"<message from='bank.example' to='own.example'>{'<x/>' * 2000}</message>", "policy-violation"),
    ],
)
async def test_what_ends_the_stream_of_a_proven_domain(sent: str, condition: str, house: House) -> None:
    peer = await proven(house, PEER)
    peer.send(MESSAGE.format(PEER))
    await received(house, 1)
    peer.send(sent)
    assert f"<{condition} " in await peer.end()
    assert len(house.got) == 1


async def test_a_stanza_that_is_too_large_ends_no_stream(house: House) -> None:
    peer = await proven(house, PEER)
    peer.send(MESSAGE.format(PEER).replace("hello", "x" * 300_000))
    peer.send(MESSAGE.format(PEER))
    await received(house, 1)
    assert len(house.oversized) == 1


async def test_a_named_domain_proves_itself_by_dialback(house: House) -> None:
    house.believed.add(OTHER)
    peer = await encrypted(house, sender=OTHER)
    peer.send(stream_xml.result_xml(OTHER, OWN, key="right"))
    assert "type='valid'" in await peer.until("type=")
    peer.send(MESSAGE.format(OTHER))
    await received(house, 1)
    assert house.asked == [(OTHER, "right")]
    assert house.counts["xmpp_s2s_opened in dialback"] == 1


async def test_a_key_that_its_domain_does_not_know_proves_nothing(house: House) -> None:
    peer = await encrypted(house, sender=OTHER)
    peer.send(stream_xml.result_xml(OTHER, OWN, key="wrong"))
    await peer.until("type='invalid'")
    peer.send(MESSAGE.format(OTHER))
    assert "<invalid-from " in await peer.end()


async def test_keys_of_our_own_streams_are_confirmed_and_no_others(house: House) -> None:
    peer = await encrypted(house)
    key = stream_xml.dialback_key(SECRET, PEER, OWN, "s1")
    peer.send(stream_xml.verify_xml(PEER, OWN, "s1", key=key))
    await peer.until("type='valid'")
    for sender, name, wrong in ((PEER, "s2", key), (OTHER, "s1", key), (PEER, "s1", "é")):
        peer.seen = ""
        peer.send(stream_xml.verify_xml(sender, OWN, name, key=wrong))
        await peer.until("type='invalid'")


async def test_policies_say_who_may_speak_now_and_later(house: House) -> None:
    house.denied.add(PEER)
    refused = await encrypted(house, PEER)
    refused.send(stream_xml.external_xml(PEER))
    await refused.until("not-authorized")
    house.denied.clear()
    peer = await proven(house, PEER)
    house.denied.add(PEER)
    house.generation += 1
    peer.send(MESSAGE.format(PEER))
    assert "<policy-violation " in await peer.end()
    assert house.got == []


async def test_an_address_has_a_share_of_the_connections(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbound, "_OF_ADDRESS", 3)
    many = [await connect(house) for _ in range(3)]
    for peer in many:
        peer.send(HEADER.format(PEER, OWN))
        await peer.until("</stream:features>")
    assert await (await connect(house)).end() == ""
    many[0].writer.close()

    async def is_served() -> bool:
        peer = await connect(house)
        peer.send(HEADER.format(PEER, OWN))
        return "</stream:features>" in await peer.first()

    async with asyncio.timeout(SOON):
        while not await is_served():
            pass


async def test_a_domain_has_a_number_of_connections(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "_OF_DOMAIN", 1)
    await proven(house, PEER)
    second = await encrypted(house, PEER)
    second.send(stream_xml.external_xml(PEER))
    await second.until("not-authorized")


async def test_who_proves_nothing_in_time_is_sent_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "_PROOF_S", 0.2)
    peer = await connect(house)
    peer.send(HEADER.format(PEER, OWN))
    assert "<connection-timeout " in await peer.end()


async def test_who_does_not_read_is_read_no_further(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_WRITE_S", 0.3)
    peer = await encrypted(house)
    asked = stream_xml.verify_xml(PEER, OWN, "s1", key="k").encode() * 1000
    with contextlib.suppress(OSError):
        async with asyncio.timeout(SOON):
            while house.counts["xmpp_s2s_refused closed"] == 0:
                peer.writer.write(asked)
                await asyncio.wait({asyncio.ensure_future(peer.writer.drain())}, timeout=0.05)
    assert house.counts["xmpp_s2s_refused closed"] == 1


async def test_a_second_domain_on_a_stream_spares_the_first_no_policy(house: House) -> None:
    peer = await proven(house, PEER)
    house.denied.add(PEER)
    house.generation += 1
    house.believed.add(OTHER)
    peer.send(stream_xml.result_xml(OTHER, OWN, key="right"))
    await peer.until("type='valid'")
    peer.send(MESSAGE.format(PEER))
    assert "<policy-violation " in await peer.end()
    assert house.got == []


async def test_two_keys_of_a_domain_on_a_stream_take_one_place(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbound, "_OF_DOMAIN", 1)
    house.believed.add("slow.example")
    peer = await encrypted(house)
    for key in ("one", "two"):
        peer.send(stream_xml.result_xml("slow.example", OWN, key=key))
    async with asyncio.timeout(SOON):
        while len(house.asked) < 2:
            await asyncio.sleep(0)
    house.slow.set()
    async with asyncio.timeout(SOON):
        while peer.seen.count("type='valid'") < 2:
            await peer.until("db:result")
            assert "type='error'" not in peer.seen
            peer.seen = peer.seen.replace("db:result", "answer")


async def test_a_fault_here_ends_one_key_or_one_stream(house: House) -> None:
    peer = await proven(house, PEER)
    peer.send(stream_xml.result_xml("broken.example", OWN, key="k"))
    await peer.until("<internal-server-error")
    peer.seen = ""
    peer.send(MESSAGE.format(PEER).replace("<message", "<message id='broken'"))
    assert "<internal-server-error " in await peer.end()
    peer = await proven(house, PEER)
    peer.send(MESSAGE.format(PEER))
    await received(house, 1)


@pytest.mark.parametrize("is_gone", [False, True])
async def test_a_certificate_that_cannot_be_read_leaves_the_one_from_before(
    is_gone: bool, house: House
) -> None:
    await proven(house, PEER)
    chain, _ = house.ca.issue("own", OWN)
    if is_gone:
        chain.unlink()
    else:
        chain.write_text("half a certif")
    for _ in range(2):
        await proven(house, PEER)
    assert len(house.faults) == 1
    assert str(chain) in house.faults[0]
    chain.unlink(missing_ok=True)
    house.ca.issue("own", OWN)
    await proven(house, PEER)
    assert len(house.faults) == 1


def test_authzid_is_base64() -> None:
    assert base64.b64encode(PEER.encode()).decode() in stream_xml.external_xml(PEER)
