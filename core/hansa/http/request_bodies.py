"""Bodies of requests: how many bytes of them are held per sender, and how fast they must arrive."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import cast

from aiohttp import HttpVersion11, web

from hansa.environment import Admitted
from hansa.http.connection import Connection
from hansa.http.router import BodyTooLarge, Route
from hansa.model.addresses import network_share
from hansa.model.errors import Busy, RemoteProtocolError

MIB = 1024 * 1024
#: A body has to come at ``_LEAST_SPEED`` (bytes a second) once ``_GRACE`` seconds were waited for it.
_LEAST_SPEED, _GRACE = 1024, 10.0
#: Seconds for a body that is held, and for one that is taken as it comes.
_BODY_TIMEOUT_S, _STREAM_TIMEOUT_S = 30.0, 3600.0
#: The charge for a body that has begun before it is decided to read it.
_AHEAD = 64 * 1024
#: Seconds after which a sender whose share is used up may ask again.
_AFTER = 2.0

#: The shares that bytes count against: their kinds, and their owners.
_Charges = tuple[tuple[str, str], ...]
_ALL = ("all", "")
#: The suffixes of a group's share for the ``networks`` of an address, the narrowest first.
_AROUND = ("", " site", " block")


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """Bytes of bodies that are held at a time: in all, for those whose requests prove who they are not yet,
    for strangers, and for one of each: a proven peer, a group of addresses (IPv4 /24, IPv6 /64). An IPv6
    /48 has twice the share of a /64, a /32 four times as much, and neither more than half of the pool.
    ``ahead`` is for what comes while it is decided whether anything is read.
    """

    total: int = 128 * MIB
    unproven: int = 64 * MIB
    strangers: int = 16 * MIB
    per_share: int = 16 * MIB
    per_group: int = 16 * MIB
    per_stranger_group: int = 4 * MIB
    ahead: int = 32 * MIB
    ahead_per_group: int = 4 * MIB

    @classmethod
    def of(cls, total: int) -> BodyLimits:
        """The shares of so many bytes; a stranger may always send one transaction."""
        eighth = total // 8
        return cls(
            total=total,
            unproven=total // 2,
            strangers=eighth,
            per_share=eighth,
            per_group=eighth,
            per_stranger_group=max(4 * MIB, total // 32),
            ahead=total // 4,
            ahead_per_group=max(4 * MIB, total // 32),
        )


def _around(kind: str, share: int, pool: int) -> dict[str, int]:
    """The bytes of a group's share, and of those of the wider networks around it."""
    return {kind + around: network_share(share, wider, pool) for wider, around in enumerate(_AROUND)}


def _make_charges(kind: str, around: tuple[str, ...]) -> _Charges:
    """Returns the budgets of the ``networks`` of an address."""
    return tuple((kind + suffix, network) for suffix, network in zip(_AROUND, around, strict=False))


