"""What a link was sent and its peer has not confirmed (ADR 25).

A network that ``Confirms`` hands events over before its peer has them. The consumer sends on, and comes back
to what is confirmed once the connection that carried the rest has ended. Without ``Confirms`` what was sent
counts as confirmed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from hansa.api.contracts import Confirms
from hansa.environment import Clock
from hansa.model.events import Link

#: Events of the log that a link may be ahead of its peer's confirmation.
MAX_AHEAD = 500
#: Events after which a confirmation is requested at once.
_REQUEST_AFTER = MAX_AHEAD // 2
#: Seconds between two requests while something was sent since the last one, and while nothing was.
_REQUEST_EVERY_S, _REQUEST_AGAIN_S = 0.1, 1.0


class ConfirmingGate(Protocol):
    """A network as its confirmations need it."""

    @property
    def confirms(self) -> Confirms | None:
        """The open network, if its peer confirms what it was sent."""
        ...

    @property
    def breaks(self) -> int:
        """How often a connection of the network has ended."""
        ...


class SentAhead:
    """The confirmed position of a link. All positions are ``seq`` of the room's log."""

    def __init__(self, link: Link, gate: ConfirmingGate, clock: Clock) -> None:
        self.confirmed = 0
        self._link = link
        self._gate = gate
        self._clock = clock
        self._last_sent = 0
        #: The position at the last request, and when that was.
        self._requested, self._requested_at = 0, float("-inf")
        #: The number of ended connections when the first event was sent that is not confirmed.
        self._breaks = 0
        self._all = asyncio.Event()
        self._all.set()
        self._log = logging.getLogger("hansa.bus.delivery")

    def reset(self, position: int) -> None:
        """Begin at a position, with nothing sent after it."""
        self.confirmed = self._last_sent = self._requested = position
        self._all.set()

    @property
    def outstanding(self) -> bool:
        """True if something was sent that is not confirmed."""
        return self._last_sent > self.confirmed

    def is_full(self, position: int) -> bool:
        """True if nothing more may be sent before a confirmation."""
        return self.outstanding and position - self.confirmed >= MAX_AHEAD

    def is_broken(self) -> bool:
        """True if the connection has ended that carried what is not confirmed."""
        return self._gate.breaks != self._breaks and self.outstanding

    def begin_send(self) -> None:
        """Something is about to be sent."""
        if not self.outstanding:
            self._breaks = self._gate.breaks

    def on_sent(self, seq: int) -> None:
        """An event, or a part of it, was handed over."""
        if self._gate.confirms is not None:
            self._last_sent = seq
            self._all.clear()

    def on_position(self, position: int) -> None:
        """Everything up to a position was sent, or is not for this link."""
        if not self.outstanding:
            self.confirmed = position

    def confirm(self, seq: int, position: int) -> None:
        """The peer has all that was sent up to ``seq``; ``position`` is how far the consumer is."""
        whole = seq >= self._last_sent and position >= self._last_sent
        self.confirmed = max(self.confirmed, position if whole else min(seq, position))
        if not self.outstanding:
            self._all.set()

    def request_due(self, position: int) -> float | None:
        """Request a confirmation if it is time for it. Returns the seconds until the next request, None if
        there is nothing to confirm.
        """
        if not self.outstanding or self._gate.confirms is None:
            return None
        now = self._clock.monotonic()
        every = _REQUEST_EVERY_S if self._last_sent > self._requested else _REQUEST_AGAIN_S
        left = self._requested_at + every - now
        if left > 0 and position - self._requested < _REQUEST_AFTER:
            return left
        self._request(position, now)
        return _REQUEST_AGAIN_S

    def _request(self, position: int, now: float) -> None:
        self._requested, self._requested_at = position, now
        confirms = self._gate.confirms
        if confirms is None:
            return
        try:
            confirms.request_confirmation(self._link)
        except Exception as error:  # noqa: BLE001  # a network's fault: it is requested again
            text = f"{type(error).__name__}: {error}"
            self._log.warning("%s: no confirmation could be requested: %s", self._link.id, text)

    async def wait_all(self, position: int) -> None:
        """Wait until everything is confirmed; returns at once where that cannot be."""
        if self.outstanding and self._gate.confirms is not None and not self.is_broken():
            self._request(position, self._clock.monotonic())
            await self._all.wait()
