"""One running test of ``NetworkSuite``: the network under test in a Hansa, beside a scripted one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from hansa.api.contracts import HasFeatures
from hansa.app import App
from hansa.bus.schema import event_of
from hansa.model.content import Content
from hansa.model.events import Delivery, Event
from hansa.model.features import PLAIN, Features
from hansa.model.ref import NativeId
from hansa.testing.actor import Actor
from hansa.testing.waiting import until


@dataclass(slots=True)
class Stage:
    """One running test: the network under test, the scripted one beside it, the room they share.

    ``sends`` are the calls of ``send`` that returned, each with the native id it gave; ``failures`` those
    that raised. ``within`` is how many seconds anything may take.
    """

    app: App
    other: Actor
    room: str
    within: float
    sends: list[tuple[Delivery, str]] = field(default_factory=list)
    failures: list[tuple[Delivery, Exception]] = field(default_factory=list)

    @property
    def net(self) -> Any:
        """The network under test: after a crash, the instance that runs."""
        return self.app.runners["tested"].network

    @property
    def features(self) -> Features:
        """The features of the network under test."""
        return self.net.features if isinstance(self.net, HasFeatures) else PLAIN

    async def log(self) -> list[Event]:
        """Everything that happened in the room, in order."""
        room = self.app.rooms.room_of(NativeId("tested", self.room))
        return [event_of(row) for row in await self.app.core.scan("event", equal=(room.id,), limit=10_000)]

    async def seen(self, content: Content) -> list[Content]:
        """Returns the contents that the scripted network got, once ``content`` is among them. Raises
        TimeoutError.
        """
        await self.other.until_shown("other", lambda found: content in found, self.within)
        return self.other.contents("other")

    async def until(self, what: str, holds: Callable[[], bool], seconds: float = 0.0) -> None:
        """Wait for a condition, ``within`` or for this many seconds. Raises AssertionError, naming it, when
        it does not come.
        """
        seconds = seconds or self.within
        try:
            await until(holds, seconds)
        except TimeoutError:
            raise AssertionError(f"not within {seconds:g} s: {what}") from None

    def has_returned(self, event: str) -> bool:
        """True if a ``send`` of this event has returned."""
        return any(delivery.event.id == event for delivery, _ in self.sends)

    def record_sends(self, patch: pytest.MonkeyPatch) -> None:
        """Fills ``sends`` and ``failures`` from now on."""
        real = type(self.net).send

        async def send(network: Any, delivery: Delivery) -> str:
            try:
                native: str = await real(network, delivery)
            except Exception as error:
                self.failures.append((delivery, error))
                raise
            self.sends.append((delivery, native))
            return native

        patch.setattr(type(self.net), "send", send)
