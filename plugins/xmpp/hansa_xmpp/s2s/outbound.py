"""Stanzas to other domains: one queue and one stream for each, and what has been confirmed.

A stanza that was written is kept until the other server has answered a ping that was sent behind it
(XEP-0199). It is written again when the stream breaks, and answered with an error when no other stream can be
had (RFC 6120 section 10.4). A repeated stanza has its ids, by which clients leave it out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from xml.etree.ElementTree import Element

from hansa import Backoff, LogLimit, NetworkContext

from hansa_xmpp.proto.parse import BoundedParser, StanzaLimits
from hansa_xmpp.proto.render import xml_element
from hansa_xmpp.proto.stanza import NS_PING, NS_STANZAS, local_name
from hansa_xmpp.proto.stream_xml import ERROR, NS_SERVER, NS_STREAMS, stream_condition
from hansa_xmpp.s2s.connect import Connector, Unreachable
from hansa_xmpp.s2s.stream import StreamClosed, XmlStream

PING_PREFIX = "s2s-"
#: Stanzas and bytes that one domain may keep waiting, and all together.
MAX_STANZAS, MAX_BYTES, MAX_TOTAL = 20_000, 8 * 1024 * 1024, 64 * 1024 * 1024
#: Domains that have a stream at one time. The one that was idle longest makes place for another.
MAX_STREAMS = 1_000
#: Bytes that wait, of all domains, at which senders wait.
_HIGH_WATER = MAX_TOTAL // 4
#: Bytes in flight after which a ping is sent without a request, and bytes of one write.
_UNCONFIRMED, _WRITTEN = 512 * 1024, 128 * 1024
#: Seconds for the answer to a ping; without traffic until a stream is closed; after which a domain that could
#: not be reached is tried again, first and at most.
PING_S, IDLE_S, RETRY_S, MAX_RETRY_S = 8.0, 300.0, 5.0, 300.0
#: Seconds in which no stream works until stanzas come back: less than the fence waits. Between two streams.
GIVE_UP_S = 12.0
_AGAIN = Backoff(first=0.2, most=2.0)

#: Our own stanzas are read again to answer them.
_OWN_LIMITS = StanzaLimits(stanza=4 * 1024 * 1024, token=1024 * 1024, elements=100_000)

#: What is told of a stanza that came back, as an element.
OnBounce = Callable[[Element], None]


@dataclass(frozen=True, slots=True)
class _Waiting:
    number: int
    text: str
    is_kept: bool


class Destination:
    """One domain. Its task runs while there is something to send, or a stream is open."""

    def __init__(
        self,
        domain: str,
        own: str,
        bounce: OnBounce,
        account: Callable[[int], None],
        new_name: Callable[[], str],
    ) -> None:
        self.domain = domain
        self._own = own
        self._new_name = new_name
        self._bounce = bounce
        self._add_waiting = account
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
        self._add_waiting(count)

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
                self._bounce(element)
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
            self._ping_name = PING_PREFIX + self._new_name()
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
    parser = BoundedParser(_OWN_LIMITS, _drop_excess)
    parser.feed(f"<stream:stream xmlns='{NS_SERVER}' xmlns:stream='{NS_STREAMS}'>{text}".encode())
    sent = next((element for kind, element in parser.read_events() if kind == "end"), None)
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


def _drop_excess(_: object) -> None:
    return None


class OutboundStreams:
    """All domains that something is sent to."""

    def __init__(self, ctx: NetworkContext, own: str, connector: Connector, bounce: OnBounce) -> None:
        self._ctx = ctx
        self._own = own
        self._connector = connector
        self._bounce = bounce
        self._destinations: dict[str, Destination] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        #: Bytes that no other server has confirmed, and whether they are few enough to go on.
        self._bytes = 0
        self._told = LogLimit(ctx.log)
        self.drained = asyncio.Event()
        self.drained.set()

    def _add_waiting(self, count: int) -> None:
        self._bytes += count
        if self._bytes > _HIGH_WATER:
            self.drained.clear()
        else:
            self.drained.set()

    def send(self, domain: str, text: str, *, is_kept: bool = True) -> None:
        """Sends a stanza, at some time. It comes back as an error where that cannot be. One that is not
        ``is_kept`` waits for no confirmation: were answers to pings confirmed, each would lead to a ping.
        """
        one = self._destinations.get(domain)
        if one is None:
            one = self._destinations[domain] = Destination(
                domain, self._own, self._bounce, self._add_waiting, self._new_name
            )
        now = self._ctx.clock.monotonic()
        one.last_used = now
        full = len(one.queue) >= MAX_STANZAS or one.bytes >= MAX_BYTES or self._bytes >= MAX_TOTAL
        if now >= one.closed_until and domain not in self._running and len(self._running) >= MAX_STREAMS:
            full = full or not self._end_idlest()
        if full or now < one.closed_until:
            condition = "resource-constraint" if full else "remote-server-timeout"
            why = "too much waits for this server" if full else "this server could not be reached just now"
            self._ctx.count("xmpp_s2s_bounced", why="full" if full else "unreachable")
            element = error_for(text, condition, why)
            if element is not None:
                asyncio.get_running_loop().call_soon(self._bounce, element)
            return
        one.add_stanza(text, is_kept=is_kept)
        if domain not in self._running:
            self._start(one)

    def _end_idlest(self) -> bool:
        """Makes place for one more stream, soon. False if every domain has stanzas that wait."""
        idle = [self._destinations[name] for name in self._running if self._destinations[name].is_idle]
        if idle:
            min(idle, key=lambda one: one.last_used).end_idle_stream()
        return bool(idle)

    def _start(self, one: Destination) -> None:
        task = self._ctx.spawn(partial(self._run, one), f"xmpp to {one.domain}")
        self._running[one.domain] = task
        task.add_done_callback(partial(self._on_ended, one))

    def _on_ended(self, one: Destination, task: asyncio.Task[None]) -> None:
        self._running.pop(one.domain, None)
        if not one.is_idle and not task.cancelled() and task.exception() is None:
            self._start(one)  # a stanza came after its last look
        self._forget_idle()

    def _forget_idle(self) -> None:
        now = self._ctx.clock.monotonic()
        for name, one in list(self._destinations.items()):
            if name not in self._running and one.is_idle and one.closed_until <= now:
                del self._destinations[name]

    def _new_name(self) -> str:
        return self._ctx.random.bytes(9).hex()

    def take_confirmation(self, element: Element) -> bool:
        """Takes the answer to one of our pings; False for anything else."""
        name = element.get("id", "")
        if local_name(element.tag) != "iq" or not name.startswith(PING_PREFIX):
            return False
        if element.get("type") not in {"result", "error"} or element.get("to") != self._own:
            return False
        one = self._destinations.get(element.get("from", ""))
        if one is not None:
            one.confirm_ping(name)
        return True

    async def confirm_all(self, within: float) -> None:
        """Waits until everything sent so far is confirmed or has come back. After ``within`` seconds, what is
        not confirmed comes back: its server is as good as away.
        """
        busy = {domain: one for domain, one in self._destinations.items() if not one.is_idle}
        fences = {domain: one.request_fence() for domain, one in busy.items()}
        if not fences:
            return
        await asyncio.wait(fences.values(), timeout=within)
        for domain, fence in fences.items():
            if not fence.done():
                one = busy[domain]
                self._give_up(one, "remote-server-timeout", f"{domain} does not answer")
                task = self._running.get(domain)
                if task is not None:
                    task.cancel()

    def _give_up(self, one: Destination, condition: str, why: str) -> None:
        one.failures += 1
        delay = min(MAX_RETRY_S, RETRY_S * 2 ** (one.failures - 1))
        one.closed_until = self._ctx.clock.monotonic() + delay
        count = one.bounce_all(condition, why)
        self._ctx.count("xmpp_s2s_failed", why=condition)
        self._ctx.log.info("%s: %s; %d stanzas come back", one.domain, why, count)

    async def _run(self, one: Destination) -> None:
        failures, failing_since = 0, self._ctx.clock.monotonic()
        while not one.is_idle:
            if failures:
                self._ctx.count("xmpp_s2s_retried")
                await asyncio.sleep(_AGAIN.delay(failures, self._ctx.random.uniform()))
            else:
                failing_since = self._ctx.clock.monotonic()
            try:
                stream, how = await self._connector.open_stream(one.domain)
            except Unreachable as error:
                failures += 1
                late = self._ctx.clock.monotonic() - failing_since >= GIVE_UP_S
                if late or error.condition != "remote-server-timeout":
                    self._give_up(one, error.condition, str(error))
                    return
                continue
            except Exception as error:  # noqa: BLE001  # one domain's fault must not stop the network
                self._told.exception(error, "no stream to %s", one.domain)
                self._give_up(one, "remote-server-timeout", "internal error")
                return
            self._ctx.count("xmpp_s2s_opened", direction="out", how=how)
            confirmed = one.confirmed
            try:
                await one.carry_stanzas(stream)
                stream.close()
                return
            except StreamClosed as error:
                self._ctx.log.info("the stream to %s ended: %s", one.domain, error)
                stream.abort()
                one.requeue_unconfirmed()
                now = self._ctx.clock.monotonic()
                if one.confirmed > confirmed or not failures:  # it worked for a while
                    failing_since = now
                failures = 1 if one.confirmed > confirmed else failures + 1
                if now - failing_since >= GIVE_UP_S and not one.is_idle:
                    self._give_up(one, "remote-server-timeout", str(error))
                    return
            except Exception as error:  # noqa: BLE001  # as above
                self._told.exception(error, "the stream to %s", one.domain)
                stream.abort()
                self._give_up(one, "remote-server-timeout", "internal error")
                return
            except BaseException:
                stream.abort()
                one.requeue_unconfirmed()
                raise

    async def flush_queues(self, within: float) -> None:
        """Waits until what was put is confirmed, for ``within`` seconds at most."""
        fences = [one.request_fence() for one in self._destinations.values() if not one.is_idle]
        if fences:
            await asyncio.wait(fences, timeout=within)
