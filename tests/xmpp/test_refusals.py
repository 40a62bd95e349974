"""Invalid stanzas, and stanzas without a valid recipient, are answered where possible, and counted."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from xml.etree.ElementTree import Element

import pytest
from hansa.environment import SystemClock, SystemRandom
from hansa_xmpp.component import ComponentConnection
from peers.raw_xmpp_server import RawXmppServer
from pydantic import SecretStr
from xmpp.stanzas import GW, NS, ROOM, X
from xmpp.xmpp_server import XmppServer, xmpp_server

MERCUTIO = "mercutio@verona.example/m"


def counted(h: XmppServer, name: str) -> dict[str, int]:
    return {dict(labels)["why"]: n for (counter, labels), n in h.app.counters.items() if counter == name}


@pytest.mark.parametrize("nick", ["\u202eevil", "a\x85b", "\U0001f9db", "n" * 1100])
async def test_a_nick_that_is_no_resource_is_answered_by_the_service(nick: str) -> None:
    async with xmpp_server() as h:
        h.link.receive(f"<presence from='{MERCUTIO}' to='{ROOM}/{nick}' id='j'>{X}</presence>")
        answer = h.link.sent[-1]
        assert (answer.get("from"), answer.get("to"), answer.get("id")) == (GW, MERCUTIO, "j")
        assert answer.find(".//{urn:ietf:params:xml:ns:xmpp-stanzas}jid-malformed") is not None
        assert counted(h, "xmpp_refused") == {"jid-malformed": 1}


async def test_a_nick_that_nobody_can_see_is_refused() -> None:
    async with xmpp_server() as h:
        h.link.receive(f"<presence from='{MERCUTIO}' to='{ROOM}/  ' id='j'>{X}</presence>")
        await h.link.until(lambda: h.link.sent)
        assert h.link.sent[-1].find(".//{urn:ietf:params:xml:ns:xmpp-stanzas}jid-malformed") is not None


async def test_errors_about_malformed_addresses_are_not_answered() -> None:
    async with xmpp_server() as h:
        h.link.receive(f"<message type='error' from='{MERCUTIO}' to='a b@{GW}'/>")
        assert h.link.sent == [] and counted(h, "xmpp_refused") == {"jid-malformed": 1}


async def test_an_answer_that_nobody_waits_for_is_counted() -> None:
    async with xmpp_server() as h:
        h.link.receive(f"<iq type='result' from='{MERCUTIO}' to='{ROOM}' id='x'/>")
        assert h.link.sent == [] and counted(h, "xmpp_ignored") == {"unasked": 1}


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.stanzas: list[Element] = []
        self.unknown: list[str] = []
        self.states: asyncio.Queue[bool] = asyncio.Queue()

    def on_stanza(self, element: Element) -> None:
        self.stanzas.append(element)
        self.states.put_nowait(True)

    def on_unknown(self, element: Element) -> None:
        self.unknown.append(element.tag)

    def on_oversized(self, excess: object) -> None:
        raise AssertionError(excess)

    def on_state(self, up: bool, text: str) -> None:
        del text
        self.states.put_nowait(up)


async def test_the_link_passes_stanzas_on_and_tells_of_what_is_none() -> None:
    server, heard = await RawXmppServer().start(), Heard()
    options = SimpleNamespace(
        component=GW, host="127.0.0.1", port=server.port, secret=SecretStr(server.secret)
    )
    link = ComponentConnection(options, SystemClock(), SystemRandom())
    task = asyncio.get_running_loop().create_task(link.run(heard))
    try:
        async with asyncio.timeout(5):
            assert await heard.states.get()
            server.links[GW].send("<letter id='1'/><iq xmlns='' id='2'/><handshake/>")
            server.links[GW].send("<message xmlns='jabber:client' id='3'><body>x</body></message>")
            assert await heard.states.get()
            assert [e.get("id") for e in heard.stanzas] == ["3"]
            assert heard.stanzas[0].find(f"{{{NS}}}body") is not None
            assert heard.unknown == [f"{{{NS}}}letter", "iq", f"{{{NS}}}handshake"]
            assert server.links[GW].stanzas == []
            await link.stop()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await server.stop()


async def test_a_flood_of_stanzas_that_are_dropped_is_told_once_of_each_source(caplog) -> None:
    caplog.set_level("INFO")
    async with xmpp_server() as h:
        for number in range(100):
            h.link.receive(f"<message from='u{number}@verona.example/m' to='nobody@else.example'/>")
            h.link.receive(f"<message from='u{number}@mantua.example/m' to='nobody@else.example'/>")
            h.link.receive(f"<message from='x{number}@{GW}/m' to='{ROOM}'/>")
            h.link.receive(f"<presence from='{MERCUTIO}' to='{ROOM}/\u202e{number}' id='j'>{X}</presence>")
            assert h.link.listener is not None
            h.link.listener.on_unknown(Element("{urn:x}odd"))
        lines = [record.getMessage() for record in caplog.records if "stanza" in record.getMessage()]
        assert len(lines) == 5
        assert counted(h, "xmpp_dropped") == {
            "host-unknown": 200,
            "invalid-from": 100,
            "unsupported-stanza-type": 100,
        }
