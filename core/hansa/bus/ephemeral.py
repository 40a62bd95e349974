"""From one network's people to the others': typing and receipts, judged and passed on, never kept."""

from __future__ import annotations

import logging
from typing import Protocol

from hansa.api.contracts import CarriesEphemeral, Network
from hansa.bus.pipeline import Pipeline
from hansa.bus.policy_engine import PolicyEngine
from hansa.bus.rooms import Rooms
from hansa.model.crossing import EphemeralIn, EphemeralOut
from hansa.model.ephemeral import EphemeralEvent, Receipt
from hansa.model.ref import NativeId

#: With so many events of a room waiting for its turn, what nobody said is dropped first.
_BUSY = 200


class EphemeralHost(Protocol):
    """The parts of the running application that the relay uses."""

    def network(self, network: str) -> Network | None:
        """The open network of an id."""
        ...

    def count(self, name: str, **labels: str) -> None:
        """Add one to a counter."""
        ...


class EphemeralRelay:
    """Asks the policies, and every other network of the room that carries signals."""

    def __init__(
        self, rooms: Rooms, decisions: PolicyEngine, pipeline: Pipeline, around: EphemeralHost
    ) -> None:
        self._rooms = rooms
        self._decisions = decisions
        self._pipeline = pipeline
        self._around = around
        self._log = logging.getLogger("hansa.signals")

    async def relay(self, native: NativeId, signal: EphemeralEvent) -> bool:
        """Passes on a signal of a user in a native room; True if it was let in."""
        link = self._rooms.link(native)
        if link is None or not link.direction.inward:
            return False
        room = self._rooms.room_of(native)
        if self._pipeline.waiting(room.id) > _BUSY:
            self._around.count("signals", result="busy")
            return False
        server = self._pipeline.server_of(native.network, signal.user.id)
        inward = EphemeralIn(
            link=link, sender=signal.user, sender_server=server, kind=signal.kind, view=room.view
        )
        if not (await self._decisions.judge_and_store(inward)).allowed:
            self._around.count("signals", result="denied")
            return False
        for other in list(room.links.values()):
            network = self._around.network(other.native.network)
            if (
                other.id == link.id
                or not other.direction.outward
                or not isinstance(network, CarriesEphemeral)
                or (isinstance(signal, Receipt) and signal.event.is_withheld_from(other))
            ):
                continue
            out = EphemeralOut(link=other, sender=signal.user, kind=signal.kind, view=room.view)
            if not (await self._decisions.judge_and_store(out)).allowed:
                self._around.count("signals", result="denied")
                continue
            try:
                await network.show_ephemeral(other, signal)
                self._around.count("signals", result="sent")
            except Exception:  # noqa: BLE001  # one network's fault is not the other's, and nothing is lost
                self._around.count("signals", result="failed")
                self._log.exception("a %s to %s failed", signal.kind, other.id)
        return True
