"""Waiting for conditions, with a deadline that names what did not come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar
from xml.etree.ElementTree import Element

from hansa import testing

T = TypeVar("T")


def came(found: object) -> bool:
    """True for what is worth the wait: an element without children is, an empty list is not."""
    return found is not None and (isinstance(found, Element) or bool(found))


async def until(what: str, condition: Callable[[], Awaitable[T]], seconds: float = 60.0) -> T:
    """The first true answer of ``condition``. Raises TimeoutError naming ``what``."""

    async def answer() -> list[T]:
        found = await condition()
        return [found] if came(found) else []

    return (await testing.until(answer, seconds, what=what, pause=0.05))[0]
