"""The component link (XEP-0114) on slixmpp.

slixmpp's stream does the framing, the handshake and the keep-alive. Of its handlers only the handshake's is
kept: messages, presences and iqs each have one root handler, no stanza plugin is asked about them, and
nothing is answered on our behalf. Reconnecting is ours: a fresh stream each time, with backoff.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol
from xml.etree.ElementTree import Element

from hansa import Backoff, Clock, LocalProtocolError, Random, RemoteProtocolError
from pydantic import SecretStr
from slixmpp import ComponentXMPP
from slixmpp.xmlstream import StanzaBase
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher.base import MatcherBase
from slixmpp.xmlstream.tostring import tostring

from hansa_xmpp.proto.jid import domain_of
from hansa_xmpp.proto.parse import BoundedParser, StanzaLimits
from hansa_xmpp.proto.render import OutboundStanza
from hansa_xmpp.proto.stanza import KINDS, local_name
from hansa_xmpp.transport import NotConnected, StanzaListener

_NS = "jabber:component:accept"
_CLIENT = "{jabber:client}"
_STREAMS = "http://etherx.jabber.org/streams"
_STREAM_ERRORS = "urn:ietf:params:xml:ns:xmpp-streams"
_STANZAS = frozenset(f"{{{_NS}}}{kind}" for kind in KINDS)
_ERROR, _HANDSHAKE = f"{{{_STREAMS}}}error", f"{{{_NS}}}handshake"
#: Seconds for the connection and the handshake, and for saying good-bye.
_OPEN_TIMEOUT_S, _CLOSE_TIMEOUT_S = 10.0, 2.0
#: Backoff in seconds; after a link that lasted longer than the most it begins again.
_BACKOFF = Backoff(first=0.5, most=30.0)
#: Bytes waiting to be written before senders wait.
_HIGH_WATER = 1024 * 1024
#: Bytes that are parsed in one go, and seconds after which others get their turn on the loop.
_PIECE, _TURN = 1024, 0.002
#: Characters that are made of stanzas and written in one go.
_WRITTEN = 128 * 1024


class Options(Protocol):
    """The part of the configuration that the link needs."""

    @property
    def component(self) -> str:
        """Our domain."""
        ...

    @property
    def host(self) -> str:
        """Where the server listens."""
        ...

    @property
    def port(self) -> int:
        """On which port."""
        ...

    @property
    def secret(self) -> SecretStr | None:
        """Shared with the server."""
        ...


class _TagMatcher(MatcherBase):
    def match(self, xml: StanzaBase) -> bool:
        return bool(xml.xml.tag == self._criteria)


class _Stream(ComponentXMPP):
    """One connection."""

    def __init__(self, options: Options, listener: StanzaListener) -> None:
        secret = options.secret.get_secret_value() if options.secret is not None else ""
        super().__init__(options.component, secret, options.host, options.port)  # type: ignore[no-untyped-call]
        # The link has no TLS; a context would hold every authority of the system until garbage is collected.
        del self.ssl_context
        self.opened: asyncio.Future[str] = self.loop.create_future()
        self.closed: asyncio.Future[str] = self.loop.create_future()
        self.writable = asyncio.Event()
        self.writable.set()
        self.reason = ""
        self._listener = listener
        #: Received bytes that are not parsed yet: no more are read meanwhile.
        self._unread = b""
        self._turn: asyncio.Handle | None = None
        #: When parsing has had its time in this round of the loop, in which data may come many times; 0 where
        #: it has not begun.
        self._until = 0.0
        #: Stanzas whose texts are not made yet: one of them can be for a thousand receivers.
        self._unsent: deque[Iterator[str]] = deque()
        self._pumping: asyncio.Handle | None = None
        self._paused = False
        for name in ("IM", "IMError", "Presence", "Stream Error"):
            self.remove_handler(name)
        self._add_handler(_ERROR, self._stream_error)
        self.add_event_handler("session_start", self._session_start)

    def _add_handler(self, tag: str, act: Callable[[StanzaBase], None]) -> None:
        self.register_handler(Callback(tag, _TagMatcher(tag), act))

    def _spawn_event(self, xml: Element) -> None:
        """Stanzas go straight to the listener, the link's own elements to slixmpp."""
        if xml.tag.startswith(_CLIENT):  # COMPAT: some servers say so also to components
            for element in xml.iter():
                element.tag = element.tag.replace(_CLIENT, f"{{{_NS}}}")
        if xml.tag in _STANZAS:
            self._listener.on_stanza(xml)
        elif xml.tag == _ERROR or (xml.tag == _HANDSHAKE and not self.opened.done()):
            super()._spawn_event(xml)
        else:
            self._listener.on_unknown(xml)

    def _session_start(self, _: object) -> None:
        if not self.opened.done():
            self.opened.set_result("")

    def _stream_error(self, stanza: StanzaBase) -> None:
        names = [local_name(c.tag) for c in stanza.xml if c.tag.startswith(f"{{{_STREAM_ERRORS}}}")]
        self.reason = f"the XMPP server says: {' '.join(names) or 'stream error'}"

    def init_parser(self) -> None:
        """Bounds on everything that is read (``proto/parse.py``) in place of slixmpp's parser."""
        super().init_parser()
        self.parser = BoundedParser(StanzaLimits(), self._listener.on_oversized)  # type: ignore[assignment]
        assert self.transport is not None
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)

    def data_received(self, data: bytes | str) -> None:
        """Parses arriving bytes a piece at a time, so that a flood of stanzas does not delay other
        connections.
        """
        self._unread += data if isinstance(data, bytes) else data.encode()
        if self._turn is None and self.writable.is_set():
            self._parse_received()

    def _parse_received(self) -> None:
        self._turn = None
        if not self._until:
            self._until = self.loop.time() + _TURN
            self.loop.call_soon(self._new_round)
        at, unread = 0, self._unread
        while at < len(unread) and self.writable.is_set() and self.loop.time() < self._until:
            # A tag that has not ended is looked at again with every piece.
            size = _PIECE + (self.parser.unfinished // 4 if isinstance(self.parser, BoundedParser) else 0)
            if not self._take_piece(unread[at : at + size]):
                self._unread = b""
                return
            at += size
        self._unread = unread[at:]
        if self._unread and self.writable.is_set():
            self._turn = self.loop.call_soon(self._parse_received)
        self._read_on()

    def _new_round(self) -> None:
        self._until = 0.0

    def _take_piece(self, piece: bytes) -> bool:
        """False where the stream ends: what breaks its own rules is answered with a stream error."""
        if self.parser is None:
            return False
        try:
            super().data_received(piece)
        except RemoteProtocolError as error:
            self.reason = f"the XMPP server sent what no server may: {error.reason}"
            condition = f"<{error.code} xmlns='{_STREAM_ERRORS}'/>"
            self.send_raw(f"<stream:error>{condition}</stream:error></stream:stream>")
            if self.transport is not None:
                self.transport.close()
            return False
        return True

    def _read_on(self) -> None:
        """Read on while nothing is left to parse and the server takes what we write."""
        if self.transport is None or self.transport.is_closing():
            return
        if self._unread or not self.writable.is_set():
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def send(self, data: StanzaBase | str, use_filters: bool = True) -> None:  # noqa: ARG002  # slixmpp's signature
        """Write at once: there is no queue to wait in, and no session to wait for."""
        if isinstance(data, StanzaBase):
            data = tostring(data.xml, xmlns=self.default_ns, stream=self, top_level=True)
        self.send_raw(data)

    def connection_lost(self, exception: BaseException | None) -> None:
        """Tell who waits, then let slixmpp clean up."""
        self._unread = b""
        self._unsent.clear()
        for later in (self._turn, self._pumping):
            if later is not None:
                later.cancel()
        if self.parser is not None:
            self.parser.close()
        super().connection_lost(exception)
        self.writable.set()
        reason = self.reason or str(exception or "the XMPP server closed the link")
        if not self.closed.done():
            self.closed.set_result(reason)

    def put(self, stanza: OutboundStanza) -> None:
        """Write a stanza after those that were put before; ``writable`` is set once all are written."""
        self._unsent.append(iter(stanza.texts()))
        if self._pumping is None and not self._paused:
            self._pumping = self.loop.call_soon(self._pump_queue)

    def _pump_queue(self) -> None:
        self._pumping = None
        self._write_parts(_WRITTEN)
        if not self._unsent and not self._paused:
            self._writable_again()
            return
        self.writable.clear()
        if not self._paused and self.transport is not None:
            self._pumping = self.loop.call_soon(self._pump_queue)
        self._read_on()

    def _write_parts(self, most: int) -> None:
        parts, size = list[str](), 0
        while self._unsent and size < most:
            for one in self._unsent[0]:
                parts.append(one)
                size += len(one)
                if size >= most:
                    break
            else:
                self._unsent.popleft()
        if parts and self.transport is not None:
            self.send_raw("".join(parts))

    def flush(self) -> None:
        """Hand over at once what was put."""
        while self._unsent and self.transport is not None:
            self._write_parts(_WRITTEN)

    def _writable_again(self) -> None:
        self.writable.set()
        if self._unread and self._turn is None:
            self._turn = self.loop.call_soon(self._parse_received)
        self._read_on()

    def pause_writing(self) -> None:
        """The server does not read as fast as we write: neither do we."""
        self._paused = True
        self.writable.clear()
        self._read_on()

    def resume_writing(self) -> None:
        """It caught up."""
        self._paused = False
        if not self._unsent:
            self._writable_again()
        elif self._pumping is None:
            self._pumping = self.loop.call_soon(self._pump_queue)


class ComponentConnection:
    """Implements ``hansa_xmpp.transport.Transport``."""

    def __init__(self, options: Options, clock: Clock, random: Random) -> None:
        self._options = options
        self._clock = clock
        self._random = random
        self._stream: _Stream | None = None

    async def run(self, listener: StanzaListener) -> None:
        """See ``Transport.run``."""
        failures = 0
        while True:
            began = self._clock.monotonic()
            reason = await self._run_connection(listener)
            listener.on_state(False, reason)
            failures = 1 if self._clock.monotonic() - began > _BACKOFF.most else failures + 1
            await asyncio.sleep(_BACKOFF.delay(failures, self._random.uniform()))

    async def _run_connection(self, listener: StanzaListener) -> str:
        """One connection from beginning to end; why it ended."""
        options, stream = self._options, _Stream(self._options, listener)
        where = f"{options.host}:{options.port}"
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                await loop.create_connection(lambda: stream, options.host, options.port)
                await asyncio.wait({stream.opened, stream.closed}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            stream.abort()
            return f"no handshake with {where} within {_OPEN_TIMEOUT_S:.0f} s"
        except OSError as error:
            return f"cannot connect to {where}: {error.strerror or error}"
        except asyncio.CancelledError:
            stream.abort()
            raise
        if stream.closed.done():
            return stream.reason or f"{where} closed the link during the handshake"
        self._stream = stream
        try:
            listener.on_state(True, f"{options.component} at {where}")
            return await asyncio.shield(stream.closed)
        finally:
            self._stream = None
            stream.abort()

    async def stop(self) -> None:
        """See ``Transport.stop``."""
        stream = self._stream
        if stream is None or stream.transport is None:
            return
        stream.flush()
        stream.send_raw(stream.stream_footer)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await asyncio.shield(stream.closed)
        stream.abort()

    def send(self, stanzas: Iterable[OutboundStanza]) -> None:
        """See ``Transport.send``. Stanzas of one round of the loop are one write, if they are not many."""
        if self._stream is None or self._stream.transport is None:
            raise NotConnected("the component is not connected")
        for stanza in stanzas:
            if domain_of(stanza.sender) != self._options.component:
                raise LocalProtocolError(f"{stanza.sender!r} is not ours to send from")
            if stanza.to:
                self._stream.put(stanza)

    def end_connection(self, reason: str) -> None:
        """See ``Transport.end_connection``."""
        if self._stream is not None:
            self._stream.reason = self._stream.reason or reason
            self._stream.abort()

    async def wait_drained(self) -> None:
        """See ``Transport.wait_drained``."""
        stream = self._stream
        if stream is not None:
            await asyncio.sleep(0)  # what was put in this tick is written first
            await stream.writable.wait()
