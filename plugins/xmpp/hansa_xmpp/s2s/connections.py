"""Hansa as an XMPP server of its own: listeners, streams to other domains, and stanzas between both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Protocol
from xml.etree.ElementTree import Element

from hansa import LocalProtocolError, NetworkContext

from hansa_xmpp.places import parse_place, parse_route
from hansa_xmpp.proto.jid import domain_of
from hansa_xmpp.proto.parse import StanzaLimits
from hansa_xmpp.proto.render import OutboundStanza
from hansa_xmpp.proto.stream_xml import parse_own
from hansa_xmpp.s2s.certificates import Certificates
from hansa_xmpp.s2s.connect import Connector
from hansa_xmpp.s2s.inbound import InboundStreams
from hansa_xmpp.s2s.outbound import OutboundStreams
from hansa_xmpp.s2s.settings import ServerSettings
from hansa_xmpp.transport import NotConnected, StanzaListener

#: Seconds for everything sent to be confirmed, and for what waits to go out at a stop.
_CONFIRM_S, _FLUSH_S = 15.0, 3.0


class ServerOptions(Protocol):
    """The part of the configuration that native streams need."""

    component: str
    listen: tuple[str, ...]
    listen_tls: tuple[str, ...]
    certificate: Path | None
    key: Path | None
    ca_file: Path | None
    routes: dict[str, str]
    unverified: frozenset[str]
    client_certificates: bool


class ServerConnections:
    """Implements ``hansa_xmpp.transport.Transport``."""

    def __init__(self, ctx: NetworkContext) -> None:
        options: ServerOptions = ctx.config
        assert options.certificate is not None
        assert options.key is not None
        self._ctx = ctx
        self._options = options
        self._own = options.component
        settings = ServerSettings(
            domain=self._own,
            certificates=Certificates(options.certificate, options.key, options.ca_file, ctx.log.error),
            secret=ctx.random.bytes(32),
            routes={domain: parse_route(route) for domain, route in options.routes.items()},
            unverified=options.unverified,
            client_certificates=options.client_certificates,
        )
        connector = Connector(ctx, settings)
        self._outbound = OutboundStreams(ctx, self._own, connector, self._take_element)
        self._inbound = InboundStreams(ctx, settings, connector, self._outbound)
        self._listener: StanzaListener | None = None
        self._open = set[asyncio.Task[None]]()

    async def run(self, listener: StanzaListener) -> None:
        """See ``Transport.run``."""
        async with contextlib.AsyncExitStack() as stack:
            places = [(place, False) for place in self._options.listen]
            places += [(place, True) for place in self._options.listen_tls]
            for place, direct in places:
                host, port = parse_place(place)
                accept = self._accept_with(listener, direct=direct)
                server = await asyncio.start_server(accept, host, port, limit=64 * 1024)
                stack.push_async_callback(server.wait_closed)
                stack.callback(server.close)
            self._listener = listener
            listener.on_state(True, f"{self._own} on {', '.join(place for place, _ in places)}")
            try:
                await asyncio.Event().wait()
            finally:
                self._listener = None
                for task in self._open:
                    task.cancel()
                await asyncio.gather(*self._open, return_exceptions=True)

    def _accept_with(
        self, listener: StanzaListener, *, direct: bool
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            with contextlib.suppress(asyncio.CancelledError):  # at the stop, which the peer has been told
                await self._inbound.serve_connection(reader, writer, listener, direct=direct)

        return accept

    async def stop(self) -> None:
        """See ``Transport.stop``."""
        await self._outbound.flush_queues(_FLUSH_S)

    def send(self, stanzas: Iterable[OutboundStanza]) -> None:
        """See ``Transport.send``."""
        if self._listener is None:
            raise NotConnected("the listeners are not open")
        for stanza in stanzas:
            if domain_of(stanza.sender) != self._own:
                raise LocalProtocolError(f"{stanza.sender} is not of {self._own}")
            is_kept = not stanza.is_iq_answer
            for to, text in zip(stanza.to, stanza.texts(), strict=True):
                domain = domain_of(to)
                if domain == self._own:
                    self._loop_back(text)
                else:
                    self._outbound.send(domain, text, is_kept=is_kept)

    def _loop_back(self, text: str) -> None:
        """A stanza to our own domain comes back once everything sent before it is confirmed, as it does from
        a server that this is a component of: see ``link_ping.py``.
        """
        elements = parse_own(text, StanzaLimits())
        task = self._ctx.spawn(partial(self._return_confirmed, elements), "confirm what was sent")
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _return_confirmed(self, elements: list[Element]) -> None:
        await self._outbound.confirm_all(_CONFIRM_S)
        for element in elements:
            self._take_element(element)

    def _take_element(self, element: Element) -> None:
        if self._listener is not None:
            self._listener.on_stanza(element)

    def end_connection(self, reason: str) -> None:
        """See ``Transport.end_connection``: each domain has connections, and time limits, of its own."""
        self._ctx.log.warning("streams to other servers: %s", reason)

    async def wait_drained(self) -> None:
        """See ``Transport.wait_drained``."""
        await self._outbound.drained.wait()
