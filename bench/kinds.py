"""Messages, reactions, edits and redactions of one homeserver, in turn, in one room."""

from __future__ import annotations

import secrets
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hansa_matrix.proto.event import Pdu
from peers.ca import PrivateCA

from bench.comparison import Pairs, Side, compared, fakes, say, sides
from bench.measure import cpu_seconds
from bench.origin import Origin
from bench.room import FakeRoom

_MEMBERS = 10
#: Events of one kind in a transaction, and transactions of one measurement.
_SIZES = ((1, 400), (50, 20))
#: A Synapse is asked for a part of them.
_SYNAPSE_PART = 8
#: Targets that a measurement spreads its events over.
_TARGETS = 50


def _message(number: int) -> dict[str, Any]:
    return {"msgtype": "m.text", "body": f"Two households, both alike in dignity {number}"}


def _reaction(target: str, number: int) -> tuple[str, dict[str, Any]]:
    about = {"rel_type": "m.annotation", "event_id": target, "key": f"k{number}"}
    return "m.reaction", {"m.relates_to": about}


def _edit(target: str, number: int) -> tuple[str, dict[str, Any]]:
    new = _message(number)
    about = {"rel_type": "m.replace", "event_id": target}
    content = {**new, "body": f"* {new['body']}", "m.new_content": new, "m.relates_to": about}
    return "m.room.message", content


def _plain(_target: str, number: int) -> tuple[str, dict[str, Any]]:
    return "m.room.message", _message(number)


def _redaction(target: str, number: int) -> tuple[str, dict[str, Any]]:
    return "m.room.redaction", {"redacts": target, "reason": f"reason {number}"}


#: The first is what the others are compared with.
KINDS: Mapping[str, Callable[[str, int], tuple[str, dict[str, Any]]]] = {
    "message": _plain,
    "reaction": _reaction,
    "edit": _edit,
    "redaction": _redaction,
}


class _Conversation:
    """One room on one side; one person says everything, so that every edit is by the author."""

    def __init__(self, side: Side, origin: Origin) -> None:
        self._side, self._origin = side, origin
        self._room = FakeRoom([origin], _MEMBERS, f"kinds-{secrets.token_hex(4)}")
        self._speaker = self._room.people[origin.name][0]
        self._count = 0
        origin.rooms.append(self._room)

    async def join(self) -> None:
        await self._side.join(self._room)

    def _events(self, make: Callable[[int], tuple[str, dict[str, Any]]], count: int) -> list[Pdu]:
        found, prev = list[Pdu](), dict(self._room.tips)
        for _ in range(count):
            self._count += 1
            kind, content = make(self._count)
            found.append(self._room.event(self._origin, kind, self._speaker, content, prev=prev))
            prev = {found[-1].event_id: found[-1].depth}
        return found

    async def _send(self, pdus: list[Pdu], size: int) -> None:
        for start in range(0, len(pdus), size):
            part = pdus[start : start + size]
            await self._origin.send(self._side.name, part)
            self._room.taken(*part)
        await self._side.settled(self._room, [pdus[-1].event_id])

    async def say(self, count: int) -> list[str]:
        """The ids of new messages."""
        pdus = self._events(partial(_plain, ""), count)
        await self._send(pdus, min(50, count))
        return [pdu.event_id for pdu in pdus]

    async def measure(self, kind: str, size: int, transactions: int) -> float:
        """CPU seconds of 1,000 such events. Each redaction has a target of its own."""
        count = size * transactions
        targets = await self.say(count if kind == "redaction" else _TARGETS)
        make = KINDS[kind]
        pdus = self._events(lambda number: make(targets[number % len(targets)], number), count)
        before = cpu_seconds(self._side.pid)
        await self._send(pdus, size)
        return 1000 * (cpu_seconds(self._side.pid) - before) / count


async def kinds(folder: Path, ca: PrivateCA, runs: int, *, synapse: bool) -> Pairs:
    """CPU of each kind, and its ratio to a message's in the same run."""
    pairs: Pairs = []
    async with sides(folder, ca, synapse=synapse) as subjects, fakes(ca, 1) as (origin,):
        talks = {side.label: _Conversation(side, origin) for side in subjects}
        for talk in talks.values():
            await talk.join()
            await talk.say(_TARGETS)
        for size, transactions in _SIZES:
            cpu: dict[str, dict[str, list[float]]] = {kind: {label: [] for label in talks} for kind in KINDS}
            for _ in range(runs):
                for kind in KINDS:
                    for label, talk in talks.items():
                        say(f"{label}: {kind}s, {size} per transaction")
                        part = _SYNAPSE_PART if label == "Synapse" else 1
                        found = await talk.measure(kind, size, max(1, transactions // part))
                        cpu[kind][label].append(found)
            median = {
                kind: {label: statistics.median(each) for label, each in found.items()}
                for kind, found in cpu.items()
            }
            base = median["message"]["Hansa"]
            for kind, found in median.items():
                ratio = f", {found['Hansa'] / max(base, 1e-9):.2f} times a message's"
                value = compared(found, lambda seconds: f"{seconds:.3f} s of CPU for 1,000")
                pairs.append((f"{kind}, {size} per transaction", value + ratio))
    return pairs
