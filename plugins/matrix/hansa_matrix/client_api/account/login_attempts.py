"""The limits on login attempts: strangers are limited by their address and the name that they try, known
users separately, so that a stranger's guesses do not lock them out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn

from hansa import Busy, LruCache, NetworkContext, Request

from hansa_matrix.client_api.account.address_shares import address_group
from hansa_matrix.ratelimit import RateLimiter

#: Pairs of a person and an address that are remembered as known.
_MAX_KNOWN = 10_000
#: So many neighbourhoods have to guess together, each as fast as it may, before a name takes no more attempts
#: from where its person has never been: one alone keeps nobody out.
ADDRESSES = 4


class LoginAttempts:
    """Counts login attempts. ``came_from`` tells whether a user has a device that logged in from a group of
    addresses.
    """

    def __init__(self, ctx: NetworkContext, came_from: Callable[[str, str], Awaitable[bool]]) -> None:
        self._ctx = ctx
        self._came_from = came_from
        config = ctx.config
        # Guessing passwords is not to be worth while.
        rate, burst = config.client_rate / 100, max(5, config.client_burst / 10)
        self._addresses = RateLimiter(ctx.clock, rate, burst)
        self._names = RateLimiter(ctx.clock, ADDRESSES * rate, ADDRESSES * burst)
        self._people = RateLimiter(ctx.clock, rate, burst)
        self._known: LruCache[tuple[str, str], None] = LruCache(_MAX_KNOWN)

    def limit_address(self, request: Request) -> None:
        """Counts an attempt without a user name. Raises ``Busy`` where the address asks too often."""
        if wait := self._addresses.take_from(request.remote):
            self._refuse_attempt(wait)

    async def limit_login(self, request: Request, user: str) -> None:
        """Counts a password attempt for a name. Raises ``Busy`` where it is tried too often: by the address
        and the name; from an address that the user is known to come from, by that pair alone.
        """
        group = address_group(request.remote)
        if (user, group) not in self._known:
            if not (wait := self._addresses.take_from(request.remote) or self._names.take(user)):
                return
            if not await self._came_from(user, group):
                self._refuse_attempt(wait)
        self._take_token(self._people, f"{user} {group}")

    def limit_device(self, user: str, device: str) -> None:
        """Counts a password attempt of a logged-in device. Raises ``Busy`` where that device tries too
        often.
        """
        self._take_token(self._people, f"{user} {device}")

    def record_success(self, request: Request, user: str, device: str) -> None:
        """Records a successful login: the user is known by the address, and by the device. The attempt counts
        there.
        """
        pair = user, address_group(request.remote)
        if pair not in self._known:
            self._people.take(f"{user} {pair[1]}")
        self._people.take(f"{user} {device}")
        self._known.put(pair, None)

    def _take_token(self, allowance: RateLimiter, name: str) -> None:
        if wait := allowance.take(name):
            self._refuse_attempt(wait)

    def _refuse_attempt(self, wait: float) -> NoReturn:
        self._ctx.count("matrix_client_limited", what="login")
        raise Busy("too many attempts", after=max(1.0, wait))
