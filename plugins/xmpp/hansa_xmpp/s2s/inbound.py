"""Streams that other servers open to us: who they are, and their stanzas.

A server proves a domain by a dialback key that the domain's own server confirms, over TLS with a valid
certificate unless the operator named the domain, or by its own certificate where servers are asked for one.
OpenSSL ends the connection of a server that is asked and whose certificate is for servers alone.

SPEC: RFC 6120 section 4.7 (headers), section 5.4, section 6.4, section 8.1.2 (addresses); XEP-0220 section 2.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from xml.etree.ElementTree import Element

from hansa import LogLimit, NetworkContext, PeerConnect, RemoteProtocolError

from hansa_xmpp.proto import stream_xml
from hansa_xmpp.proto.parse import OversizedStanza, StanzaLimits
from hansa_xmpp.proto.stream_xml import DialbackElement, StreamFeatures
from hansa_xmpp.s2s.connect import Connector, Unreachable
from hansa_xmpp.s2s.outbound import OutboundStreams
from hansa_xmpp.s2s.settings import ServerSettings
from hansa_xmpp.s2s.stream import StreamClosed, XmlStream
from hansa_xmpp.transport import StanzaListener

#: Connections that have proven nothing yet, and of one address; connections of one domain; all of them.
_STRANGERS, _OF_ADDRESS, _OF_DOMAIN, _ALL = 200, 20, 8, 2000
#: Seconds to prove a domain, and without a byte until a stream is closed.
_PROOF_S, _IDLE_S = 30.0, 900.0
#: Domains that one stream may prove, and keys that are being confirmed for it.
_MAX_PAIRS, _MAX_PENDING = 20, 4
#: Keys that are being confirmed, all and for one address.
_VERIFICATIONS, _OF_ADDRESS_VERIFIED = 64, 8


class InboundStreams:
    """Takes connections. ``listener`` gets the stanzas of domains that have proven themselves."""

    def __init__(
        self,
        ctx: NetworkContext,
        settings: ServerSettings,
        connector: Connector,
        outbound: OutboundStreams,
    ) -> None:
        self._ctx = ctx
        self.settings = settings
        self.connector = connector
        self.outbound = outbound
        self._strangers = Counter[str]()
        self._domains = Counter[str]()
        self._verifying = Counter[str]()
        self._count = 0
        self.told = LogLimit(ctx.log)

    async def serve_connection(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        listener: StanzaListener,
        *,
        direct: bool,
    ) -> None:
        """One connection, from its first byte to its last."""
        peer = _Peer(self, reader, writer, listener)
        address = peer.stream.address
        strangers = self._strangers.total()
        if strangers >= _STRANGERS or self._strangers[address] >= _OF_ADDRESS or self._count >= _ALL:
            self.count("xmpp_s2s_refused", why="connections")
            peer.stream.abort()
            return
        self._strangers[address] += 1
        self._count += 1
        try:
            await peer.run(direct=direct)
        finally:
            self._count -= 1
            if not peer.proven:
                self.note_proven(address)
            for domain in peer.proven:
                self._domains[domain] -= 1
                self._domains += Counter()

    def note_proven(self, address: str) -> None:
        """Frees the place that a connection from an address had among strangers."""
        self._strangers[address] -= 1
        self._strangers += Counter()

    def take_place(self, domain: str) -> bool:
        """True if a domain may have one more connection."""
        if self._domains[domain] >= _OF_DOMAIN:
            return False
        self._domains[domain] += 1
        return True

    def take_verification(self, address: str) -> bool:
        """True if one more key of a peer at this address may be confirmed now: it costs a connection."""
        if self._verifying.total() >= _VERIFICATIONS or self._verifying[address] >= _OF_ADDRESS_VERIFIED:
            return False
        self._verifying[address] += 1
        return True

    def end_verification(self, address: str) -> None:
        """The key is confirmed, or will not be."""
        self._verifying[address] -= 1
        self._verifying += Counter()

    def count(self, name: str, **labels: str) -> None:
        """Adds one to a counter."""
        self._ctx.count(name, **labels)

    async def is_allowed(self, domain: str) -> bool:
        """Asks the policies whether a server may talk to us."""
        return (await self._ctx.check(PeerConnect(network=self._ctx.id, server=domain))).allowed

    def new_id(self) -> str:
        """The id of a stream, which nobody can guess: dialback keys are made of it."""
        return self._ctx.random.bytes(16).hex()

    @property
    def policy_generation(self) -> int:
        """The generation of the policies."""
        return self._ctx.policy_generation


class _Peer:
    """One connection. ``proven`` are the domains that it may speak for."""

    def __init__(
        self,
        shared: InboundStreams,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        listener: StanzaListener,
    ) -> None:
        self._shared = shared
        self._own = shared.settings.domain
        self._listener = listener
        self.stream = XmlStream(reader, writer, self._on_oversized)
        self.proven: set[str] = set()
        self._id = ""
        self._pending = set[asyncio.Task[None]]()
        self._until = asyncio.get_running_loop().time() + _PROOF_S
        self._judged = -1

    async def run(self, *, direct: bool) -> None:
        """Serves the connection until it ends."""
        try:
            await self._negotiate_stream(direct=direct)
        except StreamClosed as closed:
            if not self.proven:
                self._shared.count("xmpp_s2s_refused", why="closed")
                self._shared.told.info(self.stream.address, "from %s: %s", self.stream.address, closed)
            self.stream.close()
        except TimeoutError:
            self.stream.close("connection-timeout")
        except RemoteProtocolError as error:
            self._refuse_stream(error.code or "bad-format", error.reason)
        except asyncio.CancelledError:
            self.stream.close("system-shutdown")
            raise
        except Exception as error:  # noqa: BLE001  # a fault here ends one stream, and is told once
            self._shared.count("xmpp_s2s_refused", why="internal-server-error")
            self._shared.told.exception(error, "the stream of %s", self.stream.address)
            self.stream.close("internal-server-error")
        finally:
            for task in self._pending:
                task.cancel()

    def _refuse_stream(self, condition: str, text: str) -> None:
        who = ", ".join(sorted(self.proven)) or self.stream.address
        self._shared.count("xmpp_s2s_refused", why=condition)
        self._shared.told.info(who, "the stream of %s ends: %s", who, text)
        self.stream.close(condition, text)

    async def _negotiate_stream(self, *, direct: bool) -> None:
        claimed, certificates = "", self._shared.settings.certificates
        if direct:
            await self.stream.start_tls(certificates.server_context(verify=self._is_asked("")))
        else:
            claimed = await self._begin_stream(StreamFeatures(starttls=True))
            element = await self._next_element()
            if element.tag != stream_xml.STARTTLS:
                raise RemoteProtocolError("TLS is required", code="policy-violation")
            context = certificates.server_context(verify=self._is_asked(claimed))
            await self.stream.start_tls(context, proceed=f"<proceed xmlns='{stream_xml.NS_TLS}'/>")
        claimed = await self._begin_stream(None)
        while True:
            element = await self._next_element()
            if element.tag == stream_xml.AUTH:
                claimed = await self._authenticate(element, claimed)
            elif element.tag == stream_xml.RESULT:
                await self._take_result(stream_xml.parse_dialback(element))
            elif element.tag == stream_xml.VERIFY:
                self._answer_verify(stream_xml.parse_dialback(element))
            elif element.tag in stream_xml.STANZAS:
                await self._take_stanza(element)
            elif element.tag == stream_xml.ERROR:
                raise StreamClosed("the other server ends the stream")
            else:
                raise RemoteProtocolError("no stanza", code="unsupported-stanza-type")

    def _is_asked(self, claimed: str) -> bool:
        """True if the peer, which claims to be of that domain, is asked for its certificate."""
        settings = self._shared.settings
        return settings.client_certificates and claimed not in settings.unverified

    async def _next_element(self) -> Element:
        loop = asyncio.get_running_loop()
        until = loop.time() + _IDLE_S if self.proven else self._until
        async with asyncio.timeout_at(until):
            await self.stream.drain()  # who does not read its answers is read no further
            return await self.stream.read_element()

    async def _begin_stream(self, features: StreamFeatures | None) -> str:
        """Answers the header of a stream; returns the domain that it claims to be of."""
        async with asyncio.timeout_at(self._until):
            root = await self.stream.read_header()
        header = stream_xml.parse_header(root)
        self._id = self._shared.new_id()
        self.stream.write(stream_xml.header_xml(self._own, header.sender, self._id))
        if header.to != self._own:
            raise RemoteProtocolError(f"{header.to or 'nobody'} is not served here", code="host-unknown")
        if features is None:
            external = bool(header.sender) and self._is_certified(header.sender) and not self.proven
            features = StreamFeatures(external=external, dialback=not self.proven)
        self.stream.write(features.to_xml())
        await self.stream.drain()
        return header.sender

    def _is_certified(self, domain: str) -> bool:
        return stream_xml.certificate_covers(self.stream.certificate, domain)

    async def _authenticate(self, element: Element, claimed: str) -> str:
        domain = stream_xml.external_domain(element, claimed)
        if not domain or not self._is_certified(domain) or not await self._accept_domain(domain):
            self._shared.count("xmpp_s2s_refused", why="certificate")
            self.stream.write(f"<failure xmlns='{stream_xml.NS_SASL}'><not-authorized/></failure>")
            return claimed
        self._shared.count("xmpp_s2s_opened", direction="in", how="certificate")
        self.stream.write(f"<success xmlns='{stream_xml.NS_SASL}'/>")
        self.stream.restart_stream(StanzaLimits())
        return await self._begin_stream(None)

    async def _take_result(self, asked: DialbackElement) -> None:
        if asked.type:
            return  # we opened no stream
        if asked.to != self._own:
            self._answer_result(asked, "error", "item-not-found")
        elif self._is_certified(asked.sender):
            await self._prove_domain(asked, "certificate")
        elif (
            len(self._pending) >= _MAX_PENDING
            or len(self.proven) >= _MAX_PAIRS
            or not self._shared.take_verification(self.stream.address)
        ):
            self._shared.count("xmpp_s2s_refused", why="verifications")
            self._answer_result(asked, "error", "resource-constraint")
        else:
            task = asyncio.get_running_loop().create_task(self._verify_key(asked))
            self._pending.add(task)
            task.add_done_callback(partial(self._end_verification, self.stream.address))

    def _end_verification(self, address: str, task: asyncio.Task[None]) -> None:
        self._pending.discard(task)
        self._shared.end_verification(address)

    async def _verify_key(self, asked: DialbackElement) -> None:
        try:
            valid = await self._shared.connector.verify_key(asked.sender, self._id, asked.key)
        except Unreachable as error:
            self._answer_result(asked, "error", error.condition)
            return
        except Exception as error:  # noqa: BLE001  # other domains of the stream go on
            self._shared.told.exception(error, "the key of %s", asked.sender)
            self._answer_result(asked, "error", "internal-server-error")
            return
        if valid:
            await self._prove_domain(asked, "dialback")
        else:
            self._shared.count("xmpp_s2s_refused", why="dialback")
            self._answer_result(asked, "invalid")

    async def _prove_domain(self, asked: DialbackElement, how: str) -> None:
        if await self._accept_domain(asked.sender):
            self._shared.count("xmpp_s2s_opened", direction="in", how=how)
            self.stream.widen_limits(StanzaLimits())
            self._answer_result(asked, "valid")
        else:
            self._answer_result(asked, "error", "policy-violation")

    async def _accept_domain(self, domain: str) -> bool:
        """Lets a domain speak over this stream, if the policies do and it has not too many."""
        if domain in self.proven:
            return True
        if domain == self._own or len(self.proven) >= _MAX_PAIRS:
            return False
        if not await self._shared.is_allowed(domain):
            return False
        if domain in self.proven:  # by another key, meanwhile
            return True
        if not self._shared.take_place(domain):
            return False
        if not self.proven:
            self._shared.note_proven(self.stream.address)
        self.proven.add(domain)
        return True

    def _answer_result(self, asked: DialbackElement, type_: str, condition: str = "") -> None:
        said = stream_xml.result_xml(asked.to, asked.sender, type_=type_, condition=condition)
        self.stream.write(said)

    def _answer_verify(self, asked: DialbackElement) -> None:
        """Another server asks whether a key is ours."""
        if asked.type:
            return
        key = self._shared.settings.key_for(asked.sender, asked.to, asked.id)
        ours = asked.to == self._own
        valid = ours and stream_xml.same_key(key, asked.key)
        said = stream_xml.verify_xml(asked.to, asked.sender, asked.id, type_="valid" if valid else "invalid")
        self.stream.write(said)

    def _is_addressed(self, element: Element) -> bool:
        sender, to = element.get("from", ""), element.get("to", "")
        return stream_xml.domain_part(sender) in self.proven and stream_xml.domain_part(to) == self._own

    async def _take_stanza(self, element: Element) -> None:
        if not self._is_addressed(element):
            raise RemoteProtocolError("a stanza of addresses that are not proven", code="invalid-from")
        generation = self._shared.policy_generation
        if self._judged != generation:
            for domain in tuple(self.proven):  # a key may be confirmed meanwhile
                if not await self._shared.is_allowed(domain):
                    raise RemoteProtocolError("a policy denies this", code="policy-violation")
            self._judged = generation
        if not self._shared.outbound.take_confirmation(element):
            self._listener.on_stanza(element)

    def _on_oversized(self, excess: OversizedStanza) -> None:
        if not self._is_addressed(excess.element):
            raise RemoteProtocolError(excess.reason, code="policy-violation")
        self._listener.on_oversized(excess)
