"""The benchmarks with ways of their own run to their end. Their results decide nothing here."""

from __future__ import annotations

import re

import pytest
from peers.ca import PrivateCA

from bench import disk, hostile, kinds, latency, memory, outbound, send_join


@pytest.mark.parametrize(
    ("row", "measure", "smaller", "lines"),
    [
        (send_join, send_join.serving, {"_MEMBERS": 5, "_JOINS": 2}, 1),
        (outbound, outbound.outbound, {"_SIZES": (1, 3), "_EVENTS": 2}, 4),
        (latency, latency.latency, {"_SAMPLES": 4, "_EVERY": 0.01}, 2),
        (memory, memory.memory, {"_ROOMS": 2, "_MEMBERS": 5}, 2),
        (hostile, hostile.hostile, {"CASES": hostile.CASES[-1:], "JUDGED": hostile.JUDGED[-1:]}, 4),
        (kinds, kinds.kinds, {"_SIZES": ((2, 2),), "_TARGETS": 3}, 4),
        (disk, disk.disk, {"_MEMBERS": 5, "_OURS": (200, 2)}, 3),
    ],
    ids=lambda value: getattr(value, "__name__", "").rpartition(".")[2],
)
async def test_a_row_of_its_own_is_measured(tmp_path, monkeypatch, row, measure, smaller, lines):
    for name, value in smaller.items():
        assert hasattr(row, name)
        monkeypatch.setattr(row, name, value)
    pairs = await measure(tmp_path, PrivateCA(tmp_path / "ca"), 1, synapse=False)
    assert len(pairs) == lines
    for name, value in pairs:
        assert name
        assert re.match(r"-?[0-9.]+ ", value), value  # a difference of two readings may be negative
