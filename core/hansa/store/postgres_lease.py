"""One process at a time per database: a lease whose time is the database's, in the row of the position.

The one row of the table has the token of who may write, until when nobody else may (by the clock of the
database), the last position and the number of the last commit. Every transaction begins by changing it under
its token. So a process that lost the database writes nothing afterwards, and a process that does not know
whether a commit was kept takes a new token: nothing of the old one can be kept from then on, and the number
says what was.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Any

from hansa.store.base import InUse, StoreError
from hansa.store.faults import StoreLost
from hansa.store.lease_owner import is_dead, is_self, this_process

#: After so many seconds without a sign of life another process may take over.
SECONDS = 10
#: Seconds for which the lease of a process elsewhere, which may be gone, is waited for.
_WAIT_TIMEOUT_S = SECONDS + 2.0
#: The table, and the channel on which a holder says that it lets go.
TABLE = "hansa_lease"
_UNTIL = f"clock_timestamp() + interval '{SECONDS} s'"
#: A tenth of a page is filled, so that each change of the row finds room beside it.
MAKE = f"""
CREATE TABLE IF NOT EXISTS {TABLE} (
  id integer PRIMARY KEY, token text NOT NULL, host text NOT NULL, pid bigint NOT NULL, born text NOT NULL,
  namespace text NOT NULL, until timestamptz NOT NULL, position bigint NOT NULL, number bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO {TABLE} VALUES (1, '', '', 0, '', '', clock_timestamp(), 0, 0) ON CONFLICT DO NOTHING
"""
_CLAIM = f"""
UPDATE {TABLE} SET token = $1, host = $2, pid = $3, born = $4, namespace = $5, until = {_UNTIL}
WHERE id = 1 AND (token = '' OR token = $6 OR until < clock_timestamp()) RETURNING position, number
"""
_AGAIN = f"""
UPDATE {TABLE} SET token = $1, until = {_UNTIL}
WHERE id = 1 AND token = ANY($2::text[]) RETURNING position, number
"""
_RELEASE = f"""
WITH gone AS (UPDATE {TABLE} SET token = '' WHERE id = 1 AND token = $1 RETURNING id)
SELECT pg_notify('{TABLE}', '') FROM gone
"""
_ADVANCE = f"""
UPDATE {TABLE} SET position = greatest(position, $1) WHERE id = 1 AND token = $2 RETURNING position
"""
_OWNER = f"""
SELECT token, host, pid, born, namespace, until, extract(epoch FROM until - clock_timestamp())::float AS left
FROM {TABLE} WHERE id = 1
"""


class NoLease(StoreError):
    """The last position is not known: to begin at another would give positions again."""

    def __init__(self) -> None:
        super().__init__(
            f"{TABLE} has lost its row, or was removed, and with it the last position: restore this "
            "database from a backup"
        )


class PostgresLease:
    """The lease of a database, which allows one process to write: ``token`` is this process's."""

    def __init__(self) -> None:
        self.token = ""
        #: Tokens that this process has asked for and may have got.
        self._asked: list[str] = []

    async def take(self, connection: Any) -> tuple[int, int]:
        """Become the holder; returns the last position and the number of the last commit.

        A process of another machine may be gone: unless it shows a sign of life, its lease is waited for.
        Raises InUse naming who has the database, ``NoLease``.
        """
        found = await self._claim_lease(connection, "")
        if found is not None:
            return found
        owner = await connection.fetchrow(_OWNER)
        if owner is None:
            raise NoLease
        if is_dead(owner):
            found = await self._claim_lease(connection, owner["token"])
        elif owner["namespace"] != this_process()["namespace"]:
            found = await self._wait_for_lease(connection, owner)
        if found is None:
            raise InUse(owner["host"], owner["pid"], SECONDS, own=is_self(owner))
        return found

    async def _wait_for_lease(self, connection: Any, owner: Any) -> tuple[int, int] | None:
        """Claim it when its time is over, or its holder says that it lets go; None if that lives. A holder
        that shows no sign of life for all that time has lost it too where the time is not over: the
        database's clock was put back.
        """
        now = asyncio.get_running_loop().time
        start, freed, until = now(), asyncio.Event(), owner["until"]
        await connection.add_listener(TABLE, lambda *_: freed.set())
        while now() - start < _WAIT_TIMEOUT_S:
            found = await self._claim_lease(connection, "")
            if found is not None:
                return found
            owner = await connection.fetchrow(_OWNER)
            if owner is None:
                raise NoLease
            if owner["until"] != until and owner["token"]:
                return None
            freed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(owner["left"], 0.05), _WAIT_TIMEOUT_S)):
                    await freed.wait()
        owner = await connection.fetchrow(_OWNER)
        silent = owner is not None and owner["until"] == until and now() - start >= SECONDS
        return await self._claim_lease(connection, owner["token"]) if silent else None

    async def _claim_lease(self, connection: Any, dead: str) -> tuple[int, int] | None:
        token, mine = secrets.token_hex(16), this_process()
        owner = (mine["host"], mine["pid"], mine["born"], mine["namespace"])
        found = await connection.fetchrow(_CLAIM, token, *owner, dead)
        if found is None:
            return None
        self.token = token
        return found["position"], found["number"]

    async def again(self, connection: Any) -> tuple[int, int]:
        """Take a new token in a new session, which waits until what the old one began has ended; returns the
        last position and the number of the last commit that was kept. Raises StoreLost.
        """
        token = secrets.token_hex(16)
        self._asked.append(token)
        found = await connection.fetchrow(_AGAIN, token, [self.token, *self._asked])
        if found is None:
            raise StoreLost
        self.token, self._asked = token, []
        return found["position"], found["number"]

    async def advance(self, connection: Any, position: int) -> None:
        """Give positions above this one from now on. Raises StoreLost."""
        if await connection.fetchval(_ADVANCE, position, self.token) is None:
            raise StoreLost

    async def release(self, connection: Any) -> None:
        """Let the next process in at once."""
        await connection.execute(_RELEASE, self.token)
