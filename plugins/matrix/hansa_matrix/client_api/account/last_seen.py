"""When devices asked last, and from where. SPEC: client-server API, "Device Management".

A request costs no commit: the notes are stored once a minute, and when the network stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson
from hansa import Delete, NetworkContext, Put, StoreFault, pieces, scan_all

#: Seconds between two times that what was noted is kept, and rows in one commit.
_SAVE_INTERVAL_S, _ROWS_PER_COMMIT = 60.0, 500


@dataclass(frozen=True, slots=True)
class Seen:
    """A device's last request: its time in ms, 0 where it is not known, and the address it came from."""

    ts: int = 0
    address: str = ""


NEVER = Seen()


class LastSeen:
    """Of all devices here."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx
        #: By person and device, what is not kept yet.
        self._noted: dict[tuple[str, str], Seen] = {}

    def note_request(self, user: str, device: str, address: str) -> None:
        """A device asks now."""
        self._noted[user, device] = Seen(self._ctx.clock.now(), address)

    async def devices_of(self, user: str) -> Mapping[str, Seen]:
        """One person's devices that were seen, by device id."""
        rows = scan_all(self._ctx.store, "last_seen", equal=(user,))
        kept = {str(row.key[1]): Seen(**orjson.loads(row.body)) async for row in rows}
        return kept | {device: seen for (who, device), seen in self._noted.items() if who == user}

    async def forget_devices(self, user: str, devices: Iterable[str]) -> None:
        """Devices are gone."""
        gone = list(devices)
        for device in gone:
            self._noted.pop((user, device), None)
        for piece in pieces([Delete("last_seen", (user, device)) for device in gone]):
            await self._ctx.store.commit(piece)

    async def run_saves(self) -> None:
        """Runs with the network."""
        while True:
            await asyncio.sleep(_SAVE_INTERVAL_S)
            await self.save_noted()

    async def save_noted(self) -> None:
        """Make what was noted durable."""
        while self._noted:
            keys = list(self._noted)[:_ROWS_PER_COMMIT]
            taken = {key: self._noted.pop(key) for key in keys}
            puts = [
                Put("last_seen", key, orjson.dumps({"ts": seen.ts, "address": seen.address}))
                for key, seen in taken.items()
            ]
            try:
                await self._ctx.store.commit(puts, durability="lazy")
            except StoreFault:
                self._noted = taken | self._noted
                raise
