"""Background tasks continue when the database works again: no task ends because of a fault of it."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hansa import terminal
from hansa.environment import Environment
from hansa.host.supervisor import NetworkSupervisor
from hansa.pacing.delivery_throttle import DeliveryThrottle
from hansa.pacing.store_retry import patiently
from hansa.store.faults import FaultKind, StoreFault
from hansa.testing.clock import ManualClock
from hansa.testing.sim.seeded import SeededRandom

ROOT = Path(__file__).parents[2]


def plugin_spawns() -> Iterator[tuple[str, ast.expr]]:
    """Yields the arguments of ``spawn`` in the plugins."""
    for path in sorted((ROOT / "plugins").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if named and node.func.attr in {"spawn", "_spawn_for_entry"} and node.args:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.args[0]


def test_everything_that_a_plugin_spawns_can_be_begun_again():
    """A call would be a coroutine, which ends for good at the first fault of the database."""
    spawned = dict(plugin_spawns())
    assert len(spawned) > 20
    for where, given in spawned.items():
        if isinstance(given, ast.Call):
            assert isinstance(given.func, ast.Name) and given.func.id == "partial", where


class Slept(list[float]):
    """Waits that take no time."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def slept(monkeypatch) -> Slept:
    found = Slept()
    monkeypatch.setattr("hansa.pacing.store_retry.asyncio", SimpleNamespace(sleep=found))
    return found


def seams() -> Environment:
    return Environment(ManualClock(), SeededRandom(1, "backoff"))


async def test_a_function_is_called_until_the_database_works(slept):
    calls = []

    async def work() -> None:
        calls.append(1)
        if len(calls) < 6:
            raise StoreFault(FaultKind.FULL, "no room")

    await patiently(work, "work", seams())
    assert len(calls) == 6
    assert slept == sorted(slept) and 0.9 <= slept[0] <= 1.1 and max(slept) <= 5.5


async def test_what_is_broken_is_not_called_again(slept):
    async def work() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await patiently(work, "work", seams())
    assert not slept


async def test_a_fault_in_a_task_restarts_no_network(slept):
    clock = ManualClock()
    throttle = DeliveryThrottle(clock, 1000.0, 1000)
    runner = NetworkSupervisor(
        "left", Environment(clock, SeededRandom(1, "backoff")), throttle, factory=None, listener=None
    )
    done, calls = asyncio.Event(), []

    async def work() -> None:
        calls.append(1)
        if len(calls) < 3:
            raise StoreFault(FaultKind.LOCKED, "a lock")
        done.set()

    runner.spawn(work, "work")
    await asyncio.wait_for(done.wait(), 5)
    assert not runner._crashed.is_set()
    assert len(slept) == 2


class Unwritable:
    """A terminal on a full disk."""

    encoding = "utf-8"

    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_terminal_that_takes_nothing_ends_nothing(monkeypatch):
    monkeypatch.setattr("sys.stdout", Unwritable())
    terminal.announce("network matrix: down")
    with pytest.raises(OSError, match="No space"):
        terminal.say("whoever asks for an answer is told that there is none")
