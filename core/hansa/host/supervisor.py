"""One network's life: open, start, restart with backoff when it crashes, stop. The others do not notice."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from hansa.api.contracts import Authority, Confirms, LateAuthority, Network
from hansa.environment import Environment
from hansa.model.events import Delivery, Event, Link
from hansa.pacing.backoff import Backoff
from hansa.pacing.delivery_throttle import DeliveryThrottle
from hansa.pacing.store_retry import MAX_DELAY_S, Work, patiently
from hansa.store.faults import StoreFault

_STOP_TIMEOUT_S = 5.0
#: Seconds that tasks have to end once they are cancelled.
_CANCEL_TIMEOUT_S = 1.0
#: A network that crashed this often in a row is reported as degraded; it is still started again.
_DEGRADED = 5


class NetworkFactory(Protocol):
    """Makes a new instance of a network, after the last one failed."""

    def __call__(self) -> Network:
        """A fresh instance."""
        ...


class NetworkListener(Protocol):
    """Is told what becomes of networks; ``network`` is the id of one."""

    async def on_delivery_failed(self, delivery: Delivery, error: str) -> None:
        """A delivery became a dead letter."""
        ...

    def on_not_carried(self, link: Link, event: Event) -> None:
        """The network of a link cannot show an event."""
        ...

    def on_status_changed(self, network: str, state: str, text: str) -> None:
        """The network reports another state."""
        ...

    def on_reconnected(self, network: str) -> None:
        """The network changed to up."""
        ...

    def on_network_crashed(self, network: str) -> None:
        """The instance is about to be stopped: no request may reach it any more."""
        ...


class NetworkSupervisor:
    """Supervises one network, which ``factory`` makes, and is its gate for deliveries."""

    def __init__(
        self,
        network_id: str,
        seams: Environment,
        throttle: DeliveryThrottle,
        factory: NetworkFactory,
        listener: NetworkListener,
    ) -> None:
        self.id = network_id
        self.throttle = throttle
        self.state = "starting"
        self.text = ""
        self.crashes = 0
        self.restarts = 0
        self._factory = factory
        self._listener = listener
        self._seams = seams
        self._network: Network | None = None
        #: The instance, if it can be a room's authority: asked of its type once, which takes long.
        self.authority: Authority | None = None
        self.late_authority: LateAuthority | None = None
        #: The instance, if its peer confirms what it was sent; and how often a connection of it has ended.
        self.confirms: Confirms | None = None
        self.breaks = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._crashed = asyncio.Event()
        self._fault = False
        self._up = asyncio.Event()
        self._rise = asyncio.Event()
        self._backoff = Backoff(first=0.5, most=60.0)
        self._log = logging.getLogger(f"hansa.network.{network_id}")

    @property
    def network(self) -> Network | None:
        """The open instance."""
        return self._network

    def open(self) -> Network:
        """Make the instance; no I/O."""
        self._network = self._factory()
        self.authority = self._network if isinstance(self._network, Authority) else None
        self.late_authority = self._network if isinstance(self._network, LateAuthority) else None
        self.confirms = self._network if isinstance(self._network, Confirms) else None
        return self._network

    async def up(self) -> None:
        """Wait until the network is up."""
        await self._up.wait()

    async def wait_reconnected(self) -> None:
        """Wait until the network next changes to up."""
        await self._rise.wait()

    async def failed(self, delivery: Delivery, error: str) -> None:
        """Tell the observers of dead letters."""
        await self._listener.on_delivery_failed(delivery, error)

    def on_unsupported(self, link: Link, event: Event) -> None:
        """See ``hansa.bus.delivery.DeliveryTarget.on_unsupported``."""
        self._listener.on_not_carried(link, event)

    def report_status(self, state: str, text: str = "") -> None:
        """Takes the state that the network reports of itself."""
        if (state, text) != (self.state, self.text):
            self._log.info("%s%s", state, f": {text}" if text else "")
        rising, changed = state == "up" and self.state != "up", state != self.state
        self.breaks += changed and self.state == "up"
        self.state, self.text = state, text
        if changed:
            self._listener.on_status_changed(self.id, state, text)
        if state == "up":
            self._up.set()
        else:
            self._up.clear()
        if rising:
            self._rise.set()
            self._rise = asyncio.Event()
            self._listener.on_reconnected(self.id)

    def spawn(self, work: Work, name: str) -> asyncio.Task[None]:
        """A task of the network: its exception restarts the network, its end is the network's. A function is
        called again where the database failed.
        """
        name = f"{self.id}: {name}"
        task = asyncio.get_running_loop().create_task(patiently(work, name, self._seams), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_ended)
        return task

    def _on_task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._log.error("task %s crashed", task.get_name(), exc_info=error)
        self.text = f"{task.get_name()}: {type(error).__name__}: {error}"
        self._fault = isinstance(error, StoreFault)
        self._crashed.set()

    async def run(self) -> None:
        """Start, and start again after each crash, until cancelled."""
        failures = 0
        while True:
            began = self._seams.clock.monotonic()
            network = self._network or self.open()
            crash = await self._run_once(network)
            self.crashes += 1
            lasted = self._seams.clock.monotonic() - began
            failures = 1 if lasted > self._backoff.most else failures + 1
            self._network = self.confirms = None
            self._listener.on_network_crashed(self.id)
            await self._stop_network(network)
            state = "degraded" if failures >= _DEGRADED else "down"
            wait = self._backoff.delay(failures, self._seams.random.uniform())
            if self._fault:  # it is not the network that is broken
                wait = min(wait, MAX_DELAY_S)
            self.report_status(state, f"crashed ({crash}); starts again in {wait:.0f} s")
            await asyncio.sleep(wait)
            self.open()
            self.restarts += 1
            self.report_status("starting")

    async def _run_once(self, network: Network) -> str:
        self._crashed.clear()
        self._fault = False
        try:
            await network.start()
        except Exception as error:  # noqa: BLE001  # any crash of a network is its own, and restarts it
            self._fault = isinstance(error, StoreFault)
            if self._fault:
                self._log.warning("it starts later: %s", error)
            else:
                self._log.exception("start failed")
            return f"{type(error).__name__}: {error}"
        if self.state == "starting":
            self.report_status("up")
        await self._crashed.wait()
        return self.text

    async def stop(self) -> None:
        """End within 5 s; whatever still runs then is cancelled and named in the log."""
        await self._stop_network(self._network)
        self.state, self.text = "stopped", ""
        self._up.clear()

    async def _stop_network(self, network: Network | None) -> None:
        tasks = list(self._tasks)
        if network is not None:
            stopping = asyncio.ensure_future(network.stop())
            stopping.set_name(f"{self.id}: stop")
            await asyncio.wait({stopping}, timeout=_STOP_TIMEOUT_S)
            if not stopping.done():
                self._log.error("stop takes longer than %.0f s, and is cancelled", _STOP_TIMEOUT_S)
                tasks.append(stopping)
            elif not stopping.cancelled() and (error := stopping.exception()) is not None:
                self._tell_stop_failed(error)
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=_CANCEL_TIMEOUT_S)
            if left:  # a task that swallows its cancellation is not waited for
                names = ", ".join(sorted(task.get_name() for task in left))
                self._log.error("%s do not end when they are cancelled: a fault of the plugin", names)

    def _tell_stop_failed(self, error: BaseException) -> None:
        if isinstance(error, StoreFault):
            self._log.warning("its data could not be stored when it stopped: %s", error)
        else:  # what a network raises while stopping must not keep us up
            self._log.error("stop failed", exc_info=error)
