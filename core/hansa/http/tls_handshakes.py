"""TLS handshakes: how many an address and its networks may begin, and how many a round of the loop makes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from hansa.model.addresses import networks
from hansa.pacing.token_buckets import TokenBucket

#: Networks whose allowance is remembered; beyond, those that are not share one.
_REMEMBERED = 10_000
#: Seconds between two looks for those that need not be remembered any more.
_FORGET_EVERY = 0.05
#: The first and the longest wait, in seconds, for the rest of a hello.
_LOOK_AGAIN, _LOOK_SELDOM = 0.02, 0.5
#: The head of a TLS record, the longest one, and the type of those of a handshake (RFC 8446, 5.1).
_RECORD_HEAD, _LONGEST_RECORD, _HANDSHAKE = 5, 16_384 + 256, 22


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeLimits:
    """Handshakes begun a second, and at once before that: by one address, and by one network (IPv4 /24,
    IPv6 /64). An IPv6 /48 may begin twice as many as a /64, a /32 four times as many.
    """

    rate: float = 32.0
    burst: float = 512.0
    group_rate: float = 64.0
    group_burst: float = 1024.0


class HandshakeRates:
    """The handshakes that each address and network has left. An entry is forgotten once it is full again, and
    never to make room for another: many addresses at once do not get around the limit.
    """

    def __init__(self, limits: HandshakeLimits, time: Callable[[], float]) -> None:
        self._limits = limits
        self._time = time
        self._buckets: dict[str, TokenBucket] = {}
        self._forgot = -_FORGET_EVERY

    def __len__(self) -> int:
        return len(self._buckets)

    def begin(self, address: str) -> bool:
        """True if an address may begin one more handshake. Nothing is taken if it may not."""
        limits, now = self._limits, self._time()
        asked = [
            (network, limits.group_rate * (1 << wider), limits.group_burst * (1 << wider))
            for wider, network in enumerate(networks(address))
        ]
        asked.insert(0, (address, limits.rate, limits.burst))
        taken = []
        for name, rate, burst in reversed(asked):
            bucket = self._get_bucket(name, rate, burst, now)
            if bucket.wait():
                return False
            taken.append(bucket)
        for bucket in taken:
            bucket.take()
        return True

    def _get_bucket(self, name: str, rate: float, burst: float, now: float) -> TokenBucket:
        bucket = self._buckets.get(name)
        if bucket is None and len(self._buckets) >= _REMEMBERED:
            limits = self._limits
            self._forget_full(now)
            if len(self._buckets) >= _REMEMBERED:
                name, rate, burst = "", limits.group_rate, limits.group_burst
                bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = TokenBucket(rate, burst, now)
        else:
            bucket.refill(now)
        return bucket

    def _forget_full(self, now: float) -> None:
        """Those that are full again say nothing. To look through all of them takes a millisecond."""
        if now - self._forgot < _FORGET_EVERY:
            return
        self._forgot = now
        self._buckets = {name: one for name, one in self._buckets.items() if _is_used(one, now)}


def _is_used(bucket: TokenBucket, now: float) -> bool:
    """True if a part of a bucket is used, or is about to be."""
    return bucket.at == now or bucket.left + (now - bucket.at) * bucket.rate < bucket.burst


class HandshakeTurns:
    """One for each round of the loop: the key exchange and the signature of a handshake take about a
    millisecond, and as many as arrive together would be made in one round. Networks take turns.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._taken = False

    async def mine(self, group: str) -> None:
        """Wait for a turn."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._next_turn)
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(group, deque()).append(turn)
        await turn

    def _next_turn(self) -> None:
        self._taken = False
        while self._waiting:
            group, queue = self._waiting.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._waiting[group] = queue
            if not turn.done():
                turn.set_result(None)
                self._taken = True
                # A released connection reads its hello in the round after this one.
                asyncio.get_running_loop().call_soon(self._next_turn)
                return


async def hello_received(accepted: socket.socket) -> None:
    """Wait until the first record of a client is there as a whole, so that nothing is made for who only
    connects, and the work of a hello is done when it is its turn. Raises ConnectionError.
    """
    loop = asyncio.get_running_loop()
    wait = _LOOK_AGAIN
    while True:
        try:
            seen = accepted.recv(_RECORD_HEAD + _LONGEST_RECORD, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            await _wait_readable(loop, accepted)
            continue
        if not seen:
            raise ConnectionResetError("closed before it sent anything")
        if seen[0] != _HANDSHAKE:
            return  # no TLS: the handshake fails at once
        if len(seen) >= _RECORD_HEAD:
            length = int.from_bytes(seen[3:5], "big")
            if length > _LONGEST_RECORD or len(seen) >= _RECORD_HEAD + length:
                return
        await asyncio.sleep(wait)
        wait = min(wait * 2, _LOOK_SELDOM)


async def _wait_readable(loop: asyncio.AbstractEventLoop, accepted: socket.socket) -> None:
    ready: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(accepted, tell)
    try:
        await ready
    finally:
        with contextlib.suppress(OSError, ValueError):
            loop.remove_reader(accepted)
