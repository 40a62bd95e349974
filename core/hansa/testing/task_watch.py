"""Tasks that a plugin leaves behind, and the end of a test that such a task would hold up for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine, Iterable
from typing import Any

#: How often a task is cancelled before it counts as one that swallows its cancellation.
_CANCELLATIONS = 5
#: Seconds after each cancellation.
_CANCEL_TIMEOUT_S = 0.05

_log = logging.getLogger("hansa.testing")


def describe_tasks(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """Returns the names and the functions of tasks, for a finding."""
    return ", ".join(sorted(f"{task.get_name()} ({_function_name(task)})" for task in tasks))


def _function_name(task: asyncio.Task[Any]) -> str:
    work = task.get_coro()
    return getattr(work, "__qualname__", repr(work))


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Ends tasks by all means, and returns those that swallowed their cancellation."""
    for _ in range(_CANCELLATIONS):
        running = [task for task in tasks if not task.done()]
        if not running:
            break
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_CANCEL_TIMEOUT_S)
    stubborn = [task for task in tasks if not task.done()]
    for task in stubborn:
        _close_task(task)
    if stubborn:
        await asyncio.wait(stubborn, timeout=_CANCEL_TIMEOUT_S)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # nobody else asks for it
    return stubborn


def _close_task(task: asyncio.Task[Any]) -> None:
    """Closes the coroutine of a task, which then fails at its next step. One that swallows that too
    cannot be ended: the loop forgets it.
    """
    work = task.get_coro()
    if isinstance(work, Coroutine):
        try:
            work.close()
        except RuntimeError as error:
            _log.warning("%s cannot be ended, and is left: %s", task.get_name(), error)
            asyncio._unregister_task(task)  # noqa: SLF001  # documented: nobody waits for it at the loop's end
            return
    task.cancel()


async def finish_within(
    work: Coroutine[Any, Any, Any], seconds: float, before: Collection[asyncio.Task[Any]]
) -> list[asyncio.Task[Any]]:
    """Awaits ``work``. After ``seconds``, ends every task that is not in ``before`` by all means, so that
    ``work`` ends too. Returns the plugin's tasks that swallowed their cancellation. An exception of ``work``
    is raised if it ends by itself.
    """
    ending = asyncio.ensure_future(work)
    await asyncio.wait({ending}, timeout=seconds)
    if ending.done():
        ending.result()
        return []
    others = asyncio.all_tasks() - set(before) - {ending}
    of_core = {task for task in others if _is_of_core(task)}
    stubborn = await end_tasks([task for task in others if task is not asyncio.current_task()])
    await asyncio.wait({ending}, timeout=seconds)
    if not ending.done():
        stubborn += await end_tasks([ending])
    return [task for task in stubborn if task not in of_core] or stubborn


def _is_of_core(task: asyncio.Task[Any]) -> bool:
    """True for a task of Hansa itself. ``spawn`` names a plugin's task ``PLUGIN: NAME``."""
    module = getattr(getattr(task.get_coro(), "cr_frame", None), "f_globals", {}).get("__name__", "")
    return module.startswith(("hansa.", "asyncio")) and ": " not in task.get_name()


def leaked_tasks(before: Collection[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Returns the tasks that run now and did not run ``before``, without the caller's."""
    own = asyncio.current_task()
    return [task for task in asyncio.all_tasks() - set(before) if not task.done() and task is not own]
