"""The tables that are printed, and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.measure import Result, Row

_COLUMNS = (
    ("subject", "<8"),
    ("CPU s/1000", ">11"),
    ("x floor", ">8"),
    ("1/x Synapse", ">12"),
    ("events/s", ">9"),
    ("p50 ms", ">8"),
    ("p95 ms", ">8"),
    ("peak MiB", ">9"),
    ("missing", ">8"),
)

#: Row -> subject -> result.
Results = Mapping[Row, Mapping[str, Result]]


def _ratio(part: Result | None, whole: Result | None) -> float | None:
    if part is None or whole is None or not whole.cpu_per_1000:
        return None
    return part.cpu_per_1000 / whole.cpu_per_1000


def _shown(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def lines_of(results: Results) -> Iterator[str]:
    """A block per row, a line per subject."""
    yield "".join(f"{name:{form}}" for name, form in _COLUMNS)
    for row, subjects in results.items():
        yield f"-- {row}"
        for label, found in subjects.items():
            cells = (
                label,
                _shown(found.cpu_per_1000, 3),
                _shown(_ratio(found, subjects.get("floor"))),
                _shown(_ratio(subjects.get("Synapse"), found)),
                _shown(found.per_second, 0),
                _shown(found.latency(0.5)),
                _shown(found.latency(0.95)),
                _shown(found.peak, 0),
                str(found.missing),
            )
            yield "".join(f"{cell:{form}}" for cell, (_, form) in zip(cells, _COLUMNS, strict=True))


def growth(results: Results, label: str) -> dict[str, float]:
    """The CPU in the largest room, or the oldest, over that in the smallest, per kind of traffic."""
    found: dict[str, float] = {}
    rows = [row for row, subjects in results.items() if label in subjects]
    for what in ("members", "history"):
        for row in rows:
            alike = [r for r in rows if replace(r, **{what: 0}) == replace(row, **{what: 0})]
            small, large = (
                min(alike, key=lambda r: getattr(r, what)),
                max(alike, key=lambda r: getattr(r, what)),
            )
            ratio = _ratio(results[large][label], results[small][label])
            if small is not large and ratio is not None:
                sizes = f"{getattr(large, what)} to {getattr(small, what)} {what}"
                found[f"{row.origins} x {row.per_transaction}, {sizes}"] = ratio
    return found


def summary(results: Results) -> Iterator[str]:
    """The ratios that are goals."""
    for label in ("Hansa", "Synapse"):
        for name, ratio in growth(results, label).items():
            yield f"{label}: {name}: {ratio:.2f} times the CPU per event"
    for label in ("Hansa", "Synapse"):
        found = [r[label] for r in results.values() if label in r]
        if found:
            sent = sum(run.events for one in found for run in one.runs)
            yield f"{label}: {sent} events acknowledged, {sum(one.missing for one in found)} of them missing"


def as_json(results: Results, more: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for a program."""
    rows: list[dict[str, Any]] = []
    for row, subjects in results.items():
        for label, found in subjects.items():
            one = {
                "subject": label,
                "origins": row.origins,
                "per_transaction": row.per_transaction,
                "members": row.members,
                "history": row.history,
                "runs": len(found.runs),
                "events": sum(run.events for run in found.runs),
                "cpu_seconds_per_1000": found.cpu_per_1000,
                "events_per_second": found.per_second,
                "p50_ms": found.latency(0.5),
                "p95_ms": found.latency(0.95),
                "peak_mib": found.peak,
                "missing": found.missing,
                "times_floor": _ratio(found, subjects.get("floor")),
                "synapse_times": _ratio(subjects.get("Synapse"), found),
            }
            rows.append(one)
    return {"inbound": rows, "growth": growth(results, "Hansa"), **more}


def columns(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Names and values, aligned."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        yield f"{name:<{width}}  {value}"
