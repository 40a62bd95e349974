"""Observers of committed events and failed deliveries: one that fails stops nothing and no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any


async def notify_observers(
    observers: Sequence[tuple[str, Callable[..., Awaitable[Any]]]],
    log: logging.Logger,
    *args: Any,
    timeout: float = 5.0,  # noqa: ASYNC109  # the bound of each observer, not of the call
) -> int:
    """Await every observer in order under a time-out of its own; how many failed. Failures are logged."""
    failures = 0
    for name, observer in observers:
        try:
            async with asyncio.timeout(timeout):
                await observer(*args)
        except Exception as error:  # noqa: BLE001  # an observer can break nothing but itself
            failures += 1
            log.warning("observer %s failed: %s: %s", name, type(error).__name__, error)
    return failures
