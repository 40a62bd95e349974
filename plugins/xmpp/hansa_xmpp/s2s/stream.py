"""One connection between two servers: bytes to elements and back, with bounds, and TLS in between."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree.ElementTree import Element

from hansa import RemoteProtocolError

from hansa_xmpp.proto.parse import BoundedParser, OversizedStanza, StanzaLimits
from hansa_xmpp.proto.stream_xml import STREAM, error_xml

#: Bounds before the peer has proven who it is. Bytes of one read: others get their turn on the loop after it.
STRANGER_LIMITS = StanzaLimits(stanza=10_240, token=4_096, depth=6, elements=40, attributes=100)
_READ = 4_096
#: Seconds for a TLS handshake, and for bytes to go out before the peer counts as stuck.
_HANDSHAKE_S, _WRITE_S = 10.0, 20.0


class StreamClosed(Exception):
    """The connection ended, because of what its text says."""


class XmlStream:
    """A connection. ``on_oversized`` is told of stanzas over the bounds, which are not read."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_oversized: Callable[[OversizedStanza], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_oversized = on_oversized
        self._events: deque[tuple[str, Element]] = deque()
        self._parser = BoundedParser(STRANGER_LIMITS, on_oversized)
        self._open = False

    @property
    def is_closing(self) -> bool:
        """True once the connection is closed from here."""
        return self._writer.is_closing()

    @property
    def certificate(self) -> Mapping[str, Any]:
        """The peer's certificate, empty if it gave none or if it was not verified."""
        found: Mapping[str, Any] | None = self._writer.get_extra_info("peercert")
        return found or {}

    @property
    def address(self) -> str:
        """The peer's address, without its port."""
        peer = self._writer.get_extra_info("peername")
        return str(peer[0]) if peer else ""

    def restart_stream(self, limits: StanzaLimits = STRANGER_LIMITS) -> None:
        """A new stream on the same connection. Raises RemoteProtocolError if the peer went on before it was
        told that it may: what it sent then is of nobody.
        """
        if self._events:
            raise RemoteProtocolError("bytes behind the end of a stream", code="policy-violation")
        self._parser.close()
        self._parser = BoundedParser(limits, self._on_oversized)
        self._open = False

    def widen_limits(self, limits: StanzaLimits) -> None:
        """The peer has proven who it is."""
        self._parser.set_bounds(limits)

    async def read_header(self) -> Element:
        """The root of the stream. Raises ``StreamClosed`` and RemoteProtocolError."""
        kind, root = await self._next_event()
        if kind != "start" or self._open:
            raise RemoteProtocolError("a stream begins once", code="bad-format")
        self._open = True
        return root

    async def read_element(self) -> Element:
        """The next whole element. Raises ``StreamClosed`` and RemoteProtocolError."""
        while True:
            kind, element = await self._next_event()
            if kind == "start":
                continue
            if element.tag == STREAM:
                raise StreamClosed("the other server closed the stream")
            return element

    async def _next_event(self) -> tuple[str, Element]:
        while not self._events:
            try:
                data = await self._reader.read(_READ)
            except (OSError, ssl.SSLError) as error:
                raise StreamClosed(str(error)) from None
            if not data:
                raise StreamClosed("the other server closed the connection")
            self._parser.feed(data)
            self._events.extend(self._parser.read_events())
        return self._events.popleft()

    def write(self, text: str) -> None:
        """Hands text over, in order."""
        if not self._writer.is_closing():
            self._writer.write(text.encode())

    async def drain(self) -> None:
        """Waits until most of it is written. Raises ``StreamClosed``."""
        try:
            async with asyncio.timeout(_WRITE_S):
                await self._writer.drain()
        except TimeoutError:
            self.abort()  # what waits would never go out
            raise StreamClosed("the other server does not read") from None
        except OSError as error:
            raise StreamClosed(str(error)) from None

    async def start_tls(
        self, context: ssl.SSLContext, server_name: str | None = None, *, proceed: str = ""
    ) -> None:
        """TLS begins, after the text by which the peer may go on (``proceed``). Raises ``StreamClosed``, and
        RemoteProtocolError for bytes that came before it.
        """
        if self._open:
            await self._refuse_early_bytes()
        try:
            self.write(proceed)  # and no other turn of the loop: the answer is for TLS
            await self._writer.start_tls(
                context, server_hostname=server_name, ssl_handshake_timeout=_HANDSHAKE_S
            )
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError) as error:
            raise StreamClosed(f"TLS: {error}") from None

    async def _refuse_early_bytes(self) -> None:
        self.restart_stream()
        # Bytes that were read already would count as if they had come over TLS.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                if await self._reader.read(1):
                    raise RemoteProtocolError("bytes before the handshake", code="policy-violation")
                raise StreamClosed("the other server closed the connection")

    def close(self, condition: str = "", text: str = "") -> None:
        """Closes the connection, with a stream error if there is a ``condition``."""
        self.write(error_xml(condition, text) if condition else "</stream:stream>")
        self._parser.close()
        self._events.clear()
        self._writer.close()

    def abort(self) -> None:
        """Closes the connection without a word."""
        self._parser.close()
        self._events.clear()
        self._writer.transport.abort()
