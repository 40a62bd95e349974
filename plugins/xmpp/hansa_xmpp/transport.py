"""The seam between the MUC service and what carries its stanzas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol
from xml.etree.ElementTree import Element

from hansa import HansaError

from hansa_xmpp.proto.parse import OversizedStanza
from hansa_xmpp.proto.render import OutboundStanza


class NotConnected(HansaError):  # an answer, not a fault
    """Nothing can be sent now."""


class StanzaListener(Protocol):
    """Receives the events of a stream. None of these methods may raise, or wait."""

    def on_stanza(self, element: Element) -> None:
        """A message, presence or iq of the stream's own namespace."""
        ...

    def on_unknown(self, element: Element) -> None:
        """An element that is not a stanza (RFC 6120 section 4.9.3.24) arrived; the link goes on."""
        ...

    def on_oversized(self, excess: OversizedStanza) -> None:
        """A stanza over the bounds, without its content."""
        ...

    def on_state(self, up: bool, text: str) -> None:
        """The link came up, or went down because of ``text``."""
        ...


class Transport(Protocol):
    """Carries stanzas from and to one domain."""

    async def run(self, listener: StanzaListener) -> None:
        """Keep the link up until cancelled."""
        ...

    async def stop(self) -> None:
        """Closes the link; earlier stanzas still go out."""
        ...

    def send(self, stanzas: Iterable[OutboundStanza]) -> None:
        """Send, in order. Raises ``NotConnected`` where there is no link, and LocalProtocolError for a sender
        that is not of our domain: one such stanza would end the link for everybody.
        """
        ...

    def end_connection(self, reason: str) -> None:
        """End a connection that carries nothing any more; another one is made."""
        ...

    async def wait_drained(self) -> None:
        """Wait until what was sent is mostly written, or the link is down."""
        ...
