"""A whole Hansa before it runs: what a checked configuration, or a test, says that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from hansa.api.contracts import RoomWish
from hansa.bus.decision_log import Retention
from hansa.environment import Environment, Http
from hansa.media.quotas import MediaLimits
from hansa.model.chat_commands import CommandSettings
from hansa.model.verdict import Action
from hansa.store.base import Store
from hansa.store.blobs import Blobs, MemoryBlobs
from hansa.store.faults import StoreFault


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSetup:
    """One ``[networks.<id>]`` table, checked."""

    id: str
    module: ModuleType
    options: Any
    rate: float = 0.0
    burst: int = 50
    presence_members: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySetup:
    """One ``[policies.<name>]`` table, checked. ``timeout`` is in seconds."""

    name: str
    module: ModuleType
    options: Any
    on_error: Action = Action.DENY
    shadow: bool = False
    timeout: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverSetup:
    """One ``[observers.<name>]`` table, checked."""

    name: str
    module: ModuleType
    options: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomSetup:
    """One ``[[rooms]]`` table: each ``NETWORK:ADDRESS`` to keep linked, and how the room is wished to be.
    ``owners`` own it, each ``NETWORK:USER``, if no network's own rules decide there.
    """

    links: Sequence[str]
    wish: RoomWish = field(default_factory=RoomWish)
    owners: Sequence[str] = ()


def _ignore(*_facts: object) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessListener:
    """What the process around a Hansa is told: ``on_status`` the id of a network, its state and its text;
    ``on_store_lost`` the fault after which there is no store any more, before anything else happens.
    """

    on_status: Callable[[str, str, str], object] = _ignore
    on_store_lost: Callable[[StoreFault], object] = _ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A whole Hansa before it runs. ``rooms`` are kept as they say. ``login_key``, of 32 bytes, encrypts the
    secrets of logins; without one nobody logs in.
    """

    store: Store
    http: Http
    seams: Environment
    blobs: Blobs = field(default_factory=MemoryBlobs)
    networks: Sequence[NetworkSetup] = ()
    policies: Sequence[PolicySetup] = ()
    observers: Sequence[ObserverSetup] = ()
    rooms: Sequence[RoomSetup] = ()
    retention: Retention = field(default_factory=Retention)
    media: MediaLimits = field(default_factory=MediaLimits)
    commands: CommandSettings = field(default_factory=CommandSettings)
    login_key: bytes = field(default=b"", repr=False)
    listener: ProcessListener = field(default_factory=ProcessListener)
