"""The durable observers of a configuration: opened together, and told of what the log gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from hansa.api.contracts import Observer
from hansa.bus.durable_observers import ObserverCursor, ObserverServices
from hansa.host import loader
from hansa.host.policies import PolicyContext
from hansa.model.errors import PluginError

if TYPE_CHECKING:
    from hansa.host.plugin_host import PluginHost
    from hansa.setup import ObserverSetup


class Observers:
    """All of them. None is opened before ``open``."""

    def __init__(self) -> None:
        self._cursors: list[ObserverCursor] = []

    async def open(self, app: PluginHost, setups: Sequence[ObserverSetup]) -> None:
        """Open all, and begin where each left off. The rooms have been loaded. Raises PluginError."""
        manager = loader.new_manager()
        services = ObserverServices(app.core, app.rooms, app.seams)
        for setup in setups:
            context = PolicyContext(app, setup.name, setup.options, table="observer")
            observer = loader.open_plugin(manager, "open_observer", setup.module, context)
            if not isinstance(observer, Observer):
                raise PluginError(f"observer {setup.name!r} has no observe()")
            for schema in context.schemas:
                await context.store.declare(schema)
            given_up = partial(app.count, "observer_given_up", observer=setup.name)
            cursor = ObserverCursor(setup.name, observer, services, given_up)
            await cursor.load()
            self._cursors.append(cursor)
            for work in cursor.works():
                app.spawn(work, f"observer {setup.name}")

    def wake(self, room: str) -> None:
        """A room's log has grown."""
        for cursor in self._cursors:
            cursor.wake(room)

    def measures(self) -> Iterator[tuple[str, Mapping[str, str], float]]:
        """Gauges: the events that are not observed yet, by observer."""
        for cursor in self._cursors:
            yield "observer_behind", {"observer": cursor.name}, cursor.behind
