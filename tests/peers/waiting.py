"""Waiting for conditions, with a deadline that names what did not come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(what: str, condition: Callable[[], Awaitable[T]], seconds: float = 30.0) -> T:
    """The first true answer of ``condition``. Raises TimeoutError naming ``what``."""
    deadline = time.monotonic() + seconds
    while True:
        got = await condition()
        if got:
            return got
        if time.monotonic() > deadline:
            raise TimeoutError(f"this did not come within {seconds:g} s: {what}")
        await asyncio.sleep(0.05)
