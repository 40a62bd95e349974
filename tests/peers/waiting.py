"""Waiting for conditions, with a deadline that names what did not come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from xml.etree.ElementTree import Element

T = TypeVar("T")


def came(found: object) -> bool:
    """True for what is worth the wait: an element without children is, an empty list is not."""
    return found is not None and (isinstance(found, Element) or bool(found))


async def until(what: str, condition: Callable[[], Awaitable[T]], seconds: float = 60.0) -> T:
    """The first true answer of ``condition``. Raises TimeoutError naming ``what``."""
    deadline = time.monotonic() + seconds
    while True:
        got = await condition()
        if came(got):
            return got
        if time.monotonic() > deadline:
            raise TimeoutError(f"this did not come within {seconds:g} s: {what}")
        await asyncio.sleep(0.05)
