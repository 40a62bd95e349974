"""The effect of a deactivated account on rooms: its user leaves every room. SPEC: client-server API, "POST
/account/deactivate".
"""

from __future__ import annotations

from functools import partial

from hansa import NetworkContext

from hansa_matrix.client_api.account.accounts import Accounts
from hansa_matrix.client_api.rooms.room_entry import RoomEntry
from hansa_matrix.users.key_backups import KeyBackups
from hansa_matrix.users.presence import PresenceTracker


class Departures:
    """Rooms are left after the answer to the client, and after a restart if there was no time before."""

    def __init__(
        self, accounts: Accounts, entry: RoomEntry, presences: PresenceTracker, backups: KeyBackups
    ) -> None:
        self._accounts = accounts
        self._ctx: NetworkContext = accounts.ctx
        self._entry = entry
        self._presences = presences
        self._backups = backups
        accounts.on_deactivated(self._depart)

    def _depart(self, user: str) -> None:
        self._ctx.spawn(partial(self._leave_rooms, user), f"{user} leaves")
        self._ctx.spawn(partial(self._ctx.end_logins_of, user), f"{user} is logged out elsewhere")
        self._ctx.spawn(partial(self._backups.purge_user, user), f"{user} keeps no keys")

    async def _leave_rooms(self, user: str) -> None:
        await self._presences.remove_user(user)  # while there are servers to be told
        await self._entry.leave_all(user)

    async def resume(self) -> None:
        """Finishes the deactivations that a stop cut off. Runs once, at the start."""
        async for account in self._accounts.deactivated_accounts():
            await self._accounts.finish_deactivation(account.user)
            await self._ctx.end_logins_of(account.user)
            await self._entry.leave_all(account.user)
