"""The parts of the running application that the contexts of plugins use."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from hansa.api.contracts import Network, OpenedRoom
from hansa.bus.delivery import Consumer
from hansa.bus.direct_chats import DirectChats
from hansa.bus.earlier_history import EarlierHistoryReader
from hansa.bus.ephemeral import EphemeralRelay
from hansa.bus.event_names import EventNames
from hansa.bus.history_reader import HistoryReader
from hansa.bus.pipeline import Pipeline
from hansa.bus.policy_engine import PolicyEngine
from hansa.bus.presence_relay import PresenceRelay
from hansa.bus.rejudging import PolicyRecheck
from hansa.bus.rooms import Rooms
from hansa.bus.visible_view import VisibleViews
from hansa.environment import Environment, Http
from hansa.host.chat_commands import ChatCommands
from hansa.host.searches import Searches
from hansa.host.supervisor import NetworkSupervisor
from hansa.logins.core_logins import CoreLogins
from hansa.media.core_media import CoreMedia
from hansa.model.events import Link
from hansa.model.ref import NativeId
from hansa.pacing.store_retry import Work
from hansa.setup import Setup
from hansa.store.base import ScopedStore, Store


class PluginHost(Protocol):
    """The application as contexts use it; ``hansa.app.App`` is the one implementation."""

    rooms: Rooms
    pipeline: Pipeline
    decisions: PolicyEngine
    rejudging: PolicyRecheck
    present: VisibleViews
    signals: EphemeralRelay
    presence: PresenceRelay
    direct_chats: DirectChats
    history: HistoryReader
    commands: ChatCommands
    logins: CoreLogins
    searches: Searches
    earlier: EarlierHistoryReader
    media: CoreMedia
    core: ScopedStore
    names: EventNames
    gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float]
    work: dict[tuple[str, str], tuple[int, int]]

    @property
    def setup(self) -> Setup:
        """The configuration that the application was made of."""
        ...

    @property
    def store(self) -> Store:
        """The store of everything; a plugin gets its own scope of it."""
        ...

    @property
    def http(self) -> Http:
        """The client for outgoing requests."""
        ...

    @property
    def seams(self) -> Environment:
        """Clock and randomness."""
        ...

    @property
    def runners(self) -> Mapping[str, NetworkSupervisor]:
        """Every configured network, by its id."""
        ...

    @property
    def consumers(self) -> Mapping[str, Consumer]:
        """The deliveries under way, by the link's id."""
        ...

    def spawn(self, work: Work, name: str) -> asyncio.Task[None]:
        """See ``hansa.app.App.spawn``."""
        ...

    def count(self, name: str, **labels: str) -> None:
        """See ``hansa.app.App.count``."""
        ...

    def network(self, network: str) -> Network | None:
        """See ``hansa.app.App.network``."""
        ...

    async def start_consumer(self, link: Link, start: int | None = None) -> None:
        """See ``hansa.app.App.start_consumer``."""
        ...

    async def stop_consuming(self, native: NativeId) -> None:
        """See ``hansa.app.App.stop_consuming``."""
        ...

    async def link_opened(self, opened: OpenedRoom, room: str | None) -> Link:
        """See ``hansa.app.App.link_opened``."""
        ...

    async def check_password(self, user: str, password: str) -> bool | None:
        """See ``hansa.app.App.check_password``."""
        ...
