"""Two watches over an event loop: who blocks it, and who keeps it busy."""

from __future__ import annotations

import asyncio
import sys
import sysconfig
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import hansa

#: Seconds between two looks at the loop.
_TICK_S = 0.02
_OWN = str(Path(hansa.__file__).parent)
_STANDARD = sysconfig.get_path("stdlib")
_INSTALLED = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))


class LoopWatch:
    """A thread that looks whether the loop turns. ``blocked`` says where it did not for ``limit`` seconds of
    the thread's own time, in code that is neither Hansa's nor the standard library's.
    """

    def __init__(self, limit: float) -> None:
        self.blocked = ""
        self._max_ticks = max(2, round(limit / _TICK_S))
        self._turns = 0
        self._watched = threading.get_ident()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="hansa loop watch", daemon=True)

    @contextmanager
    def run(self) -> Iterator[LoopWatch]:
        """Watches the loop of the caller."""
        loop = asyncio.get_running_loop()

        def turn() -> None:
            self._turns += 1
            if not self._ended.is_set():
                loop.call_later(_TICK_S / 2, turn)

        turn()
        self._thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._thread.join()

    def _look(self) -> None:
        ticks, turns, place = 0, -1, ""
        while not self._ended.wait(_TICK_S):
            if self._turns != turns:
                ticks, turns, place = 0, self._turns, ""
                continue
            ticks += 1
            place = _place_of(sys._current_frames().get(self._watched)) or place  # noqa: SLF001  # no other way
            if ticks >= self._max_ticks and place and not self.blocked:
                self.blocked = place


def _place_of(frame: FrameType | None) -> str:
    """Returns the file and line of the innermost frame of a plugin or a test; empty if it is Hansa's."""
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith("<") and (not file.startswith(_STANDARD) or file.startswith(_INSTALLED)):
            return "" if file.startswith(_OWN) else f"{file}:{frame.f_lineno} ({frame.f_code.co_qualname})"
        frame = frame.f_back
    return ""


@contextmanager
def count_steps() -> Iterator[Counter[str]]:
    """Counts what is put on the loop, by the function of the task that puts it. A loop that does not let its
    methods be replaced, such as uvloop's, gives no counts.
    """
    loop = asyncio.get_running_loop()
    counts: Counter[str] = Counter()
    real: Callable[..., Any] = loop.call_soon

    def call_soon(callback: Any, *args: Any, **options: Any) -> Any:
        task = asyncio.current_task()
        counts[task.get_name() if task is not None else "the loop"] += 1
        return real(callback, *args, **options)

    try:
        loop.call_soon = call_soon  # type: ignore[assignment,method-assign]
    except AttributeError:
        yield counts
        return
    try:
        yield counts
    finally:
        del loop.call_soon
