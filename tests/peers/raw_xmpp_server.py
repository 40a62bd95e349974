"""An XMPP server that only speaks to components (XEP-0114), and says to them whatever a test wants."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from typing import Any, Self
from xml.etree.ElementTree import Element, XMLPullParser

_NS = "jabber:component:accept"
_STREAM = "http://etherx.jabber.org/streams"
_STREAM_ERRORS = "urn:ietf:params:xml:ns:xmpp-streams"
_PING = "{urn:xmpp:ping}ping"


class RawXmppLink:
    """The connection of one component. ``stanzas`` are what it sent; ``condition`` its stream error."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.stanzas: list[Element] = []
        self.condition = ""
        self.connects = 0
        self._writer: asyncio.StreamWriter | None = None
        self._news = asyncio.Event()

    @property
    def up(self) -> bool:
        return self._writer is not None

    def opened(self, writer: asyncio.StreamWriter) -> None:
        self._writer, self.condition = writer, ""
        self.connects += 1
        self.tell()

    def closed(self) -> None:
        self._writer = None
        self.tell()

    def tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def send(self, text: str | bytes) -> None:
        """Bytes into the stream, as they are."""
        assert self._writer is not None
        self._writer.write(text if isinstance(text, bytes) else text.encode())

    async def until(self, what: str, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait until something that arrives makes ``condition`` true."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := condition()):
                    await self._news.wait()
        except TimeoutError:
            raise TimeoutError(f"{self.domain} did not do this within {seconds:g} s: {what}") from None
        return found


class RawXmppServer:
    """Every component that knows the ``secret`` may connect; each has a ``RawXmppLink`` by its domain. Port 0 is any
    that is free.
    """

    def __init__(self, port: int = 0) -> None:
        self.secret = secrets.token_hex(8)
        self.port = port
        self.links: dict[str, RawXmppLink] = {}
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        while self._writers:
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._talk(reader, writer)
        except ConnectionError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            for one in self.links.values():
                if one._writer is writer:  # its own part
                    one.closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser, depth, stream_id = XMLPullParser(["start", "end"]), 0, secrets.token_hex(4)
        link: RawXmppLink | None = None
        while data := await reader.read(65_536):
            parser.feed(data)
            for event, element in parser.read_events():
                if event == "start":
                    depth += 1
                    if depth == 1:
                        domain = element.get("to", "")
                        link = self.links.setdefault(domain, RawXmppLink(domain))
                        root = element
                        writer.write(
                            f"<?xml version='1.0'?><stream:stream xmlns='{_NS}' xmlns:stream='{_STREAM}'"
                            f" from='{domain}' id='{stream_id}'>".encode()
                        )
                    continue
                depth -= 1
                if depth == 1 and link is not None:
                    root.remove(element)
                    self._stanza(link, writer, element, stream_id)
                elif depth == 0:
                    return

    def _stanza(self, link: RawXmppLink, writer: asyncio.StreamWriter, e: Element, stream_id: str) -> None:
        if e.tag == f"{{{_NS}}}handshake":
            good = hashlib.sha1(f"{stream_id}{self.secret}".encode()).hexdigest()  # XEP-0114
            if e.text == good:
                writer.write(b"<handshake/>")
                link.opened(writer)
            return
        if e.tag == f"{{{_STREAM}}}error":
            names = [c.tag.partition("}")[2] for c in e if c.tag.startswith(f"{{{_STREAM_ERRORS}}}")]
            link.condition = " ".join(names) or "?"
        elif e.get("type") == "get" and e.find(_PING) is not None:
            to, sender, id_ = e.get("from", ""), e.get("to", ""), e.get("id", "")
            writer.write(f"<iq type='result' from='{sender}' to='{to}' id='{id_}'/>".encode())
            return
        else:
            link.stanzas.append(e)
        link.tell()
