"""A clock that stands still until a test moves it."""

from __future__ import annotations


class ManualClock:
    """See ``hansa.Clock``. Starts at ``start`` (ms since 1970); ``advance`` takes seconds."""

    def __init__(self, start: int = 1_700_000_000_000) -> None:
        self._start = start
        self._seconds = 0.0

    def now(self) -> int:
        """See ``Clock.now``."""
        return self._start + round(self._seconds * 1000)

    def monotonic(self) -> float:
        """See ``Clock.monotonic``."""
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Let time pass; never backwards."""
        if seconds < 0:
            raise ValueError("time does not run backwards")
        self._seconds += seconds
