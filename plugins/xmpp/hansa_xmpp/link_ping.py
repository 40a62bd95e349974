"""Pings of the component to itself: what the server has processed, and whether the link still works.

A server processes what one stream sends in order, so a ping comes back after everything that was sent before
it. SPEC: XEP-0199 section 4.4 (component to server); RFC 6120 section 10.1 (in-order processing).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from xml.etree.ElementTree import Element

from hansa import NetworkContext

from hansa_xmpp.proto import render
from hansa_xmpp.proto.render import OutboundStanza, xml_element
from hansa_xmpp.proto.stanza import NS_PING, local_name

#: Seconds between two pings while nothing is to be confirmed, and the shortest time between any two.
PING_EVERY_S, _PAUSE_S = 10.0, 0.05
#: Seconds after which a link without an answer is ended: with the above, a dead link is known within 30 s.
ANSWER_TIMEOUT_S = 20.0
_PREFIX = "link-"


class LinkPing:
    """The pings of one component. ``end`` ends its connection for a reason; ``connection`` is the number of
    the present one.
    """

    def __init__(
        self,
        ctx: NetworkContext,
        send: Callable[[Iterable[OutboundStanza]], None],
        end: Callable[[str], None],
    ) -> None:
        self._ctx = ctx
        self._send = send
        self._end = end
        self.connection = 0
        #: The ``seq`` up to which each room was sent the log over this connection.
        self._sent: dict[str, int] = {}
        self._rooms: set[str] = set()
        self._wake = asyncio.Event()
        self._up = False
        #: The id of the ping under way, and its answer: False if the link went down.
        self._waiting: tuple[str, asyncio.Future[bool]] | None = None

    def on_sent(self, native: str, seq: int, connection: int) -> None:
        """A room was sent the log up to ``seq``; ``connection`` is the number from before it was sent."""
        if connection == self.connection and self._up:
            self._sent[native] = seq

    def request(self, native: str) -> None:
        """Confirm what a room was sent, with the next ping."""
        self._rooms.add(native)
        self._wake.set()

    def on_link_state(self, up: bool) -> None:
        """The link came up or went down. What the old one carried is not confirmed any more."""
        self._up = up
        self.connection += 1
        self._rooms.clear()
        self._sent.clear()
        if self._waiting is not None and not self._waiting[1].done():
            self._waiting[1].set_result(False)

    def answered(self, element: Element) -> bool:
        """Takes a ping that came back, as it is or as an answer; False for anything else."""
        if element.get("from") != self._ctx.config.component or local_name(element.tag) != "iq":
            return False
        name = element.get("id", "")
        if not name.startswith(_PREFIX):
            return False
        if self._waiting is not None and self._waiting[0] == name and not self._waiting[1].done():
            self._waiting[1].set_result(True)
        return True

    async def run(self) -> None:
        """Ping while the link is up, one ping at a time."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(PING_EVERY_S):
                    await self._wake.wait()
            self._wake.clear()
            if self._up:
                await self._ping()
                await asyncio.sleep(_PAUSE_S)

    async def _ping(self) -> None:
        reached = {native: self._sent[native] for native in self._rooms if native in self._sent}
        self._rooms.clear()
        component, name = self._ctx.config.component, _PREFIX + self._ctx.random.bytes(9).hex()
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting = (name, future)
        ping = xml_element("ping", NS_PING)
        self._send([render.stanza("iq", component, [component], ping, type_="get", id_=name)])
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                alive = await future
        except TimeoutError:
            self._ctx.count("xmpp_link_dead")
            self._end(f"the XMPP server has not answered for {ANSWER_TIMEOUT_S:.0f} s")
            return
        finally:
            self._waiting = None
        if alive:
            for native, seq in reached.items():
                self._ctx.confirm_sent(native, seq)
