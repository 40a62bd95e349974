"""Stanzas to other domains: one queue and one stream for each, and what has been confirmed.

A stanza that was written is kept until the other server has answered a ping that was sent behind it
(XEP-0199). It is written again when the stream breaks, and answered with an error when no other stream can be
had (RFC 6120 section 10.4). A repeated stanza has its ids, by which clients leave it out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from xml.etree.ElementTree import Element

from hansa import Backoff, LogLimit, NetworkContext

from hansa_xmpp.proto.stanza import local_name
from hansa_xmpp.s2s.connect import Connector, Unreachable
from hansa_xmpp.s2s.destination import MAX_BYTES, PING_PREFIX, Destination, error_for
from hansa_xmpp.s2s.stream import StreamClosed

#: Stanzas that one domain may keep waiting, and bytes of all together.
MAX_STANZAS, MAX_TOTAL = 20_000, 64 * 1024 * 1024
#: Domains that have a stream at one time. The one that was idle longest makes place for another.
MAX_STREAMS = 1_000
#: Bytes that wait, of all domains, at which senders wait.
_HIGH_WATER = MAX_TOTAL // 4
#: Seconds after which a domain that could not be reached is tried again, first and at most.
RETRY_S, MAX_RETRY_S = 5.0, 300.0
#: Seconds in which no stream works until stanzas come back: less than the fence waits. Between two streams.
GIVE_UP_S = 12.0
_AGAIN = Backoff(first=0.2, most=2.0)

#: What is told of a stanza that came back, as an element.
OnBounce = Callable[[Element], None]


class OutboundStreams:
    """All domains that something is sent to."""

    def __init__(self, ctx: NetworkContext, own: str, connector: Connector, bounce: OnBounce) -> None:
        self._ctx = ctx
        self._own = own
        self._connector = connector
        self.bounce = bounce
        self._destinations: dict[str, Destination] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        #: Bytes that no other server has confirmed, and whether they are few enough to go on.
        self._bytes = 0
        self._told = LogLimit(ctx.log)
        self.drained = asyncio.Event()
        self.drained.set()

    def add_waiting(self, count: int) -> None:
        """See ``DestinationHost.add_waiting``."""
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
            one = self._destinations[domain] = Destination(domain, self._own, self)
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
                asyncio.get_running_loop().call_soon(self.bounce, element)
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

    def new_name(self) -> str:
        """See ``DestinationHost.new_name``."""
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
