"""One process: a configuration brought up, kept, reloaded by SIGHUP, brought down by SIGTERM within 10 s."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from hansa import terminal
from hansa.admin.api import AdminApi
from hansa.api.contracts import RoomWish
from hansa.app import App
from hansa.bus.decision_log import Retention
from hansa.config.private_files import exposed
from hansa.config.reader import Config, ConfigErrors, NetworkConfig, PolicyConfig, load
from hansa.config.restart import needing_restart
from hansa.config.settings import CommandsConfig, TlsConfig
from hansa.environment import Environment, Random, SystemClock, SystemRandom
from hansa.file_descriptors import connections_within, raise_limit
from hansa.host import loader
from hansa.http.client import HttpClient
from hansa.http.connection_limits import ConnectionLimiter, ConnectionLimits
from hansa.http.listener import Certificate, Dispatcher, Listener, TlsContexts
from hansa.http.request_bodies import MIB, BodyBudget, BodyLimits
from hansa.logins.secret_box import read_or_make_key
from hansa.logs import log_to
from hansa.media.configured_limits import to_media_limits
from hansa.model.chat_commands import CommandSettings
from hansa.model.errors import HansaError
from hansa.model.ref import NativeId
from hansa.model.verdict import Action
from hansa.setup import NetworkSetup, ObserverSetup, PolicySetup, ProcessListener, RoomSetup, Setup
from hansa.standby import ASK_EVERY, Standby, let_go
from hansa.standstill import Standstill
from hansa.store import open_store
from hansa.store.base import InUse, Shared
from hansa.store.blobs import FileBlobs
from hansa.store.faults import FaultKind, StoreFault, StoreLost
from hansa.store.startup import open_when_up

_STOP_TIMEOUT_S = 10.0
#: Seconds that tasks have to end once they are cancelled.
_CANCEL_TIMEOUT_S = 1.0
#: Exit codes of a process that has no database any more: another has taken it over; it is not known what was
#: kept, and a new start reads it.
LOST, UNKNOWN = 4, 5
#: That of a process whose database was away for as long as it waits for one when it starts.
AWAY = 6
#: Seconds between looks at the database while nobody asks how it is.
_LOOK_AT_STORE = 10.0
#: Connections that the command line and the metrics have for themselves.
_LOCAL = ConnectionLimits(total=64, per_address=64, per_group=64)
Printer = Callable[[str], None]


def _policy_setups(configs: Sequence[PolicyConfig]) -> list[PolicySetup]:
    return [
        PolicySetup(
            name=p.name,
            module=p.module,
            options=p.options,
            on_error=Action.DENY if p.on_error == "deny" else Action.ALLOW,
            shadow=p.mode == "shadow",
            timeout=p.timeout,
        )
        for p in configs
    ]


def _network_setups(configs: Sequence[NetworkConfig]) -> list[NetworkSetup]:
    return [
        NetworkSetup(
            id=n.id,
            module=n.module,
            options=n.options,
            rate=n.throttle.rate,
            burst=n.throttle.burst,
            presence_members=n.presence_members,
        )
        for n in configs
    ]


def _command_settings(config: CommandsConfig) -> CommandSettings:
    return CommandSettings(
        enabled=config.enabled,
        prefix=config.prefix,
        operators=frozenset(NativeId(*one.split(":", 1)) for one in config.operators),
        linkable=tuple(config.linkable),
        logins=frozenset(config.logins),
    )


def _read_login_key(folder: Path, config: CommandsConfig, random: Random) -> bytes:
    """The key that encrypts secrets of logins; none where nobody can log in. Raises ConfigError, OSError."""
    if not config.enabled or not config.logins:
        return b""
    return read_or_make_key(folder / config.login_key, random)


def _to_certificate(folder: Path, tls: TlsConfig) -> Certificate:
    return Certificate(certificate=folder / tls.certificate, key=folder / tls.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessControl:
    """What a running configuration does to its process: ``say`` prints what a person should see; ``end`` has
    the process stopped; ``on_store_lost`` is called once the database is lost, before anything else happens.
    """

    say: Printer
    end: Callable[[], None]
    on_store_lost: Callable[[StoreFault], object]


class Process:
    """A running configuration."""

    def __init__(self, path: Path, config: Config, control: ProcessControl) -> None:
        self._path = path
        self._end = control.end
        self._config = config
        self._say = control.say
        folder, server = config.folder, config.server
        ca = folder / server.ca_file if server.ca_file else None
        seams = Environment(SystemClock(), SystemRandom())
        self._standstill = Standstill(seams.clock.monotonic, self._probe_store)
        self._http = HttpClient(
            ca_file=ca,
            private_networks=server.private_networks,
            count=self._add_count,
            may_speak=self._standstill.may_speak,
        )
        self._blobs = FileBlobs(folder / config.media.folder)
        self.app = App(
            Setup(
                store=open_store(config.store.url, folder),
                http=self._http,
                seams=seams,
                blobs=self._blobs,
                networks=_network_setups(config.networks),
                policies=_policy_setups(config.policies),
                observers=[
                    ObserverSetup(name=o.name, module=o.module, options=o.options) for o in config.observers
                ],
                rooms=[
                    RoomSetup(
                        links=r.links,
                        wish=RoomWish(name=r.name, published=r.published),
                        owners=r.owners,
                    )
                    for r in config.rooms
                ],
                retention=Retention(
                    days=server.decisions_days,
                    rows=server.decisions_rows,
                    strangers=server.decisions_of_strangers,
                ),
                media=to_media_limits(config),
                commands=_command_settings(config.commands),
                login_key=_read_login_key(folder, config.commands, seams.random),
                listener=ProcessListener(on_status=self._say_status, on_store_lost=control.on_store_lost),
            )
        )
        store = self.app.setup.store
        self._standby = (
            Standby(self.app.store, store, seams.clock, self._say) if isinstance(store, Shared) else None
        )
        self._operations = AdminApi(self.app, self.reload, self._end, self._standby)
        self.app.measures.append(self._http.measures)
        self._tls: TlsContexts | None = None
        self._starting = False
        self._listeners: list[Listener] = []

    def _add_count(self, name: str, **labels: str) -> None:
        self.app.count(name, **labels)

    async def _probe_store(self) -> None:
        await self.app.store.probe()

    async def hold(self, ended: asyncio.Event) -> bool:
        """Open the database. Where another process has one that may be waited for, be a standby until it is
        this one's; False if ``ended`` came first. Raises StoreError.
        """
        try:
            if self._standby is None:
                await self.app.store.open()  # a file that is not there comes by no waiting
            elif not await open_when_up(self.app.store, ended, self.app.seams.clock, self._say):
                return False
        except InUse as taken:
            if self._standby is None:
                raise
            self._standby.begin(taken)
            self._tls_contexts()
            self.app.prepare()
            await self._start_listeners(self._local_listeners())
            if not await self._standby.wait(ended):
                return False
            addresses = [urlsplit(address) for address in self._config.server.listen]
            await let_go([(parts.hostname or "", parts.port or 0) for parts in addresses])
        return True

    async def start(self) -> None:
        """Open everything, once the database is held; networks go on connecting afterwards."""
        self._starting = True
        await asyncio.to_thread(self._blobs.remove_unfinished)
        self._tls = self._tls_contexts()
        await self.app.start()
        proxies = self._config.server.trusted_proxies
        public = Dispatcher(self.app.routers, self.app.count, proxies, self.app.store.health.is_away)
        intake, budget = self._shared_limits()
        listeners = []
        for address in self._config.server.listen:
            parts = urlsplit(address)
            tls = self._tls if parts.scheme == "https" else None
            listeners.append(
                Listener(public, parts.hostname or "", parts.port or 0, tls, intake=intake, budget=budget)
            )
        waited = self._standby is not None and self._standby.active
        await self._start_listeners(listeners if waited else [*listeners, *self._local_listeners()])
        self.app.spawn(self._look_at_store(), "store health")
        store = self.app.setup.store
        if isinstance(store, Shared):
            self.app.spawn(partial(self._watch_promotion, store), "promotion")
            self.app.spawn(self._standstill.watch, "standstill")
        if self._standby is not None:
            self._standby.finish()

    def _local_listeners(self) -> list[Listener]:
        """The socket of the command line, and the address of the metrics."""
        socket = str(self._config.folder / self._config.server.admin.removeprefix("unix:"))
        local = Dispatcher({"": self._operations.routes()}, self.app.count)
        listeners = [Listener(local, socket, 0, intake=ConnectionLimiter(_LOCAL, self.app.count))]
        if self._config.server.metrics:
            host, _, port = self._config.server.metrics.rpartition(":")
            watched = Dispatcher({"": self._operations.watched()}, self.app.count)
            apart = ConnectionLimiter(_LOCAL, self.app.count)
            listeners.append(Listener(watched, host.strip("[]"), int(port), intake=apart))
        return listeners

    async def _start_listeners(self, listeners: Sequence[Listener]) -> None:
        self._listeners += listeners
        for listener in listeners:
            await listener.start()

    async def _watch_promotion(self, store: Shared) -> None:
        """End for a standby that was promoted."""
        while True:
            await asyncio.sleep(ASK_EVERY)
            asked = await store.takeover_requested_by()
            if asked:
                host, _, pid = asked.rpartition(" ")
                self._say(
                    f"process {pid} on {host} was promoted and takes over the database: this process ends"
                )
                self._end()
                return

    async def _look_at_store(self) -> None:
        """So that a fault of the database, and its end, are told although nobody writes."""
        was = ""
        while True:
            await asyncio.sleep(_LOOK_AT_STORE)
            found = await self.app.store.check()
            now = found.kind.value if found is not None else ""
            if now != was:
                self._say(f"store: degraded, {now}" if now else "store: up")
            was = now

    def _shared_limits(self) -> tuple[ConnectionLimiter, BodyBudget]:
        """Returns the limits that all public addresses share: connections, as far as there are descriptors
        for them, and memory for bodies. The socket of the command line and the metrics have their own.
        """
        server = self._config.server
        limits = ConnectionLimits(
            total=server.connections,
            per_address=server.connections_per_address,
            per_group=server.connections_per_subnet,
        )
        most = connections_within(raise_limit(), server.connections)
        intake = ConnectionLimiter(limits.within(most), self.app.count)
        budget = BodyBudget(BodyLimits.of(server.body_memory * MIB), self.app.count)
        self.app.measures += [intake.measures, budget.measures]
        return intake, budget

    def _tls_contexts(self) -> TlsContexts | None:
        server, folder = self._config.server, self._config.folder
        if server.tls is None:
            return None
        named = {}
        for network in self._config.networks:
            name = str(getattr(network.options, "server_name", "")).rpartition(":")[0]
            if network.tls is not None:
                named[name] = _to_certificate(folder, network.tls)
        return TlsContexts(_to_certificate(folder, server.tls), named)

    @property
    def stands_by(self) -> bool:
        """True if the process waits for a database that another process has."""
        return self._standby is not None and self._standby.active and not self._starting

    async def reload(self) -> tuple[list[str], list[str]]:
        """Read policies, certificates and networks again; on a mistake in the file everything stays as it is,
        and it is raised. Returns the applied settings, and those that changed and need a restart. A standby
        checks the certificates, and reads them once it serves.
        """
        config = load(self._path, loader.load_plugin)
        tls = self._tls or self._tls_contexts()
        if tls is not None:
            tls.reload()
        await self.app.reload_policies(_policy_setups(config.policies))
        changed = await self.app.reload_networks(_network_setups(config.networks))
        taken = [f"policy {p.name}" for p in config.policies] + (["certificates"] if tls else [])
        taken += [
            f"network {key}{f' stays as it was ({why})' if why else ''}" for key, why in changed.items()
        ]
        return taken, needing_restart(self._config, config, networks_reload=self.app.started)

    async def stop(self) -> None:
        """Refuse new work, let go of what is under way, store what must be stored."""
        for listener in self._listeners:
            await listener.stop()
        await self.app.stop()
        await self._http.close()

    def _say_status(self, network: str, state: str, text: str) -> None:
        self._say(f"network {network}: {state}{' - ' + text if text else ''}")

    def report(self) -> None:
        """Prints the addresses and the policies. Networks and waiting deliveries are reported as they
        change.
        """
        for address in self._config.server.listen:
            self._say(f"listening on {address}")
        for policy in self.app.decisions.policies:
            self._say(f"policy {policy.name}: {'shadow' if policy.shadow else 'enforced'}")


async def _run_process(path: Path, config: Config, say: Printer) -> int:
    loop = asyncio.get_running_loop()
    ended, ready, awaited = asyncio.Event(), asyncio.Event(), asyncio.Event()
    control = ProcessControl(say=say, end=ended.set, on_store_lost=partial(_end, say=say))
    try:
        process = Process(path, config, control)
    except (HansaError, OSError) as error:  # the key of logins
        say(f"cannot start: {error}")
        return 1

    async def reload() -> None:
        try:
            taken, waiting = await process.reload()
            later = " (from when this process serves)" if process.stands_by else ""
            say(f"reloaded{later}: " + (", ".join(taken) or "nothing"))
            if waiting:
                say("changes with a restart: " + ", ".join(waiting))
        except (HansaError, OSError, ssl.SSLError) as error:
            say(f"not reloaded, nothing has changed: {error}")

    async def reload_when_ready() -> None:
        await ready.wait()
        await reload()

    def hang_up() -> None:
        if ready.is_set() or process.stands_by:
            process.app.spawn(reload(), "reload")
        elif not awaited.is_set():
            awaited.set()
            say("reload: done once this process is ready")
            process.app.spawn(reload_when_ready(), "reload")

    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGINT, ended.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    try:
        if not await process.hold(ended):
            await process.stop()
            say("stopped")
            return 0
        await process.start()
    except (HansaError, OSError, ssl.SSLError) as error:
        told = error.strerror if isinstance(error, OSError) and not error.filename else None
        say(f"cannot start: {told or error}")
        await process.stop()
        return AWAY if isinstance(error, StoreFault) and error.kind is FaultKind.AWAY else 1
    _freeze_collector()
    process.report()
    say("ready")
    ready.set()
    await ended.wait()
    say("stopping")
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S - 1):
            await process.stop()
    except TimeoutError:
        say("stopped with work in progress; it continues at the next start")
        return await _exit_code(1, say)
    say("stopped")
    return await _exit_code(0, say)


async def _exit_code(code: int, say: Printer) -> int:
    """Returns ``code`` where every task ends. A task that swallows its cancellation would keep the process
    for ever: then it ends here, with 1.
    """
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    left = (await asyncio.wait(tasks, timeout=_CANCEL_TIMEOUT_S))[1] if tasks else set()
    if not left:
        return code
    names = ", ".join(sorted(task.get_name() for task in left))
    say(f"ended without {names}, which does not end when it is cancelled: a fault of the plugin")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _end(fault: StoreFault, say: Printer) -> NoReturn:
    """End at once: no farewell to a peer, nothing released, since all of it may be another's by now."""
    say(f"stopped: {fault}")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(LOST if isinstance(fault, StoreLost) else UNKNOWN)


def _freeze_collector() -> None:
    """Keeps the garbage collector from looking again at the objects that exist now."""
    gc.collect()
    gc.freeze()


def run(path: Path, *, verbose: bool = False) -> int:
    """Run until a signal; the exit code."""
    os.umask(0o077)  # whatever this process makes is for its user alone, from the moment that it is there
    log_to(sys.stderr, logging.INFO if verbose else logging.WARNING)
    say = terminal.announce
    try:
        config = load(path, loader.load_plugin)
    except ConfigErrors as mistakes:
        for error in mistakes.errors:
            say(f"{path}: {error}")
        return 2
    for warning in exposed(path, config):
        say(f"warning: {warning}")
    # Messages leave few cycles: the collector looks less often at less.
    gc.set_threshold(20_000, 20, 20)
    try:
        import uvloop  # noqa: PLC0415  # not on every platform
    except ModuleNotFoundError:
        return asyncio.run(_run_process(path, config, say))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run_process(path, config, say))
