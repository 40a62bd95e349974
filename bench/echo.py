"""There and back: a message from a fake homeserver to a real client in a real Prosody's MUC, and its echo."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hansa_matrix.proto.event import Pdu
from peers.ca import PrivateCA
from peers.hansa import Hansa
from peers.prosody import GATEWAY, Prosody
from peers.waiting import until

from bench.measure import cpu_seconds, percentile
from bench.origin import Origin
from bench.room import FakeRoom

_MUC = f"lobby@{GATEWAY}"
_XMPP = """
[networks.xmpp]
plugin = "xmpp"
component = "{gateway}"
port = {port}
secret = "{secret}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo:
    """Seconds per message each way, and what Hansa spent on ``count`` messages in both directions."""

    count: int
    inward: Sequence[float]
    outward: Sequence[float]
    cpu: float

    def pairs(self) -> list[tuple[str, str]]:
        def both(values: Sequence[float]) -> str:
            return (
                f"p50 {1000 * percentile(values, 0.5):.1f} ms, p95 {1000 * percentile(values, 0.95):.1f} ms"
            )

        return [
            ("echo: Matrix PDU to MUC message", both(self.inward)),
            ("echo: MUC message to Matrix PDU", both(self.outward)),
            ("echo: Hansa's CPU per 1,000 messages there and back", f"{1000 * self.cpu / self.count:.2f} s"),
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "inward_p50_ms": 1000 * percentile(self.inward, 0.5),
            "inward_p95_ms": 1000 * percentile(self.inward, 0.95),
            "outward_p50_ms": 1000 * percentile(self.outward, 0.5),
            "outward_p95_ms": 1000 * percentile(self.outward, 0.95),
            "cpu_seconds_per_1000": 1000 * self.cpu / self.count,
        }


async def echo(folder: Path, ca: PrivateCA, origin: Origin, count: int) -> Echo:
    """``count`` messages, one after the other. Raises TimeoutError for one that does not come."""
    prosody = await Prosody(folder / "prosody", ca).start()
    hansa = Hansa(
        folder / "hansa",
        ca,
        _XMPP.format(gateway=GATEWAY, port=prosody.component_port, secret=prosody.secret),
    )
    try:
        await hansa.start()
        return await _measured(hansa, prosody, origin, count)
    finally:
        await hansa.stop()
        await prosody.stop()


async def _measured(hansa: Hansa, prosody: Prosody, origin: Origin, count: int) -> Echo:
    room = FakeRoom([origin], 10, "echo")
    origin.rooms.append(room)

    async def up() -> bool:
        status = await hansa.run("status")
        return all(network["state"] == "up" for network in status["networks"])

    await until("both networks are up", up)
    await hansa.run("rooms", "create", f"matrix:{room.alias}", "xmpp:lobby")
    juliet = await prosody.user("juliet")
    await juliet.join(_MUC, "Juliet")
    heard: dict[str, asyncio.Future[float]] = {}

    def hear(pdu: Pdu) -> None:
        waiting = heard.get(str(pdu.content.get("body")))
        if waiting is not None and not waiting.done():
            waiting.set_result(time.perf_counter())

    origin.heard = hear
    inward: list[float] = []
    outward: list[float] = []

    async def once(n: int) -> None:
        ask, answer = f"Who's there? {n}", f"Nay, answer me. {n}"
        heard[answer] = asyncio.get_running_loop().create_future()
        pdu = room.say(origin, ask)
        began = time.perf_counter()
        sending = asyncio.ensure_future(origin.send(hansa.name, [pdu]))
        await juliet.until(ask, lambda: juliet.stanzas and _body(juliet.stanzas[-1]) == ask)
        there = time.perf_counter()
        await sending
        room.taken(pdu)
        juliet.say(_MUC, answer)
        async with asyncio.timeout(30):
            back = await heard[answer]
        inward.append(there - began)
        outward.append(back - there)
        await juliet.until(answer, lambda: _body(juliet.stanzas[-1]) == answer)

    await once(-1)
    inward.clear()
    outward.clear()
    before = cpu_seconds(hansa.pid)
    for n in range(count):
        await once(n)
    cpu = cpu_seconds(hansa.pid) - before
    await juliet.close()
    return Echo(count=count, inward=inward, outward=outward, cpu=cpu)


def _body(stanza: Any) -> str:
    return str(stanza.findtext("{jabber:client}body") or "")
