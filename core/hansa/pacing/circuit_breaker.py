"""A target that fails again and again is left alone for a while."""

from __future__ import annotations

from hansa.environment import Clock


class CircuitBreaker:
    """Opens after ``max_failures`` in a row. A try passes ``open_for`` seconds after the last failure."""

    def __init__(self, clock: Clock, max_failures: int, open_for: float) -> None:
        self._clock = clock
        self._max_failures = max_failures
        self._open_for = open_for
        self._failures = 0
        self._until = 0.0

    @property
    def is_open(self) -> bool:
        """True if no attempt is allowed now."""
        return self._failures >= self._max_failures and self._clock.monotonic() < self._until

    def succeeded(self) -> None:
        """Records a success: failures are counted from zero."""
        self._failures = 0

    def failed(self) -> None:
        """A try failed."""
        self._failures += 1
        self._until = self._clock.monotonic() + self._open_for
