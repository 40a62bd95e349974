"""The part of a network's context that streams between servers use."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from hansa.environment import SystemClock, SystemRandom


@dataclass(kw_only=True)
class StreamContext:
    """What is counted is in ``counts``, under the name with the values of the labels."""

    id: str = "xmpp"
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("test"))
    clock: SystemClock = field(default_factory=SystemClock)
    random: SystemRandom = field(default_factory=SystemRandom)
    counts: Counter[str] = field(default_factory=Counter)

    def count(self, name: str, **labels: str) -> None:
        self.counts[" ".join([name, *labels.values()])] += 1
