"""One other domain: the stanzas that wait for it, those that it has not confirmed, and its stream."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Protocol
from xml.etree.ElementTree import Element

from hansa_xmpp.proto.parse import StanzaLimits
from hansa_xmpp.proto.render import xml_element
from hansa_xmpp.proto.stanza import NS_PING, NS_STANZAS
from hansa_xmpp.proto.stream_xml import ERROR, NS_SERVER, parse_own, stream_condition
from hansa_xmpp.s2s.stream import StreamClosed, XmlStream

PING_PREFIX = "s2s-"
#: Bytes that one domain may keep waiting.
MAX_BYTES = 8 * 1024 * 1024
#: Bytes in flight after which a ping is sent without a request, and bytes of one write.
_UNCONFIRMED, _WRITTEN = 512 * 1024, 128 * 1024
#: Seconds for the answer to a ping, and without traffic until a stream is closed.
PING_S, IDLE_S = 8.0, 300.0
#: Our own stanzas are read again to answer them.
_OWN_LIMITS = StanzaLimits(stanza=4 * 1024 * 1024, token=1024 * 1024, elements=100_000)


@dataclass(frozen=True, slots=True)
class _Waiting:
    number: int
    text: str
    is_kept: bool


class DestinationHost(Protocol):
    """What all destinations share."""

    def bounce(self, element: Element) -> None:
        """Takes a stanza that came back, as an error."""
        ...

    def add_waiting(self, count: int) -> None:
        """So many more bytes wait, or fewer if it is negative."""
        ...

    def new_name(self) -> str:
        """A name that nobody can guess."""
        ...


class Destination:
    """One domain. Its task runs while there is something to send, or a stream is open."""

    def __init__(self, domain: str, own: str, host: DestinationHost) -> None:
        self.domain = domain
        self._own = own
        self._host = host
        self.queue: deque[_Waiting] = deque()
        self.unconfirmed: deque[_Waiting] = deque()
        self.bytes = 0
        self._last = self.confirmed = self._pinged = 0
        #: The id of the ping that is not answered, if there is one.
        self._ping_name = ""
        self._pinged_at = 0.0
        self._in_flight = 0
        self.wake = asyncio.Event()
        self._fences: list[tuple[int, asyncio.Future[None]]] = []
        self._wants_ping = False
        #: When it may be tried again, and how often it failed.
        self.closed_until, self.failures = 0.0, 0
        self.last_used = 0.0
        self._is_unwanted = False

    def add_stanza(self, text: str, *, is_kept: bool = True) -> None:
        """One more stanza. One that is not ``is_kept`` is done once it is written."""
        self._last += 1
        self.queue.append(_Waiting(self._last, text, is_kept))
        self._add_bytes(len(text))
        self.wake.set()

    def _add_bytes(self, count: int) -> None:
        self.bytes += count
        self._host.add_waiting(count)

    @property
    def is_idle(self) -> bool:
        """True if everything is confirmed."""
        return not self.queue and not self.unconfirmed

    def end_idle_stream(self) -> None:
        """Closes the stream, unless a stanza comes first."""
        self._is_unwanted = True
        self.wake.set()

    def request_fence(self) -> asyncio.Future[None]:
        """Done once everything put so far is confirmed, or has come back."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.is_idle:
            done.set_result(None)
            return done
        self._fences.append((self._last, done))
        self._wants_ping = True
        self.wake.set()
        return done

    def confirm_ping(self, name: str) -> None:
        """The other server has everything that went before this ping. An answer to a ping of an earlier
        stream says nothing about what goes over this one.
        """
        if name == self._ping_name and self.confirmed < self._pinged:
            self.failures = 0
            self._settle_upto(self._pinged)

    def _settle_upto(self, number: int) -> None:
        self.confirmed = number
        while self.unconfirmed and self.unconfirmed[0].number <= number:
            gone = self.unconfirmed.popleft()
            self._add_bytes(-len(gone.text))
            self._in_flight -= len(gone.text)
        left = []
        for wanted, done in self._fences:
            if wanted <= number:
                if not done.done():
                    done.set_result(None)
            else:
                left.append((wanted, done))
        self._fences = left
        self._wants_ping = self._wants_ping or bool(left)
        self.wake.set()

    def requeue_unconfirmed(self) -> None:
        """The stream broke: what is not confirmed goes first over the next one."""
        self.queue.extendleft(reversed(self.unconfirmed))
        self.unconfirmed.clear()
        self._in_flight = 0
        self._pinged, self._ping_name = self.confirmed, ""
        self._wants_ping = bool(self._fences)

    def bounce_all(self, condition: str, text: str) -> int:
        """Everything comes back to who sent it, as errors; returns how many stanzas."""
        lost = [*self.unconfirmed, *self.queue]
        self.unconfirmed.clear()
        self.queue.clear()
        self._add_bytes(-self.bytes)
        self._in_flight = 0
        self._settle_upto(self._last)
        for one in lost:
            element = error_for(one.text, condition, text)
            if element is not None:
                self._host.bounce(element)
        return len(lost)

    async def carry_stanzas(self, stream: XmlStream) -> None:
        """Sends over an open stream until it ends or has been idle. Raises ``StreamClosed``."""
        loop = asyncio.get_running_loop()
        reading = loop.create_task(_read_until_closed(stream), name=f"xmpp from {self.domain}")
        try:
            while True:
                self.wake.clear()
                unwanted, self._is_unwanted = self._is_unwanted, False
                if unwanted and self.is_idle:
                    return
                await self._write_some(stream)
                if self.queue and self._in_flight < MAX_BYTES:
                    continue
                pending = self.confirmed < self._pinged
                limit = self._pinged_at + PING_S - loop.time() if pending else IDLE_S
                waking = loop.create_task(self.wake.wait())
                try:
                    await asyncio.wait(
                        {waking, reading}, timeout=max(0.0, limit), return_when=asyncio.FIRST_COMPLETED
                    )
                finally:
                    waking.cancel()
                if reading.done():
                    raise StreamClosed(reading.result())
                if self.confirmed < self._pinged and loop.time() >= self._pinged_at + PING_S:
                    raise StreamClosed(f"{self.domain} has not answered for {PING_S:g} s")
                if not self.wake.is_set() and not pending:
                    if self.is_idle:
                        return
                    self._wants_ping = True
        finally:
            reading.cancel()

    async def _write_some(self, stream: XmlStream) -> None:
        parts, size = list[str](), 0
        while self.queue and size < _WRITTEN and self._in_flight < MAX_BYTES:
            one = self.queue.popleft()
            parts.append(one.text)
            size += len(one.text)
            if one.is_kept:
                self.unconfirmed.append(one)
                self._in_flight += len(one.text)
            else:
                self._add_bytes(-len(one.text))
        if self.is_idle and self.confirmed < self._last:
            self._settle_upto(self._last)
        asked = self._wants_ping and not self.queue
        if self.unconfirmed and self._pinged <= self.confirmed and (asked or self._in_flight > _UNCONFIRMED):
            self._pinged, self._wants_ping = self.unconfirmed[-1].number, False
            self._pinged_at = asyncio.get_running_loop().time()
            ping = xml_element("ping", NS_PING)
            self._ping_name = PING_PREFIX + self._host.new_name()
            attributes = {"from": self._own, "to": self.domain, "type": "get", "id": self._ping_name}
            parts.append(xml_element("iq", "", ping, **attributes))
        if parts:
            stream.write("".join(parts))
            await stream.drain()


async def _read_until_closed(stream: XmlStream) -> str:
    """Nothing but its end and errors come over a stream that we opened."""
    try:
        while True:
            element = await stream.read_element()
            if element.tag == ERROR:
                return f"the other server says {stream_condition(element)}"
    except Exception as error:  # noqa: BLE001  # whatever came, nothing more goes over the stream
        return str(error)


def error_for(text: str, condition: str, why: str) -> Element | None:
    """The error with which a stanza comes back; None for one that has no answer: an error or a result."""
    sent = next(iter(parse_own(text, _OWN_LIMITS)), None)
    if sent is None or sent.get("type") in {"error", "result"}:
        return None
    answer = Element(sent.tag, {"type": "error", "from": sent.get("to", ""), "to": sent.get("from", "")})
    if sent.get("id"):
        answer.set("id", sent.get("id", ""))
    error = Element(f"{{{NS_SERVER}}}error", {"type": "cancel" if condition.endswith("found") else "wait"})
    error.append(Element(f"{{{NS_STANZAS}}}{condition}"))
    said = Element(f"{{{NS_STANZAS}}}text")
    said.text = why
    error.append(said)
    answer.append(error)
    return answer
