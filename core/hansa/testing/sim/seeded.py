"""Randomness that a seed decides, and the clock of a simulated machine."""

from __future__ import annotations

import asyncio
import os
import random

#: 2024-01-01T00:00:00Z, when every simulation begins (ms).
EPOCH = 1_704_067_200_000


class SeededRandom:
    """See ``hansa.Random``. Streams of different names are independent: one more draw from one of them
    changes none of the others.
    """

    def __init__(self, seed: int, name: str) -> None:
        self._from = random.Random(f"{seed}/{name}")  # a string is hashed alike in every process

    def bytes(self, count: int) -> bytes:
        """See ``hansa.Random.bytes``."""
        return self._from.randbytes(count)

    def uniform(self) -> float:
        """See ``hansa.Random.uniform``."""
        return self._from.random()

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.uniform()

    def below(self, count: int) -> int:
        """A whole number in [0, count)."""
        return int(self.uniform() * count)

    def happens(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability


class VirtualClock:
    """See ``hansa.Clock``. ``skew`` is in ms: how wrong the machine's wall clock is."""

    def __init__(self, loop: asyncio.AbstractEventLoop, skew: int = 0) -> None:
        self._loop = loop
        self._skew = skew

    def now(self) -> int:
        """See ``hansa.Clock.now``."""
        return EPOCH + self._skew + int(self._loop.time() * 1000)

    def monotonic(self) -> float:
        """See ``hansa.Clock.monotonic``."""
        return self._loop.time()


def seeds(count: int) -> list[int]:
    """Returns the values for the argument ``seed`` of one test, for ``pytest.mark.parametrize``.

    ``HANSA_SIM_SEED=N`` replays the one seed N; ``HANSA_SIM_SEEDS=K`` runs at least K seeds of every test,
    ``HANSA_SIM_FIRST=N`` makes N the first of them.
    """
    one = os.environ.get("HANSA_SIM_SEED")
    if one:
        return [int(one)]
    first = int(os.environ.get("HANSA_SIM_FIRST") or 1)
    return list(range(first, first + max(count, int(os.environ.get("HANSA_SIM_SEEDS") or 0))))
