"""The servers under test, for what is measured on each by itself: a Hansa, and a Synapse if it is wanted."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from peers.ca import PrivateCA

from bench.origin import Origin, origins
from bench.servers_under_test import HansaSubject, SynapseSubject

Side = HansaSubject | SynapseSubject
#: Name and value of a line.
Pairs = list[tuple[str, str]]


@asynccontextmanager
async def sides(folder: Path, ca: PrivateCA, *, synapse: bool) -> AsyncIterator[list[Side]]:
    """Started, and stopped afterwards."""
    made: list[Side] = [HansaSubject(folder / "hansa", ca)]
    if synapse:
        made.append(SynapseSubject(folder / "synapse", ca))
    try:
        for side in made:
            await side.start()
        yield made
    finally:
        for side in made:
            await side.stop()


@asynccontextmanager
async def fakes(ca: PrivateCA, count: int) -> AsyncIterator[list[Origin]]:
    """Fake homeservers."""
    made = await origins(ca, count)
    try:
        yield made
    finally:
        for one in made:
            await one.stop()


def say(text: str) -> None:
    """Progress, for who waits."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def compared(values: dict[str, float], form: Callable[[float], str]) -> str:
    """A line's value: ours, and how many times as much Synapse's is."""
    ours, theirs = values["Hansa"], values.get("Synapse")
    if theirs is None:
        return form(ours)
    return f"{form(ours)}; Synapse {form(theirs)}, {theirs / max(ours, 1e-9):.1f} times as much"
