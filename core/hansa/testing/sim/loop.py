"""An event loop whose time is virtual: it jumps to the next timer whenever nothing is ready."""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import Task
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, TypeVarTuple, Unpack

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

#: So many rounds of the loop without any time passing are a livelock.
_ROUNDS = 1_000_000


class Deadlock(RuntimeError):
    """Nothing can ever happen again (no timer, nothing ready), or everything happens without time passing."""


class Owner(Protocol):
    """The owner of a task; a crash ends all of its tasks."""

    def adopt(self, task: Task[Any]) -> None:
        """A task was made in this owner's name."""
        ...


#: In whose name the running code runs; tasks inherit it as they inherit every context variable.
OWNER: contextvars.ContextVar[Owner | None] = contextvars.ContextVar("hansa.sim.owner", default=None)


class _NoSelector:
    """The selector of the loop: there are no sockets, so waiting only lets time pass."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._rounds = 0

    def select(self, timeout: float | None) -> list[Any]:
        """Pass ``timeout`` seconds. None means that no timer is left."""
        if timeout is None:
            raise Deadlock(f"at {self._loop.time():.3f} s nothing is left that could ever happen")
        self._rounds = 0 if timeout > 0 else self._rounds + 1
        if self._rounds > _ROUNDS:
            raise Deadlock(f"at {self._loop.time():.3f} s no time passes any more")
        self._loop.passed += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs a simulation. ``asyncio.sleep``, ``asyncio.timeout`` and ``loop.call_later`` obey its time.

    Executors run in place: a simulation has no threads. Sockets, subprocesses and signals are not available.
    """

    def __init__(self) -> None:
        super().__init__()
        #: Virtual seconds since the start.
        self.passed = 0.0
        self._selector = _NoSelector(self)
        self.set_task_factory(self._make_owned_task)

    def time(self) -> float:
        """The virtual time in seconds."""
        return self.passed

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[_Ts]], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """Call ``func`` at once; the answer is a future as it would be from a thread."""
        del executor
        done: asyncio.Future[_T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # an executor hands every exception to who waits
            done.set_exception(error)
        return done

    @staticmethod
    def _make_owned_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Future[Any]:
        task: Task[Any] = Task(work, loop=loop, **options)
        context: contextvars.Context | None = options.get("context")
        owner = OWNER.get() if context is None else context.get(OWNER)
        if owner is not None:
            owner.adopt(task)
        return task

    def _process_events(self, event_list: list[Any]) -> None:
        """No sockets, no events."""

    def _write_to_self(self) -> None:
        """No threads, nobody to wake."""
