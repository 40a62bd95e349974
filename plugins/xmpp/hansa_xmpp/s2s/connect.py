"""Opening a stream to the server of another domain, up to where it can be used.

SPEC: RFC 6120 section 3.2 (where to connect), section 5.4 (STARTTLS), section 6.4 (SASL); XEP-0220 section 2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from xml.etree.ElementTree import Element

from hansa import HttpError, NetworkContext, PeerConnect, RemoteProtocolError

from hansa_xmpp.places import Target
from hansa_xmpp.proto import stream_xml
from hansa_xmpp.proto.parse import OversizedStanza
from hansa_xmpp.proto.stream_xml import StreamFeatures
from hansa_xmpp.s2s.settings import ServerSettings
from hansa_xmpp.s2s.stream import StreamClosed, XmlStream

#: Seconds for a connection and everything up to the first stanza.
OPEN_S = 20.0
#: Addresses of a domain that are tried.
_MAX_TARGETS = 4

_Found = TypeVar("_Found")
#: Uses a stream that has TLS: with its id, its features and the other domain.
_Use = Callable[[XmlStream, str, StreamFeatures, str], Awaitable[_Found]]


class Unreachable(Exception):
    """No stream can be had. ``condition`` is that of the stanza errors that senders get."""

    def __init__(self, text: str, condition: str = "remote-server-timeout") -> None:
        super().__init__(text)
        self.condition = condition


class Connector:
    """Opens streams."""

    def __init__(self, ctx: NetworkContext, settings: ServerSettings) -> None:
        self._ctx = ctx
        self._settings = settings

    async def open_stream(self, domain: str) -> tuple[XmlStream, str]:
        """A stream over which stanzas of our domain go to ``domain``, and how we proved ourselves. Raises
        ``Unreachable``.
        """
        return await self._try_targets(domain, self._authenticate)

    async def verify_key(self, domain: str, stream_id: str, key: str) -> bool:
        """True if the server of ``domain`` says that it made the dialback key for a stream to us. Raises
        ``Unreachable``.
        """

        async def ask(stream: XmlStream, _id: str, _features: StreamFeatures, remote: str) -> bool:
            stream.write(stream_xml.verify_xml(self._settings.domain, remote, stream_id, key=key))
            await stream.drain()
            while True:
                element = await stream.read_element()
                if element.tag != stream_xml.VERIFY:
                    _raise_on_error(element)
                    continue
                answer = stream_xml.parse_dialback(element)
                if (answer.sender, answer.to, answer.id) == (remote, self._settings.domain, stream_id):
                    return answer.type == "valid"

        stream, valid = await self._try_targets(domain, ask)
        stream.close()
        return valid

    async def _try_targets(
        self,
        domain: str,
        use: _Use[_Found],
    ) -> tuple[XmlStream, _Found]:
        """The first address of a domain at which ``use`` has a result."""
        allowed = await self._ctx.check(PeerConnect(network=self._ctx.id, server=domain, outbound=True))
        if not allowed.allowed:
            raise Unreachable("the policies of this server do not allow it", "not-allowed")
        failed = Unreachable(f"{domain} has no XMPP server", "remote-server-not-found")
        for target in (await self._find_targets(domain))[:_MAX_TARGETS]:
            try:
                async with asyncio.timeout(OPEN_S):
                    return await self._use_target(domain, target, use)
            except TimeoutError:
                failed = Unreachable(f"{target.host}:{target.port} did not answer within {OPEN_S:g} s")
            except (HttpError, OSError) as error:
                failed = Unreachable(f"{target.host}:{target.port}: {error}")
            except (StreamClosed, RemoteProtocolError) as error:
                failed = Unreachable(f"{target.host}:{target.port}: {error}")
        raise failed

    async def _find_targets(self, domain: str) -> list[Target]:
        route = self._settings.routes.get(domain)
        if route is not None:
            return [route]
        if "." not in domain:
            raise Unreachable(f"{domain} is not a domain of the internet", "remote-server-not-found")
        try:
            direct = await self._ctx.http.srv(f"_xmpps-server._tcp.{domain}")
            plain = await self._ctx.http.srv(f"_xmpp-server._tcp.{domain}")
        except HttpError as error:
            raise Unreachable(f"the records of {domain}: {error.detail}") from None
        return stream_xml.order_targets(domain, direct, plain, self._ctx.random.uniform)

    async def _use_target(
        self,
        domain: str,
        target: Target,
        use: _Use[_Found],
    ) -> tuple[XmlStream, _Found]:
        certificates, verify = self._settings.certificates, domain not in self._settings.unverified
        connected = await self._ctx.http.connect(target.host, target.port)
        reader, writer = await asyncio.open_connection(sock=connected)
        stream = XmlStream(reader, writer, _refuse_excess)
        try:
            if target.direct:
                await stream.start_tls(certificates.client_context(verify=verify), domain)
            name, features = await self._begin_stream(stream, domain)
            if not target.direct:
                if not features.starttls:
                    raise StreamClosed("the other server offers no TLS")
                stream.write(f"<starttls xmlns='{stream_xml.NS_TLS}'/>")
                element = await stream.read_element()
                if element.tag != stream_xml.PROCEED:
                    raise StreamClosed("the other server refuses TLS")
                await stream.start_tls(certificates.client_context(verify=verify), domain)
                name, features = await self._begin_stream(stream, domain)
            found = await use(stream, name, features, domain)
        except BaseException:
            stream.abort()
            raise
        return stream, found

    async def _begin_stream(self, stream: XmlStream, domain: str) -> tuple[str, StreamFeatures]:
        stream.write(stream_xml.header_xml(self._settings.domain, domain))
        header = stream_xml.parse_header(await stream.read_header())
        element = await stream.read_element()
        _raise_on_error(element)
        if element.tag != stream_xml.FEATURES:
            raise StreamClosed("the other server sends no features")
        return header.id, stream_xml.parse_features(element)

    async def _authenticate(
        self, stream: XmlStream, stream_id: str, features: StreamFeatures, remote: str
    ) -> str:
        local = self._settings.domain
        if features.external:
            stream.write(stream_xml.external_xml(local))
            element = await stream.read_element()
            if element.tag == stream_xml.SUCCESS:
                stream.restart_stream()
                await self._begin_stream(stream, remote)
                return "certificate"
            _raise_on_error(element)
        elif not features.dialback:
            raise StreamClosed("the other server offers no way to prove who we are")
        key = self._settings.key_for(remote, local, stream_id)
        stream.write(stream_xml.result_xml(local, remote, key=key))
        while True:
            element = await stream.read_element()
            _raise_on_error(element)
            if element.tag != stream_xml.RESULT:
                continue
            answer = stream_xml.parse_dialback(element)
            if (answer.sender, answer.to) != (remote, local):
                continue
            if answer.type != "valid":
                raise StreamClosed("the other server does not believe who we are")
            return "dialback"


def _raise_on_error(element: Element) -> None:
    if element.tag == stream_xml.ERROR:
        raise StreamClosed(f"the other server says {stream_xml.stream_condition(element)}")


def _refuse_excess(excess: OversizedStanza) -> None:
    """Nothing that is too large is due over a stream that we opened: its sender is not waited for."""
    raise RemoteProtocolError(excess.reason, code="policy-violation")
