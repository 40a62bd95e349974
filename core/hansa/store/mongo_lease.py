"""One process at a time per database: a lease whose time is the database's, in the row of the position.

Every transaction begins by extending the lease under its token and counting positions up, so a process that
lost the database (it slept for a minute, another took over) cannot write anything afterwards. A transaction
of a dead process stays open for up to a minute and blocks the row for its successor: the row names the
session of its holder, which is ended once its time is over. Until then the row is only read, so that a
waiting process does not disturb the holder.
"""

from __future__ import annotations

import inspect
import re
import secrets
from collections.abc import Mapping
from datetime import UTC
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import OperationFailure, PyMongoError

from hansa.store.base import InUse
from hansa.store.faults import StoreLost
from hansa.store.lease_owner import is_dead, is_self, this_process

#: After so many seconds without a sign of life another process may take over.
SECONDS = 10
ID, ROWS = "store", "hansa.lease"
#: The database's time in ms since 1970: a number, because not everything that speaks MongoDB's protocol
#: compares ``$$NOW`` with a stored date.
NOW = {"$toLong": "$$NOW"}
_WENT_BACK = "it went back behind what it had kept, as after a restored backup, therefore this process ends"
#: The command that a denial quotes, with all that it was given.
_COMMAND = re.compile(r"to execute command \{ (\w+): .*", re.DOTALL)


async def await_if_needed(value: Any) -> Any:
    """Returns a value that Motor gives at once, and awaits one of PyMongo's own asyncio client."""
    return await value if inspect.isawaitable(value) else value


def reason(error: PyMongoError) -> str:
    """An error for a log: never a document, which some of the driver's messages contain whole."""
    if isinstance(error, OperationFailure):
        details = error.details or {}
        first = (details.get("writeErrors") or [details])[0]
        text = _COMMAND.sub(r"to execute \1", str(first.get("errmsg", "")))
        return (
            f"{details.get('codeName', type(error).__name__)} ({first.get('code', error.code)}) {text[:200]}"
        )
    return f"{type(error).__name__}: {str(error)[:300]}"


def _in_use_error(owner: Mapping[str, Any]) -> InUse:
    return InUse(str(owner.get("host", "")), int(owner.get("pid", 0)), SECONDS, own=is_self(owner))


class MongoLease:
    """The lease of a database, which allows one process to write. ``rows`` is the collection of ``database``
    that keeps the lease.
    """

    def __init__(self, database: Any, rows: str = ROWS) -> None:
        self._database = database
        self._rows = database[rows]
        self._token = ""
        #: The last position that is known to be kept.
        self.reached = 0

    async def take(self, session: Any) -> int:
        """Become the holder, who writes in ``session``; returns the last position. Raises InUse."""
        before = await self._rows.find_one({"_id": ID})
        if before is None:
            free = {"position": 0, "token": "", "owner": {}}
            await self._rows.update_one({"_id": ID}, {"$setOnInsert": free}, upsert=True)
        elif before["token"]:
            if not await self._is_over(before):  # a claim would wait for a transaction that is open
                raise _in_use_error(before["owner"])
            if before.get("session"):
                await self._database.command({"killSessions": [before["session"]]})
        token = secrets.token_hex(16)
        got = await self._claim_lease(token, "", session)
        if got["token"] != token and is_dead(got["owner"]):
            got = await self._claim_lease(token, got["token"], session)
        if got["token"] != token:
            raise _in_use_error(got["owner"])
        self._token, self.reached = token, int(got["position"])
        return self.reached

    async def _is_over(self, row: dict[str, Any]) -> bool:
        if is_dead(row["owner"]):
            return True
        now = (await self._database.command("hello"))["localTime"]
        return bool(row["until"] < now.replace(tzinfo=UTC).timestamp() * 1000)

    async def _claim_lease(self, token: str, dead: str, session: Any) -> dict[str, Any]:
        """Take the lease if it is free, stale or that of ``dead``; the lease afterwards, whosever it is."""
        mine = {
            "token": token,
            "owner": {"$literal": this_process()},
            "until": {"$add": [NOW, SECONDS * 1000]},
            "session": {"$literal": dict(session.session_id)},
        }
        free = {"$or": [{"$in": ["$token", ["", dead]]}, {"$lt": ["$until", NOW]}]}
        change = {name: {"$cond": [free, value, f"${name}"]} for name, value in mine.items()}
        found: dict[str, Any] = await self._rows.find_one_and_update(
            {"_id": ID}, [{"$set": change}], return_document=ReturnDocument.AFTER
        )
        return found

    async def hold(self, session: Any, appends: int, group: str) -> int:
        """Extend the lease, give out positions and name the transaction, in it; returns the last position.

        Raises StoreLost if another process has taken over, or a backup has taken the place of what was there:
        nothing can be written any more.
        """
        change = {
            "position": {"$add": ["$position", appends]},
            "until": {"$add": [NOW, SECONDS * 1000]},
            "group": group,
        }
        found = await self._rows.find_one_and_update(
            {"_id": ID, "token": self._token},
            [{"$set": change}],
            projection=["position"],
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        if found is None:
            raise StoreLost
        if found["position"] < self.reached + appends:
            raise StoreLost(_WENT_BACK)
        return int(found["position"])

    async def advance(self, position: int) -> None:
        """Give positions above this one from now on."""
        await self._rows.update_one({"_id": ID, "token": self._token}, {"$max": {"position": position}})

    async def keeps(self, session: Any, group: str) -> bool:
        """True if a transaction was kept, asked in another one of its session. Raises StoreLost."""
        found = await self._rows.find_one_and_update(
            {"_id": ID, "token": self._token},
            [{"$set": {"until": {"$add": [NOW, SECONDS * 1000]}}}],
            projection=["group"],
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        if found is None:
            raise StoreLost
        return bool(found.get("group") == group)

    async def release(self) -> None:
        """Let the next process in at once."""
        await self._rows.update_one({"_id": ID, "token": self._token}, {"$set": {"token": "", "owner": {}}})
