"""Waiting for a condition, with a deadline and a name for what did not come."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")

#: Seconds in which a condition is asked in every round of the loop: one that holds for a moment is seen.
_EAGER = 0.1
#: Seconds between two questions after that.
_PAUSE = 0.005


async def until(
    condition: Callable[[], T | Awaitable[T]], seconds: float = 10.0, *, what: str = "", pause: float = _PAUSE
) -> T:
    """The first true answer of ``condition``, which may be a coroutine function. Raises TimeoutError, which
    names ``what``, or else the place of the condition.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        answer: Any = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return cast("T", answer)
        waited = loop.time() - began
        if waited > seconds:
            raise TimeoutError(f"this did not come within {seconds:g} s: {what or _source_place(condition)}")
        await asyncio.sleep(0 if waited < _EAGER else pause)


def _source_place(condition: Callable[[], Any]) -> str:
    code = getattr(condition, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(condition)
