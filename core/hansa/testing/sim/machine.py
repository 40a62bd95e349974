"""One simulated machine: a whole Hansa on a disk that outlives it."""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import Future, Task
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

from hansa.app import App
from hansa.environment import Environment, HttpRequest, HttpResponse, Request
from hansa.http.listener import Dispatcher
from hansa.http.router import Router
from hansa.setup import NetworkSetup, PolicySetup, ProcessListener, RoomSetup, Setup
from hansa.store.base import Store
from hansa.store.faults import StoreFault
from hansa.store.memory import MemoryDisk
from hansa.testing.sim.disk import CrashableStore
from hansa.testing.sim.loop import OWNER
from hansa.testing.sim.network import VirtualHttp, VirtualNetwork
from hansa.testing.sim.seeded import SeededRandom, VirtualClock

T = TypeVar("T")

_CANCELS = 200


class Crashed(RuntimeError):
    """The machine died before what was asked of it was done. Whether it happened is not known."""


class Machine:
    """A Hansa that can be started, crashed at any moment and started again on the same disk.

    Everything it does runs in tasks that belong to it, those that serve other machines' requests included;
    a crash ends them all. ``app`` is the running ``hansa.app.App``, ``boots`` how often it was started.
    Made by ``Simulation.machine``.
    """

    def __init__(self, network: VirtualNetwork, name: str, networks: Sequence[NetworkSetup]) -> None:
        self.name = name
        self.networks = networks
        self.rooms: Sequence[Sequence[str]] = ()
        self.policies: Sequence[PolicySetup] = ()
        self.names: frozenset[str] = frozenset()
        self.skew = 0
        self.disk = MemoryDisk()
        #: The layer between the app and its disk, such as a store that fails.
        self.between: Callable[[Store], Store] = lambda store: store
        self.boots = 0
        self.alive = False
        self.app: App | None = None
        self._network = network
        self._store: CrashableStore | None = None
        self._lose = 0
        self._tasks: dict[Task[Any], None] = {}
        self._gone: Future[None] | None = None

    def adopt(self, task: Task[Any]) -> None:
        """A task was made in this machine's name."""
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    @property
    def listening(self) -> bool:
        """True while others can connect."""
        return self.alive and self.app is not None

    @property
    def running(self) -> App:
        """The app. Raises ``Crashed`` while there is none."""
        if self.app is None or not self.alive:
            raise Crashed(f"{self.name} is down")
        return self.app

    async def start(self) -> None:
        """Boot, from what the disk holds. Raises ``Crashed`` if the power fails meanwhile."""
        loop, network = asyncio.get_running_loop(), self._network
        self.boots += 1
        boot = f"{self.name} boot {self.boots}"
        network.trace.note(self.name, f"boot {self.boots}")
        store = CrashableStore(
            self.disk, network.trace, self.name, SeededRandom(network.seed, f"disk of {boot}")
        )
        store.died = self.crash
        self._store = store
        self._lose = 0
        self._gone = loop.create_future()
        self.alive = True
        network.ended.discard(self.name)
        seams = Environment(VirtualClock(loop, self.skew), SeededRandom(network.seed, boot))

        async def boot_up() -> App:
            app = App(
                Setup(
                    store=self.between(store),
                    http=VirtualHttp(network, self.name),
                    seams=seams,
                    networks=self.networks,
                    policies=self.policies,
                    rooms=[RoomSetup(links=links) for links in self.rooms],
                    listener=ProcessListener(on_store_lost=self._on_store_lost),
                )
            )
            await app.start()
            return app

        self.app = await self.do(boot_up())

    async def stop(self) -> None:
        """Stop as ``SIGTERM`` does."""
        await self.do(self.running.stop())
        self._network.trace.note(self.name, "stopped")
        self.alive = False
        self.app = None

    def spawn(self, work: Coroutine[Any, Any, T]) -> Task[T]:
        """Run something in this machine's name: it dies with the machine."""
        context = contextvars.copy_context()
        context.run(OWNER.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on this machine and wait for it. Raises ``Crashed`` if the machine dies first."""
        if not self.alive:
            work.close()
            raise Crashed(f"{self.name} is down")
        task = self.spawn(work)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.cancelled():
            raise Crashed(f"{self.name} died")
        return task.result()

    def fail_at(self, commits: int, *, after: bool, lose: int = 0) -> None:
        """Lose power at the n-th commit from now, just before or after it; ``lose`` is as in ``crash``."""
        assert self._store is not None
        self._lose = lose
        self._store.fail_at(commits, after=after)

    def crash(self, lose: int | None = None) -> None:
        """Lose power now. The last ``lose`` lazy batches that were not synced are lost with it."""
        if not self.alive:
            return
        assert self._store is not None
        self.alive = False
        self.app = None
        self._network.ended.add(self.name)
        self._store.power_off()
        losing = self._lose if lose is None else lose
        self._network.trace.note(
            self.name, f"crash, {min(losing, len(self.disk.unsynced))} lazy batches lost"
        )
        self.disk.crash(losing)
        for task in list(self._tasks):  # at once: not even what is ready to run does
            task.cancel()
        asyncio.get_running_loop().create_task(self._end_process(), context=contextvars.Context())

    def _on_store_lost(self, _: StoreFault) -> NoReturn:
        """Does what ``hansa run`` does when its database is lost: it ends and does not return."""
        self.crash()
        raise asyncio.CancelledError

    async def gone(self) -> None:
        """Wait until the crash is over and nothing of the process is left."""
        if self._gone is not None:
            await asyncio.shield(self._gone)

    async def restart(self) -> None:
        """Wait for the end of a crash and boot. Raises ``Crashed`` as ``start`` does."""
        await self.gone()
        await self.start()

    async def _end_process(self) -> None:
        assert self._gone is not None
        for _ in range(_CANCELS):
            for task in list(self._tasks):
                task.cancel()
            if not self._tasks:
                break
            await asyncio.sleep(0)
        if self._tasks:
            left = ", ".join(task.get_name() for task in self._tasks)
            self._gone.set_exception(RuntimeError(f"these tasks of {self.name} cannot be cancelled: {left}"))
            return
        self._gone.set_result(None)

    def accept(self, request: HttpRequest, source: str) -> Task[HttpResponse]:
        """See ``network.Peer.accept``: what the listeners do for a socket."""
        return self.spawn(self._serve_request(request, source))

    async def _serve_request(self, request: HttpRequest, source: str) -> HttpResponse:
        target = request.target
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Request(
            method=request.method,
            target=target,
            host=request.host_header or request.host,
            query=parse_qsl(target.partition("?")[2], keep_blank_values=True, max_num_fields=200),
            headers=headers,
            authorizations=[v for k, v in request.headers.items() if k.lower() == "authorization"],
            remote=source,
        )
        body = request.body or b""

        async def read(limit: int) -> bytes | None:
            return body if len(body) <= limit else None

        app = self.app
        routers: dict[str, Router] = app.routers if app else {}
        count = app.count if app else (lambda _: None)
        answer = await Dispatcher(routers, count).answer(asked, read)
        if self.name in self._network.ended:
            self._network.late.append(f"{self.name} answers {target} although it has ended")
        more = {name.lower(): value for name, value in answer.headers.items()}
        return HttpResponse(
            status=answer.status, headers={"content-type": answer.content_type, **more}, body=answer.body
        )