class BodyBudget:
    """The held bytes, by sender. No request waits for space: it may take long, and a waiting request keeps
    the bytes that it has.
    """

    def __init__(self, limits: BodyLimits, count: Callable[..., None]) -> None:
        self._limits = {
            "all": limits.total,
            "unproven": limits.unproven,
            "strangers": limits.strangers,
            "share": limits.per_share,
            "ahead": limits.ahead,
            **_around("group", limits.per_group, limits.unproven),
            **_around("stranger group", limits.per_stranger_group, limits.strangers),
            **_around("ahead group", limits.ahead_per_group, limits.ahead),
        }
        self._held: Counter[tuple[str, str]] = Counter()
        self._count = count

    def measures(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Gauges: bytes held in all, of those who have proven nothing, and ahead of a decision."""
        for pool in ("all", "unproven", "strangers", "ahead"):
            yield "http_body_bytes", {"pool": pool}, self._held[pool, ""]

    def take(self, charges: _Charges, size: int) -> None:
        """Raises ``Busy`` and takes nothing where that would be over a limit."""
        for kind, who in charges:
            if self._held[kind, who] + size > self._limits[kind]:
                self._count("http_bodies_refused", share=kind.replace(" ", "_"))
                raise Busy("too much is being sent at once", after=_AFTER)
        for charge in charges:
            self._held[charge] += size

    def give_back(self, charges: _Charges, size: int) -> None:
        """Gives back the bytes that were taken."""
        for charge in charges:
            self._held[charge] -= size
            if not self._held[charge]:
                del self._held[charge]


def charges(admitted: Admitted | None, around: tuple[str, ...]) -> _Charges:
    """Returns the budgets that the body of a request counts against; ``around`` are the ``networks`` of its
    sender.
    """
    if admitted is not None and admitted.share and admitted.proven:
        return _ALL, ("share", admitted.share)
    known = (_ALL, ("unproven", ""), *_make_charges("group", around))
    if admitted is not None and admitted.share:
        return known
    return (*known, ("strangers", ""), *_make_charges("stranger group", around))


class Body:
    """The body of one request. While its route decides, what came ahead has a share of its own: nobody of the
    neighbourhood whose body is being read keeps another from being known.
    """

    def __init__(self, raw: web.BaseRequest, budget: BodyBudget, around: tuple[str, ...]) -> None:
        self._raw = raw
        self._connection = cast("Connection", raw.protocol)
        self._budget = budget
        self._around = around
        self._charges: _Charges = ()
        self._taken = 0

    def routed(self, route: Route) -> None:
        """Charges the bytes that arrived ahead of the decision, before anything else is done. Raises
        ``Busy``.
        """
        self._connection.routed(route)
        if route.admit is not None:
            self._charges = (("ahead", ""), *_make_charges("ahead group", self._around))
        else:
            self._charges = charges(None, self._around)
        length = self._raw.content_length
        self._charge_bytes(
            max(self._raw.content.total_bytes, _AHEAD if length is None else min(length, _AHEAD))
        )

    def _charge_bytes(self, size: int) -> None:
        self._budget.take(self._charges, size)
        self._taken += size

    def admitted(self, admitted: Admitted) -> None:
        """From here on it counts as whose it is. Raises ``Busy``."""
        taken = self._taken
        self.release()
        self._charges = charges(admitted, self._around)
        self._charge_bytes(taken)

    def release(self) -> None:
        """Nothing of it is held any more."""
        self._budget.give_back(self._charges, self._taken)
        self._taken = 0

    async def whole(self, limit: int) -> bytes | None:
        """All of it; None if it is over ``limit``. Raises ``Busy``, TimeoutError, RemoteProtocolError."""
        if (self._raw.content_length or 0) > limit:
            return None
        content = self._raw.content
        if content.is_eof():  # all of it came with the head
            part = content.read_nowait()
            if len(part) > self._taken:
                self._charge_bytes(len(part) - self._taken)
            self._require_connected()
            return part if len(part) <= limit else None
        parts, size = [], 0
        async for part in self._read_parts(_BODY_TIMEOUT_S):
            size += len(part)
            if size > limit:
                return None
            if size > self._taken:
                self._charge_bytes(max(size - self._taken, min(_AHEAD, limit - self._taken)))
            parts.append(part)
        return b"".join(parts) if len(parts) != 1 else parts[0]

    async def chunks(self, limit: int) -> AsyncIterator[bytes]:
        """As it comes. Raises ``BodyTooLarge``, TimeoutError, RemoteProtocolError."""
        if (self._raw.content_length or 0) > limit:
            raise BodyTooLarge(f"the body is over {limit} bytes")
        size = 0
        async for part in self._read_parts(_STREAM_TIMEOUT_S):
            size += len(part)
            if size > limit:
                raise BodyTooLarge(f"the body is over {limit} bytes")
            yield part

    async def _read_parts(self, within: float) -> AsyncIterator[bytes]:
        """Yields the parts of the body as long as they arrive fast enough. Only the time of waiting for the
        peer counts.
        """
        size, waited = 0, 0.0
        time = asyncio.get_running_loop().time
        content = self._raw.content
        self._ask_for_it()
        while not content.at_eof():
            begun = time()
            slowest = _GRACE + size / _LEAST_SPEED
            async with asyncio.timeout_at(begun + min(slowest, within) - waited):
                part = await content.readany()
            waited += time() - begun
            size += len(part)
            if part:
                yield part
        self._require_connected()

    def _ask_for_it(self) -> None:
        """Sends 100 Continue to a peer that waits for it, once the body is read (RFC 9110, section
        10.1.1).
        """
        raw = self._raw
        waits = raw.headers.get("Expect", "").strip().lower() == "100-continue"
        if (
            waits
            and raw.version >= HttpVersion11
            and not raw.content.total_bytes
            and raw.transport is not None
        ):
            raw.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _require_connected(self) -> None:
        if self._connection.broken:
            raise RemoteProtocolError("the body is not HTTP as it has to be", code="M_UNKNOWN")
