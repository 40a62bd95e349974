"""The interface of handlers of EDUs, each for one kind. SPEC: server-server API, "EDUs"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class EduHandler(Protocol):
    """Takes the EDUs of one kind."""

    async def __call__(self, origin: str, contents: Sequence[Mapping[str, Any]]) -> int:
        """How many were not well formed, or not for ``origin`` to say."""
        ...
