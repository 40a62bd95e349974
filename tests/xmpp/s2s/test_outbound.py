"""What servers do to the streams that we open to them: a scripted server over real TCP and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest
from hansa import ALLOW
from hansa.environment import SystemClock
from hansa.http.client import HttpClient
from hansa.testing import until
from hansa_xmpp.places import Target
from hansa_xmpp.proto import stream_xml
from hansa_xmpp.s2s import destination, outbound
from hansa_xmpp.s2s.certificates import Certificates
from hansa_xmpp.s2s.connect import Connector
from hansa_xmpp.s2s.outbound import OutboundStreams
from hansa_xmpp.s2s.settings import ServerSettings
from peers.ca import PrivateCA
from xmpp.s2s.context import StreamContext

OWN, PEER = "own.example", "peer.example"
MESSAGE = "<message from='x@own.example' to='y@peer.example' id='{}'><body>hello</body></message>"
SOON = 10.0


class Server:
    """The server of a domain, which follows a script from where stanzas come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.seen = ""

    def send(self, text: str) -> None:
        self.writer.write(text.encode())

    async def until(self, text: str) -> str:
        while text not in self.seen:
            data = await self._reader.read(65_536)
            if not data:
                raise EOFError(self.seen)
            self.seen += data.decode()
        found, _, self.seen = self.seen.partition(text)
        return found

    async def next_ping(self) -> str:
        """Reads up to a ping; returns its id. Messages before it are in ``ids``."""
        read = await self.until("</iq>")
        self.ids = re.findall(r"<message[^>]* id='(\w+)'", read)
        (name,) = re.findall(r"id=['\"](s2s-\w+)['\"]", read)
        return str(name)

    async def begin(self, features: str = "<dialback xmlns='urn:xmpp:features:dialback'/>") -> None:
        await self.until("version='1.0'>")
        self.send(stream_xml.header_xml(PEER, OWN, "s1"))
        self.send(f"<stream:features>{features}</stream:features>")

    async def prove(self) -> None:
        """The script of a server that believes every key."""
        await self.begin()
        await self.until("</db:result>")
        self.send(stream_xml.result_xml(PEER, OWN, type_="valid"))


Script = Callable[[Server], Awaitable[None]]


@dataclass
class House(StreamContext):
    """The streams that we open, and the part of a context that they use."""

    http: HttpClient
    back: list[Element] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    #: What the server does on each connection; the last goes on.
    scripts: list[Script] = field(default_factory=list)
    connections: int = 0
    issued_to: str = PEER
    policy_generation: int = 1
    streams: OutboundStreams = field(init=False)

    async def check(self, _crossing: Any) -> Any:
        return ALLOW

    def spawn(self, work: Any, _name: str) -> asyncio.Task[None]:
        self.tasks.append(asyncio.ensure_future(work()))
        return self.tasks[-1]

    def say(self, *names: str) -> None:
        for name in names:
            self.streams.send(PEER, MESSAGE.format(name))

    def answer(self, name: str, sender: str = PEER) -> None:
        """The answer to a ping, as it comes over a stream of the other server."""
        said = f"<iq xmlns='jabber:server' type='result' from='{sender}' to='{OWN}' id='{name}'/>"
        assert self.streams.take_confirmation(fromstring(said))

    def conditions(self) -> list[str]:
        return [one[0][0].tag.rpartition("}")[2] for one in self.back]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    ca = PrivateCA(tmp_path / "ca")
    made = House(HttpClient(ca_file=ca.certificate, private_networks=["127.0.0.0/8"]))
    ctx: Any = made

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*ca.issue("peer", made.issued_to))
        script = made.scripts[min(made.connections, len(made.scripts) - 1)]
        made.connections += 1
        with contextlib.suppress(EOFError, OSError, asyncio.CancelledError):
            await writer.start_tls(context)
            await script(Server(reader, writer))
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = ServerSettings(
        domain=OWN,
        certificates=Certificates(*ca.issue("own", OWN), ca.certificate),
        secret=b"secret",
        routes={PEER: Target("127.0.0.1", port, direct=True)},
    )
    made.streams = OutboundStreams(ctx, OWN, Connector(ctx, settings), made.back.append)
    yield made
    server.close()
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    await made.http.close()


async def hold(server: Server) -> None:
    """Takes everything and answers nothing."""
    await server.prove()
    await server.until("never")


async def test_what_a_ping_confirms_is_done(house: House) -> None:
    async def script(server: Server) -> None:
        await server.prove()
        house.answer(await server.next_ping())
        assert server.ids == ["a", "b"]
        await server.until("never")

    house.scripts = [script]
    house.say("a", "b")
    await house.streams.confirm_all(SOON)
    assert house.back == []
    assert house.counts["xmpp_s2s_opened out dialback"] == 1


async def test_only_the_domain_itself_confirms_and_only_what_it_was_asked(house: House) -> None:
    pinged = asyncio.Event()
    names = []

    async def script(server: Server) -> None:
        await server.prove()
        names.append(await server.next_ping())
        pinged.set()
        await server.until("never")

    house.scripts = [script]
    house.say("a")
    confirmed = asyncio.ensure_future(house.streams.confirm_all(SOON))
    await pinged.wait()
    house.answer(names[0], sender="other.example")
    for guess in ("s2s-1", "s2s-", "s2s-99999999", "s2s-" + "9" * 5000):
        house.answer(guess)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not confirmed.done()
    house.answer(names[0])
    await confirmed
    assert house.back == []


