"""The number of metrics stays bounded, whatever their labels are made of."""

from __future__ import annotations

from hansa.admin.metrics import exposition
from hansa.testing import run_hansa
from hansa.testing.actor import Actor, Config, module


async def test_invented_labels_fill_neither_memory_nor_metrics():
    made: dict[str, Actor] = {}
    async with run_hansa({"left": (module(made), Config())}) as app:
        ctx = made["left"].ctx
        for n in range(10_000):
            ctx.count("invented", who=f"server{n}.example", why="asked")
        ctx.count("invented", who="server3.example", why="asked")
        ctx.count("another", who="server9999.example")
        lines = [
            line for line in exposition(app).decode().splitlines() if line.startswith("hansa_invented_total")
        ]
        assert len(lines) == 501 and len(app.counters) < 600
        assert sum(float(line.rpartition(" ")[2]) for line in lines) == 10_001
        assert 'hansa_invented_total{plugin="left",who="server3.example",why="asked"} 2.0' in lines
        assert 'hansa_invented_total{plugin="other",who="other",why="other"} 9500.0' in lines
        assert app.counters["another", (("plugin", "left"), ("who", "server9999.example"))] == 1
