"""Long work says how far it is; gauges say what is."""

from __future__ import annotations

import json
import threading

from hansa.admin.metrics import exposition
from hansa.cli import socket_client
from hansa.environment import SystemClock
from hansa.host.plugin_contexts import BaseContext
from hansa.store.faults import FaultKind, StoreFault
from hansa.store.health import StoreHealth, WatchedStore
from hansa.store.memory import MemoryStore


class Whole:
    def __init__(self) -> None:
        self.gauges, self.work, self.counters = {}, {}, {}

    def count(self, name, **labels):
        raise NotImplementedError


def context(whole) -> BaseContext:
    made = object.__new__(BaseContext)
    made.id, made._app = "matrix", whole
    return made


def test_progress_is_there_until_it_is_done():
    whole = Whole()
    ctx = context(whole)
    ctx.report_progress("join !a", 0)
    ctx.report_progress("join !a", 5, 10)
    assert whole.work == {("matrix", "join !a"): (5, 10)}
    ctx.report_progress("join !a", 10, 10)
    assert whole.work == {}


def test_a_gauge_is_what_was_set_last():
    whole = Whole()
    ctx = context(whole)
    ctx.set_gauge("matrix_destinations_failing", 3)
    ctx.set_gauge("matrix_destinations_failing", 2)
    whole.counters = {("pdus", (("plugin", "matrix"), ("status", "dropped"))): 4}
    whole.pipeline, whole.runners, whole.consumers = type("P", (), {"counts": {}}), {}, {}
    whole.measures = [lambda: [("http_out_open", {"pool": "known"}, 5.0)]]
    whole.store = WatchedStore(MemoryStore(), StoreHealth(SystemClock()))
    whole.store.health.record_fault(StoreFault(FaultKind.FULL, "the disk"))
    text = exposition(whole).decode()
    assert 'hansa_store_degraded{kind="full"} 1.0' in text
    assert 'hansa_store_degraded{kind="locked"} 0.0' in text
    assert 'hansa_store_faults_total{kind="full"} 1.0' in text
    assert 'hansa_matrix_destinations_failing{plugin="matrix"} 2.0' in text
    assert 'hansa_http_out_open{pool="known"} 5.0' in text
    assert 'hansa_pdus_total{plugin="matrix",status="dropped"} 4.0' in text


def test_who_waits_is_told_once_of_each_step(tmp_path, capsys, monkeypatch):
    steps = [[], [{"network": "m", "work": "join", "done": 1, "total": 3}]]
    steps += [steps[1], [{"network": "m", "work": "join", "done": 2, "total": 0}]]
    over = threading.Event()

    def answer(_config, method, path, body=None):
        if path == "/long":
            over.wait(20)
            return {"done": True}
        if len(steps) == 1:
            over.set()
            return steps[0]
        return json.loads(json.dumps(steps.pop(0)))

    monkeypatch.setattr(socket_client, "call", answer)
    monkeypatch.setattr(socket_client, "_POLL_S", 0.01)
    assert socket_client.call_with_progress(tmp_path, "POST", "/long", {}) == {"done": True}
    assert capsys.readouterr().err.splitlines() == ["m: join: 1 of 3", "m: join: 2"]
