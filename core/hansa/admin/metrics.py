"""Counters and gauges in Prometheus' text form, read from the running parts when asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from hansa.app import App

_Family = CounterMetricFamily | GaugeMetricFamily


class _FromApp(Collector):
    def __init__(self, app: App) -> None:
        self._app = app

    def collect(self) -> Iterator[_Family]:
        """Yields every family, each made for this call."""
        yield from _metric_families(CounterMetricFamily, self._app.counters)
        gauges = dict(self._app.gauges)
        for measure in self._app.measures:
            for name, labels, value in measure():
                gauges[name, tuple(sorted(labels.items()))] = value
        yield from _metric_families(GaugeMetricFamily, gauges)
        events = CounterMetricFamily("hansa_pipeline", "submissions by result", labels=["result"])
        for result, value in self._app.pipeline.counts.items():
            events.add_metric([result], value)
        yield events
        up = GaugeMetricFamily("hansa_network_up", "1 while the network is up", labels=["network"])
        for runner in self._app.runners.values():
            up.add_metric([runner.id], 1.0 if runner.state == "up" else 0.0)
        yield up
        health = self._app.store.health
        degraded = GaugeMetricFamily(
            "hansa_store_degraded", "1 while the database has this fault", labels=["kind"]
        )
        faults = CounterMetricFamily(
            "hansa_store_faults", "calls that failed because of the database", labels=["kind"]
        )
        for kind, failed in health.faults.items():
            now = health.degraded is not None and health.degraded.kind is kind
            degraded.add_metric([kind.value], 1.0 if now else 0.0)
            faults.add_metric([kind.value], failed)
        yield degraded
        yield faults
        state = GaugeMetricFamily(
            "hansa_store_state", "1 for the present state of the database", labels=["state"]
        )
        for name in ("up", "slow", "standby", *health.faults):
            state.add_metric([str(name)], 1.0 if str(name) == health.state else 0.0)
        yield state
        waiting = GaugeMetricFamily("hansa_deliveries_waiting", "events not sent yet", labels=["link"])
        unconfirmed = GaugeMetricFamily(
            "hansa_deliveries_unconfirmed", "events sent that the peer has not confirmed", labels=["link"]
        )
        for link, consumer in self._app.consumers.items():
            waiting.add_metric([link], consumer.room.head - consumer.position)
            unconfirmed.add_metric([link], consumer.position - consumer.confirmed)
        yield waiting
        yield unconfirmed


def _metric_families(
    kind: type[_Family], values: Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
) -> Iterable[_Family]:
    """Groups the counters or gauges of one name into one metric family."""
    families: dict[str, _Family] = {}
    for (name, labels), value in values.items():
        names = [label for label, _ in labels]
        family = families.setdefault(name, kind(f"hansa_{name}", name.replace("_", " "), labels=names))
        family.add_metric([text for _, text in labels], value)
    return families.values()


def exposition(app: App) -> bytes:
    """The text of ``/metrics``."""
    registry = CollectorRegistry()
    registry.register(_FromApp(app))
    return generate_latest(registry)
