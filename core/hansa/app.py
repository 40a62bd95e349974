"""All wiring, in one place: from a checked configuration to running parts, and back to nothing."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from hansa.api.contracts import (
    Authority,
    LateAuthority,
    Network,
    NetworkStatus,
    OpenedRoom,
    RoomWish,
    features_of,
)
from hansa.bus import schema as tables
from hansa.bus.delivery import BusServices, Consumer
from hansa.bus.direct_chats import DirectChats
from hansa.bus.earlier_history import EarlierHistoryReader
from hansa.bus.ephemeral import EphemeralRelay
from hansa.bus.event_names import EventNames
from hansa.bus.history_reader import HistoryReader
from hansa.bus.media_references import MEDIA
from hansa.bus.observers import notify_observers
from hansa.bus.pipeline import Pipeline
from hansa.bus.policy_engine import PolicyEngine
from hansa.bus.presence_relay import PresenceRelay
from hansa.bus.presents import Presents
from hansa.bus.rejections import RejectionNotices
from hansa.bus.rejudging import PolicyRecheck
from hansa.bus.rooms import Room, Rooms
from hansa.bus.visible_view import VisibleViews
from hansa.host import loader
from hansa.host.chat_actions import ChatActions
from hansa.host.chat_commands import ChatCommands
from hansa.host.observers import Observers
from hansa.host.plugin_contexts import NetworkContextImpl
from hansa.host.policies import Policies, digest_of
from hansa.host.room_linker import RoomLinker
from hansa.host.searches import Searches
from hansa.host.supervisor import NetworkSupervisor
from hansa.http.router import Router
from hansa.logins.core_logins import CoreLogins
from hansa.logins.form_endpoint import LoginFormEndpoint
from hansa.logins.rows import LoginRows
from hansa.logins.secret_box import SecretBox
from hansa.media.bus_access import BusAccess
from hansa.media.core_media import CoreMedia
from hansa.media.environment import MediaEnvironment
from hansa.model.content import Content
from hansa.model.errors import Busy, ConfigError, LocalProtocolError, PluginError
from hansa.model.events import Delivery, Event, Link, Refusal, Submission
from hansa.model.features import Level
from hansa.model.ref import NativeId
from hansa.pacing.delivery_throttle import DeliveryThrottle
from hansa.pacing.store_retry import Work, patiently
from hansa.setup import NetworkSetup, PolicySetup, Setup
from hansa.store import catalogue
from hansa.store.base import Delete, Row, ScopedStore, StoreError, Write
from hansa.store.bounds import pieces
from hansa.store.health import StoreHealth, WatchedStore
from hansa.store.paging import scan_all

_OBSERVED = 1000
#: Combinations of labels that are counted apart under one name.
_MAX_SERIES = 500
#: Seconds between two looks for decisions that are too old.
_PRUNE_EVERY = 600.0
#: Seconds that a task of a network has to end once it is cancelled.
_CANCEL_TIMEOUT_S = 1.0
#: Seconds that a directory has to say whether a password is right.
_DIRECTORY_TIMEOUT_S = 10.0


@dataclass(slots=True)
class _Observers:
    queue: asyncio.Queue[Event] = field(default_factory=lambda: asyncio.Queue(_OBSERVED))


class App:
    """One running Hansa. ``start`` returns when everything is open; networks connect in the background."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        health = StoreHealth(setup.seams.clock)
        self.store = WatchedStore(setup.store, health, setup.listener.on_store_lost)
        self.http = setup.http
        self.seams = setup.seams
        self.core = ScopedStore(self.store, "")
        self.log = logging.getLogger("hansa")
        self.rooms = Rooms(self.core, setup.seams.clock, setup.seams.random)
        self.decisions = PolicyEngine(
            self.core, setup.seams.clock, setup.seams.random, retention=setup.retention
        )
        self.rejudging = PolicyRecheck(self.decisions, self.server_of)
        self.names = EventNames(self.core)
        self.media = CoreMedia(
            ScopedStore(self.store, MEDIA),
            setup.blobs,
            BusAccess(
                names=self.names,
                rooms=self.rooms,
                decisions=self.decisions,
                rejudging=self.rejudging,
                network=self.network,
                server_of=self.server_of,
                count=self.count,
            ),
            MediaEnvironment(seams=setup.seams, http=setup.http, limits=setup.media),
        )
        self._judged = BusServices(
            self.core, self.decisions, setup.seams, self.rejudging, self.names, self.media.link_to
        )
        self.presents = Presents(self.core, self.rooms, setup.seams.random, self)
        self._rejections = RejectionNotices(self.core, self.rooms, self.network)
        self.pipeline = Pipeline(self.rooms, self._judged, self)
        self.present = VisibleViews(self.rooms, self.decisions, self.pipeline, self.seams.clock)
        self.signals = EphemeralRelay(self.rooms, self.decisions, self.pipeline, self)
        self.presence = PresenceRelay(self.rooms, self.decisions, self.pipeline, self)
        self.direct_chats = DirectChats(self.rooms, self._judged, self.pipeline, self)
        self.history = HistoryReader(self.core, self.rejudging)
        self.earlier = EarlierHistoryReader(self, self.history.log, self.rejudging)
        self.runners: dict[str, NetworkSupervisor] = {}
        self.contexts: dict[str, NetworkContextImpl] = {}
        self.consumers: dict[str, Consumer] = {}
        #: Routes per server name; ``""`` holds those of networks without one.
        self.routers: dict[str, Router] = {}
        self.counters: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
        self._series: Counter[str] = Counter()
        self.gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        #: Gauges that are read when they are asked for: ``(name, labels, value)``.
        self.measures: list[Callable[[], Iterable[tuple[str, Mapping[str, str], float]]]] = [
            self.decisions.kept.measures
        ]
        #: Long work under way: ``(plugin, what) -> (done, total)``.
        self.work: dict[tuple[str, str], tuple[int, int]] = {}
        self._consuming: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._manager = loader.new_manager()
        self._policies = Policies()
        #: The policies of now as they were configured.
        self.policy_setups = tuple(setup.policies)
        self._hosts: dict[str, str] = {}
        self.linker = RoomLinker(self)
        self.searches = Searches(self)
        box = SecretBox(setup.login_key, setup.seams.random) if setup.login_key else None
        self.logins = CoreLogins(setup.commands, LoginRows(self.core, box), self, setup.media.public_url)
        self._login_form = LoginFormEndpoint(self.logins, setup.seams.clock)
        self.commands = ChatCommands(setup.commands, self, ChatActions(setup.commands, self), self.logins)
        self._observers = _Observers()
        self._durable = Observers()
        self.measures.append(self._durable.measures)
        self._prepared = self._started = self._stopping = False
        self._reloading = asyncio.Lock()

    @property
    def started(self) -> bool:
        """True once the store is this process's own, and networks run."""
        return self._started

    def count(self, name: str, **labels: str) -> None:
        """Add one to a counter. Labels beyond the 500th combination of a name count as ``other``: whatever a
        label is made of, nobody fills the memory or the metrics with it.
        """
        key = (name, tuple(sorted(labels.items())))
        before = self.counters.get(key)
        if before is None:
            if self._series[name] >= _MAX_SERIES:
                key = (name, tuple((label, "other") for label in sorted(labels)))
                before = self.counters.get(key, 0)
            self._series[name] += before is None
        self.counters[key] = (before or 0) + 1

    def spawn(self, work: Work, name: str) -> asyncio.Task[None]:
        """A task of the core's own; a crash is logged, and is a bug here. A function is called again where
        the database failed.
        """
        task = asyncio.get_running_loop().create_task(patiently(work, name, self.seams), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_ended)
        return task

    def _on_task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("task %s crashed", task.get_name(), exc_info=error)

    def network(self, network: str) -> Network | None:
        """The open network of an id."""
        runner = self.runners.get(network)
        return runner.network if runner else None

    def presence_members(self, network: str) -> int:
        """See ``hansa.bus.presence_relay.PresenceHost``."""
        return next((one.presence_members for one in self.setup.networks if one.id == network), 0)

    def authority(self, network: str) -> Authority | None:
        """The open network of an id, if it is one that can be a room's authority."""
        runner = self.runners.get(network)
        return runner.authority if runner and runner.network is not None else None

    def late_authority(self, network: str) -> LateAuthority | None:
        """The open network of an id, if it is one whose rooms decide by reflecting."""
        runner = self.runners.get(network)
        return runner.late_authority if runner and runner.network is not None else None

    def on_committed(self, room: Room, events: Sequence[Event]) -> None:
        """Events of a room were committed: wake its consumers, tell the observers."""
        for name in room.links:
            consumer = self.consumers.get(name)
            if consumer is not None:
                consumer.wake()
        self.direct_chats.on_committed(room, events)
        self.commands.on_committed(room, events)
        self._durable.wake(room.id)
        if not self._hook_implementations("event_committed"):
            return
        for event in events:
            try:
                self._observers.queue.put_nowait(event)
            except asyncio.QueueFull:
                self.count("observer_events_dropped")

    def on_shown_in_part(self, room: Room, link: Link, event: Event) -> None:
        """See ``hansa.bus.late_authority.ProposalHost``."""
        self.spawn(self._rejections.tell_of_part(link, event), f"rest of {event.id} in {room.id}")

    async def drafted_deliveries(self, room: Room, link: Link, event: Event, key: str) -> Sequence[Delivery]:
        """See ``hansa.bus.late_authority.ProposalHost``."""
        runner = self.runners[link.native.network]
        if runner.state != NetworkStatus.UP:
            raise Busy(f"{runner.id} is {runner.state}", after=1.0)
        await runner.throttle.pass_one()
        return await Consumer(room, link, runner, self._judged).deliveries_of(event, key)

    async def refusal_of_invite(self, room: Room, inbound: Submission) -> Refusal | None:
        """See ``hansa.bus.admission.NetworkLookup``."""
        return await self.direct_chats.refusal_of(room, inbound)

    def is_command(self, sender: NativeId, content: Content) -> bool:
        """See ``hansa.bus.admission.NetworkLookup``."""
        return self.commands.is_command(sender, content)

    def on_command(self, room: Room, inbound: Submission) -> None:
        """See ``hansa.bus.pipeline.BusHost.on_command``."""
        self.commands.on_command(room, inbound)

    def corrected(self, room: Room) -> None:
        """A room's present changed and no event says so: tell the networks that show it."""
        self.presents.show(room)

    def marks_of_correction(self, room: Room) -> Sequence[Write]:
        """See ``hansa.bus.pipeline.BusHost.marks_of_correction``."""
        return self.presents.marks(room)

    async def wait_up(self, network: str) -> None:
        """Wait until a network is up."""
        runner = self.runners.get(network)
        if runner is not None:
            await runner.up()

    def on_taken_back(self, room: Room, events: Sequence[Event]) -> None:
        """Events left the log: what waits to be sent of them is not sent, and their files go too."""
        for link in room.links.values():
            if (consumer := self.consumers.get(link.id)) is not None:
                consumer.on_retracted(event.seq for event in events)
        if self.media.names_files(events):
            gone = [event.id for event in events]
            self.spawn(partial(self._release_files, gone), f"files of {room.id}")

    async def _release_files(self, event_ids: Sequence[str]) -> None:
        await self.media.cleaner.release_files(event_ids)

    def server_of(self, network: str, user: str) -> str:
        """The server of a user, by the network's own rule."""
        return self.pipeline.server_of(network, user)

    def prepare(self) -> None:
        """Open the networks, unless that was done: without a store, and nothing of them is started."""
        if not self._prepared:
            self._prepared = True
            for setup in self.setup.networks:
                self._open_network(setup)
            if "" not in self.routers:
                self.routers[""] = self._new_router("")

    async def start(self) -> None:
        """Open the store, the policies, the networks; load rooms; begin delivering and connecting."""
        self._started = True
        await self.store.open()
        await catalogue.check_whole(self.store)
        await self.store.declare("", tables.SCHEMA)
        await self.media.start()
        await self._policies.open(self, self.setup.policies)
        await self.decisions.kept.open()
        await self.decisions.adopt(self._policies.installed, digest_of(self.setup.policies), restart=True)
        self.prepare()
        for network, context in self.contexts.items():
            for schema in context.schemas:
                await self.store.declare(network, schema)
        await self.rooms.load()
        for room in self.rooms:
            for link in room.links.values():
                await self.start_consumer(link)
        await self._durable.open(self, self.setup.observers)
        self.spawn(self._run_observers(), "observers")
        self.spawn(self._prune_old_rows(), "old rows")
        self.spawn(self.present.every(), "views")
        self.spawn(self.media.sweep_regularly, "media")
        for runner in self.runners.values():
            self.spawn(runner.run(), f"network {runner.id}")
        self.direct_chats.resume()
        self.spawn(self.presents.resume, "presents")
        self.spawn(self.linker.members.resume, "members of links")
        self.spawn(self.presence.run, "presence")
        for wanted in self.setup.rooms:
            self.spawn(partial(self.linker.keep_room, wanted), "configured room")

    async def stop(self) -> None:
        """Stop the deliveries first, so that no send is cut off, then the networks, then the store. Events
        that a network submits meanwhile stand behind the cursors and are delivered at the next start.
        """
        self._stopping = True
        for task in list(self._tasks):
            if task.get_name().startswith(("network ", "configured room", "observer")):
                task.cancel()
        await asyncio.gather(*(self._end_consumer(name) for name in list(self._consuming)))
        await asyncio.gather(*(runner.stop() for runner in self.runners.values()))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*list(self._tasks), return_exceptions=True)
        await self.store.close()

    async def reload_policies(self, setups: Sequence[PolicySetup]) -> None:
        """Take other policies; events not delivered yet are judged again. Raises without any change. Before
        ``start`` they are those that it opens.
        """
        if not self._started:
            self.setup = replace(self.setup, policies=tuple(setups))
            self.policy_setups = tuple(setups)
            return
        fresh, old = Policies(), self._policies
        await fresh.open(self, setups)
        await self.decisions.adopt(fresh.installed, digest_of(setups))
        self._policies, self.policy_setups = fresh, tuple(setups)
        await old.close()
        self.spawn(self.present.every(), "views")
        for consumer in self.consumers.values():
            consumer.wake()

    def _open_network(self, setup: NetworkSetup) -> None:
        if setup.id in self.runners:
            raise ConfigError("a network of this name is open already", path=f"networks.{setup.id}")
        clock = self.seams.clock
        throttle = DeliveryThrottle(clock, setup.rate, setup.burst)
        runner = NetworkSupervisor(setup.id, self.seams, throttle, partial(self._make_network, setup), self)
        self.runners[setup.id] = runner
        self.contexts[setup.id] = NetworkContextImpl(self, runner, setup.options)
        runner.open()

    async def reload_networks(self, setups: Sequence[NetworkSetup]) -> dict[str, str]:
        """Take other networks: one whose settings differ is restarted, a new one is started, one that is gone
        is stopped. The others do not notice. Returns the ids of these, each with an empty text, or with the
        reason why it stays as it was. Before ``start`` nothing is done.
        """
        if not self._started:
            return {}
        done: dict[str, str] = {}
        async with self._reloading:
            old, new = {one.id: one for one in self.setup.networks}, {one.id: one for one in setups}
            differing = [key for key in (old | new) if old.get(key) != new.get(key)]
            for key in differing:
                try:
                    await self._replace_network(key, old.get(key), new.get(key))
                except Exception as error:  # a plugin's fault: the other networks are reloaded all the same
                    self.log.exception("network %s stays as it was", key)
                    done[key] = str(error) or type(error).__name__
                else:
                    done[key] = ""
        return done

    async def _replace_network(self, key: str, old: NetworkSetup | None, new: NetworkSetup | None) -> None:
        if old is not None:
            await self._close_network(key)
        try:
            if new is not None:
                await self._start_network(new)
        except BaseException:
            await self._close_network(key)
            if old is not None:
                await self._start_network(old)
            raise
        others = [one for one in self.setup.networks if one.id != key]
        self.setup = replace(self.setup, networks=(*others, new) if new is not None else tuple(others))

    async def _start_network(self, setup: NetworkSetup) -> None:
        self._open_network(setup)
        for schema in self.contexts[setup.id].schemas:
            await self.store.declare(setup.id, schema)
        for link in self.rooms.links(setup.id):
            await self.start_consumer(link)
        self.spawn(self.runners[setup.id].run(), f"network {setup.id}")

    async def _close_network(self, network: str) -> None:
        """Stop a network, as far as it was opened; its links and its data stay."""
        for task in [task for task in self._tasks if task.get_name() == f"network {network}"]:
            task.cancel()
            if (await asyncio.wait({task}, timeout=_CANCEL_TIMEOUT_S))[1]:
                self.log.error(
                    "the start of %s does not end when it is cancelled: a fault of the plugin", network
                )
        await asyncio.gather(*(self._end_consumer(link.id) for link in self.rooms.links(network)))
        self.on_network_crashed(network)
        runner = self.runners.pop(network, None)
        if runner is not None:
            await runner.stop()
            self.on_status_changed(network, "stopped", "")
        self.contexts.pop(network, None)
        if self._manager.has_plugin(f"network:{network}"):
            self._manager.unregister(name=f"network:{network}")
        for host in [host for host, whose in self._hosts.items() if whose == network]:
            del self._hosts[host]
            self.routers.pop(host, None)
        if "" not in self.routers:
            self.routers[""] = self._new_router("")

    def _make_network(self, setup: NetworkSetup) -> Network:
        context = self.contexts[setup.id]
        context.schemas.clear()
        network = loader.open_plugin(self._manager, "open_network", setup.module, context)
        if not isinstance(network, Network):
            raise PluginError(f"network {setup.id!r} lacks start, stop or send")
        name = f"network:{setup.id}"
        if self._manager.has_plugin(name):
            self._manager.unregister(name=name)
        loader.register(self._manager, network, name)
        host = str(getattr(setup.options, "server_name", "") or "")
        for implementation in self._manager.hook.register_routes.get_hookimpls():
            if implementation.plugin is network:
                if self._hosts.setdefault(host, setup.id) != setup.id:
                    text = f"networks.{self._hosts[host]} answers requests for {host or 'any name'!r} already"
                    raise ConfigError(text, path=f"networks.{setup.id}")
                router = self._new_router(host)
                implementation.function(router)
                self.routers[host] = router
        return network

    def _new_router(self, host: str) -> Router:
        """A router for the requests of a host; the one of no host also answers links to files, and
        forms of logins.
        """
        router = Router()
        if not host:
            self.media.add_routes(router)
            if self.setup.commands.logins:
                self._login_form.add_routes(router)
        return router

    def on_network_crashed(self, network: str) -> None:
        """The answer of a network that is stopped and will be started again: the request must be repeated."""
        for host, whose in self._hosts.items():
            if whose == network and host in self.routers:
                self.routers[host].close()

    async def _prune_old_rows(self) -> None:
        while True:
            try:
                decisions = await self.decisions.kept.prune()
                names = await self.names.forget_old_chosen_ids(self.seams.clock.now())
            except StoreError as error:
                self.log.warning("old rows could not be removed: %s", error)
            else:
                if decisions or names:
                    self.log.info("%d old decisions and %d old names were removed", decisions, names)
            await asyncio.sleep(_PRUNE_EVERY)

    def on_reconnected(self, network: str) -> None:
        """See ``hansa.host.supervisor.NetworkListener``."""
        for link in self.rooms.links(network):
            if (consumer := self.consumers.get(link.id)) is not None:
                consumer.wake()

    def on_status_changed(self, network: str, state: str, text: str) -> None:
        """See ``hansa.host.supervisor.NetworkListener``."""
        self.setup.listener.on_status(network, state, text)

    def on_not_carried(self, link: Link, event: Event) -> None:
        """See ``hansa.host.supervisor.NetworkListener``."""
        network, kind = link.native.network, event.content.kind
        self.count("not_carried", network=network, kind=kind.value)
        if features_of(self.network(network)).level(kind) is Level.REJECTED:
            self.spawn(self._rejections.tell_sender(link, event), f"rejection by {link.id}")

    async def on_delivery_failed(self, delivery: Delivery, error: str) -> None:
        """See ``hansa.host.supervisor.NetworkListener``."""
        self.count("dead_letters", network=delivery.link.native.network)
        told = self._rejections.tell_sender(delivery.link, delivery.event, failed=True)
        self.spawn(told, f"failure of {delivery.key}")
        await notify_observers(self._hook_implementations("delivery_failed"), self.log, delivery, error)

    def _hook_implementations(self, hook: str) -> list[tuple[str, Callable[..., Awaitable[Any]]]]:
        return loader.hook_implementations(self._manager, hook) + self._policies.observers(hook)

    async def check_password(self, user: str, password: str) -> bool | None:
        """See the hook ``check_password``."""
        for name, asked in self._hook_implementations("check_password"):
            try:
                async with asyncio.timeout(_DIRECTORY_TIMEOUT_S):
                    answer = await asked(user, password)
            except Exception as error:  # noqa: BLE001  # a plugin that fails has no opinion
                self.count("password_checks_failed", plugin=name)
                self.log.warning("%s could not check a password: %s", name, type(error).__name__)
                continue
            if isinstance(answer, bool):
                return answer
        return None

    async def _run_observers(self) -> None:
        while True:
            event = await self._observers.queue.get()
            await notify_observers(self._hook_implementations("event_committed"), self.log, event)

    async def start_consumer(self, link: Link, start: int | None = None) -> None:
        """Begin delivering to a link; the authority's link needs none."""
        if link.authority or link.id in self._consuming or self._stopping:
            return
        runner = self.runners.get(link.native.network)
        if runner is None:
            return
        consumer = Consumer(self.rooms.room_of(link.native), link, runner, self._judged)
        await consumer.load(start)
        self.consumers[link.id] = consumer
        self._consuming[link.id] = self.spawn(consumer.run(), f"deliver {link.id}")

    async def stop_consuming(self, native: NativeId) -> None:
        """End the deliveries to a link that goes away."""
        await self._end_consumer(str(native))

    async def _end_consumer(self, name: str) -> None:
        task, consumer = self._consuming.pop(name, None), self.consumers.get(name)
        if task is not None and consumer is not None:
            await consumer.end(task)
        if consumer is not None and self.consumers.get(name) is consumer:
            del self.consumers[name]  # not before: a confirmation may come meanwhile

    async def link_opened(self, opened: OpenedRoom, room: str | None) -> Link:
        """See ``hansa.host.room_linker.RoomLinker.link_opened``."""
        return await self.linker.link_opened(opened, room)

    async def link_room(
        self,
        specs: Sequence[str],
        room: str | None = None,
        *,
        create: bool = False,
        wish: RoomWish | None = None,
    ) -> str:
        """See ``hansa.host.room_linker.RoomLinker.link_room``."""
        return await self.linker.link_room(specs, room, create=create, wish=wish)

    async def _dead_letters(self, link: str, seq: int | None) -> list[Row]:
        rows = scan_all(self.core, "dead", equal=(link,))
        return [row async for row in rows if seq is None or row.key[1] == seq]

    async def retry_dead_letters(self, link: str, seq: int | None) -> dict[str, int]:
        """Send dead letters of a link again; how many went, how many stay."""
        consumer = self.consumers.get(link)
        if consumer is None:
            raise LocalProtocolError(f"there is no link {link} that is delivered to")
        sent = failed = 0
        for row in await self._dead_letters(link, seq):
            stored = await self.core.get("event", (consumer.room.id, row.key[1]))
            if stored is not None and await consumer.retry_dead_letter(tables.event_of(stored)):
                await self.core.commit([Delete("dead", row.key)])
                sent += 1
            else:
                failed += 1
        return {"sent": sent, "failed": failed}

    async def drop_dead_letters(self, link: str, seq: int | None) -> int:
        """Forget dead letters of a link; how many."""
        rows = await self._dead_letters(link, seq)
        for piece in pieces([Delete("dead", row.key) for row in rows]):
            await self.core.commit(piece)
        return len(rows)

    def status(self) -> Mapping[str, tuple[str, str]]:
        """Per network its state and what it says."""
        return {r.id: (r.state, r.text) for r in self.runners.values()}
