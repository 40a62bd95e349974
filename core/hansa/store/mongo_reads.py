"""Reads of MongoDB: patient while another member becomes primary, never from before what was acknowledged.

A new primary may answer for a moment from before what the one before it acknowledged, until it has committed
something with a majority itself. So after a change of the primary, and after an error that may come of one,
something is written before anything is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pymongo.errors import AutoReconnect, PyMongoError

from hansa.store.faults import FaultKind, StoreFault
from hansa.store.mongo_transaction import ANSWER_TIMEOUT_S

T = TypeVar("T")

#: Seconds during which a read is tried again: an election takes up to 40, with the time in which the
#: driver notices that one is needed.
MAX_RETRY_S = 60.0
_FIRST_DELAY_S, _MAX_DELAY_S, _END_TIMEOUT_S = 0.05, 1.0, 1.0
#: Codes of what a read that is put again may not meet again: a member that is down, steps down or has just
#: started, a cursor of a primary that has gone, a time that was over.
_AGAIN = {6, 7, 43, 50, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436}


class MongoReads:
    """``confirm`` writes something of no meaning; ``usable`` raises StoreError where nothing may be read."""

    def __init__(
        self, client: Any, confirm: Callable[[], Awaitable[object]], usable: Callable[[], None]
    ) -> None:
        self._client = client
        self._confirm = confirm
        self._usable = usable
        self._described: object = None
        self._primary: object = None
        self._confirmed: object = None
        self._asking: set[asyncio.Future[Any]] = set()

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """The answer of a call. Raises what the last try raised: PyMongoError, TimeoutError, StoreError."""
        now = asyncio.get_running_loop().time
        start, wait = now(), _FIRST_DELAY_S
        while True:
            self._usable()
            try:
                if self._has_primary_changed():
                    await self._confirm_holder()
                return await self._ask_once(call)
            except (PyMongoError, TimeoutError, StoreFault) as error:
                if not _is_transient(error) or now() - start > MAX_RETRY_S:
                    raise
                self._confirmed = None
            await asyncio.sleep(wait)
            wait = min(2 * wait, _MAX_DELAY_S)

    async def _ask_once(self, call: Callable[[], Awaitable[T]]) -> T:
        """One try. A cancelled caller does not cancel the driver's call, which may be opening a connection
        that would never be closed; a call that hangs is given up with its connection.
        """
        task = asyncio.ensure_future(call())
        self._asking.add(task)
        task.add_done_callback(self._on_call_ended)
        done, _ = await asyncio.wait({task}, timeout=ANSWER_TIMEOUT_S)
        if not done:
            task.cancel()
            raise TimeoutError
        return task.result()

    def _on_call_ended(self, task: asyncio.Future[Any]) -> None:
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()  # the callers that still wait get the error

    async def close(self) -> None:
        """Let the calls under way end, ``_END_TIMEOUT_S`` seconds at most."""
        if self._asking:
            await asyncio.wait(self._asking, timeout=_END_TIMEOUT_S)

    def _has_primary_changed(self) -> bool:
        described = self._client.topology_description
        if described is not self._described:
            self._described, self._primary = described, _primary(described)
        return self._primary is None or self._primary != self._confirmed

    async def _confirm_holder(self) -> None:
        await self._confirm()
        self._has_primary_changed()
        self._confirmed = self._primary


def _primary(description: Any) -> object:
    """Returns the primary with its election; None while no primary is known."""
    for server in description.server_descriptions().values():
        if server.is_writable:
            return server.address, server.set_version, server.election_id
    return None


def _is_transient(error: Exception) -> bool:
    if isinstance(error, StoreFault):
        return error.kind is FaultKind.AWAY
    return isinstance(error, AutoReconnect | TimeoutError) or getattr(error, "code", None) in _AGAIN