async def test_an_answer_to_a_ping_of_an_earlier_stream_confirms_nothing(house: House) -> None:
    names = list[str]()
    again = asyncio.Event()

    async def cut(server: Server) -> None:
        await server.prove()
        names.append(await server.next_ping())

    async def script(server: Server) -> None:
        await server.prove()
        names.append(await server.next_ping())
        again.set()
        await server.until("never")

    house.scripts = [cut, script]
    house.say("a")
    confirmed = asyncio.ensure_future(house.streams.confirm_all(SOON))
    await again.wait()
    house.answer(names[0])
    for _ in range(10):
        await asyncio.sleep(0)
    assert not confirmed.done()
    house.answer(names[1])
    await confirmed


async def test_a_server_that_takes_everything_and_answers_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destination, "PING_S", 0.1)
    monkeypatch.setattr(outbound, "GIVE_UP_S", 0.3)
    house.scripts = [hold]
    house.say("a", "b")
    await house.streams.confirm_all(SOON)
    assert house.conditions() == ["remote-server-timeout"] * 2
    house.say("c")  # it is not tried again at once
    await until(lambda: len(house.back) == 3, SOON)
    assert house.counts["xmpp_s2s_bounced unreachable"] == 1


@dataclass
class StillClock(SystemClock):
    """A clock that a test moves."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now


async def test_a_server_that_never_confirms_is_tried_less_and_less(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destination, "PING_S", 0.05)
    monkeypatch.setattr(outbound, "GIVE_UP_S", 0.0)
    house.clock = clock = StillClock()
    house.scripts = [hold]
    for number in range(3):
        house.say("a")
        await house.streams.confirm_all(SOON)
        assert house.connections == number + 1
        clock.now += outbound.RETRY_S * 2**number - 0.1
        house.say("b")
        await until(lambda number=number: house.counts["xmpp_s2s_bounced unreachable"] == number + 1, SOON)
        clock.now += 0.2


async def no_features(server: Server) -> None:
    await server.until("version='1.0'>")
    server.send(stream_xml.header_xml(PEER, OWN, "s1") + "<message/>")
    await server.until("never")


async def no_way(server: Server) -> None:
    await server.begin("")
    await server.until("never")


async def invalid(server: Server) -> None:
    await server.begin()
    await server.until("</db:result>")
    server.send(stream_xml.result_xml(PEER, OWN, type_="invalid"))
    await server.until("never")


async def nonsense(server: Server) -> None:
    server.send("\x00\x01HTTP/1.1 400 Bad Request")
    await server.until("never")


async def bomb(server: Server) -> None:
    await server.until("version='1.0'>")
    server.send(stream_xml.header_xml(PEER, OWN, "s1") + "<stream:features>")
    server.send("<x>" * 50_000 + "</x>" * 50_000 + "</stream:features>")
    await server.until("never")


async def closes(server: Server) -> None:
    await server.prove()


@pytest.mark.parametrize("script", [no_features, no_way, invalid, nonsense, bomb, closes])
async def test_what_ends_in_errors(script: Script, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "GIVE_UP_S", 0.3)
    house.scripts = [script]
    house.say("a")
    await house.streams.confirm_all(SOON)
    assert house.conditions() == ["remote-server-timeout"]
    assert 1 < house.connections < 10


async def test_a_certificate_of_another_gets_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "GIVE_UP_S", 0.0)
    house.issued_to = "other.example"
    house.scripts = [hold]
    house.say("a")
    await house.streams.confirm_all(SOON)
    assert house.conditions() == ["remote-server-timeout"]
    assert house.counts["xmpp_s2s_opened out dialback"] == 0


async def test_a_fault_here_gives_the_stanzas_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object, **__: object) -> str:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(destination, "xml_element", break_down)
    house.scripts = [hold]
    house.say("a")
    await house.streams.confirm_all(SOON)
    assert house.conditions() == ["remote-server-timeout"]
    await asyncio.gather(*house.tasks)


async def test_what_is_too_much_comes_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "MAX_STANZAS", 2)
    house.scripts = [hold]
    house.say("a", "b", "c")
    await until(lambda: house.conditions() == ["resource-constraint"], SOON)
    assert house.back[0].get("id") == "c"


async def test_the_streams_of_all_domains_have_a_bound(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "MAX_STREAMS", 1)
    ended = asyncio.Event()

    async def script(server: Server) -> None:
        await server.prove()
        house.answer(await server.next_ping())
        try:
            await server.until("never")
        except EOFError:
            ended.set()

    house.scripts = [script]
    house.say("a")
    other = MESSAGE.replace(PEER, "other.example").format("b")
    house.streams.send("other.example", other)
    await until(lambda: house.conditions() == ["resource-constraint"], SOON)
    await house.streams.confirm_all(SOON)
    house.streams.send("other.example", other)
    async with asyncio.timeout(SOON):
        await ended.wait()
    assert house.conditions().count("resource-constraint") == 1
