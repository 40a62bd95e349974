"""Requests to one server for the events that others depend on, within limits: a server that answers slowly,
or too much, delays neither other rooms nor other servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from hansa import NetworkContext

from hansa_matrix.federation.client import FederationClient, ServerUnreachable

#: Errands to one server at a time, of all rooms together.
_MAX_PER_SERVER = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """The limits of one fetch. Events that it got before a limit are kept, and the next fetch continues from
    there.
    """

    seconds: float = 300.0
    requests: int = 500
    #: Events in all answers together.
    events: int = 100_000


class BoundedFetch:
    """Requests to one server for one room. Each raises ``ServerUnreachable`` once the bounds are reached,
    and as ``FederationClient.request`` does.
    """

    def __init__(
        self, ctx: NetworkContext, client: FederationClient, server: str, bounds: FetchLimits
    ) -> None:
        self.server = server
        self._ctx = ctx
        self._client = client
        self._bounds = bounds
        self._until = ctx.clock.monotonic() + bounds.seconds
        self._requests = 0
        self._events = 0

    async def get(self, target: str) -> Any:
        """The answer to a GET."""
        return await self._client.request("GET", self.server, target, seconds=self._remaining_seconds(30.0))

    async def request_members(
        self,
        target: str,
        names: Sequence[str],
        take: Callable[[str, list[Any]], None],
        between: Callable[[], Awaitable[None]] | None = None,
    ) -> Any:
        """The answer to a GET, read as it comes; see ``FederationClient.request_members``. Its members count
        as events.
        """

        def counted(name: str, values: list[Any]) -> None:
            self.count_events(len(values))
            take(name, values)

        seconds = self._remaining_seconds(120.0)
        return await self._client.request_members(
            "GET", self.server, target, names=names, take=counted, between=between, seconds=seconds
        )

    async def post(self, target: str, body: Mapping[str, Any]) -> Any:
        """The answer to a POST."""
        return await self._client.request(
            "POST", self.server, target, body, seconds=self._remaining_seconds(30.0)
        )

    def count_events(self, events: int) -> None:
        """So many events came. Raises ``ServerUnreachable`` if these are too many."""
        self._events += events
        if self._events > self._bounds.events:
            raise self._limit_reached("events", f"more than {self._bounds.events} events")

    def _remaining_seconds(self, most: float) -> float:
        """Seconds for one more request."""
        self._requests += 1
        if self._requests > self._bounds.requests:
            raise self._limit_reached("requests", f"more than {self._bounds.requests} requests")
        left = self._until - self._ctx.clock.monotonic()
        if left <= 0:
            raise self._limit_reached("seconds", f"more than {self._bounds.seconds:.0f} seconds")
        return min(left, most)

    def _limit_reached(self, bound: str, what: str) -> ServerUnreachable:
        self._ctx.count("matrix_errands_given_up", bound=bound)
        return ServerUnreachable(f"what is missing takes {what} with {self.server}: it is gone on with later")


class FetchPool:
    """Errands to many servers, some at a time for each."""

    def __init__(
        self, ctx: NetworkContext, client: FederationClient, bounds: FetchLimits | None = None
    ) -> None:
        self._ctx = ctx
        self._client = client
        self._bounds = bounds or FetchLimits()
        self._lanes: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    def acquire_beside(self, server: str) -> BoundedFetch:
        """One for a few requests in the midst of an errand to another server: nobody who holds a place with
        one server waits for a place with a second.
        """
        return BoundedFetch(self._ctx, self._client, server, self._bounds)

    @asynccontextmanager
    async def acquire(self, server: str) -> AsyncIterator[BoundedFetch]:
        """One errand, once there is room for it."""
        lane = self._lanes.setdefault(server, asyncio.Semaphore(_MAX_PER_SERVER))
        self._users[server] = self._users.get(server, 0) + 1
        try:
            async with lane:
                yield BoundedFetch(self._ctx, self._client, server, self._bounds)
        finally:
            self._users[server] -= 1
            if not self._users[server]:
                del self._users[server], self._lanes[server]
