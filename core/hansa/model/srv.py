"""SRV records, and the order in which they are tried. SPEC: RFC 2782."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class SrvRecord:
    """One SRV record (RFC 2782). ``target`` without the trailing dot; ``"."`` means no service."""

    priority: int
    weight: int
    port: int
    target: str


class Weighted(Protocol):
    """Anything that has the priority and the weight of a record."""

    @property
    def priority(self) -> int:
        """The lowest is tried first."""
        ...

    @property
    def weight(self) -> int:
        """The share of those that have the same priority."""
        ...


_Weighted = TypeVar("_Weighted", bound=Weighted)


def order_srv(records: Sequence[_Weighted], chance: Callable[[], float]) -> list[_Weighted]:
    """Returns records by priority, and by weighted chance within one. ``chance`` is from 0 to 1."""
    ordered: list[_Weighted] = []
    for priority in sorted({r.priority for r in records}):
        left = sorted((r for r in records if r.priority == priority), key=lambda r: r.weight)
        while left:
            pick, passed = chance() * sum(r.weight for r in left), 0.0
            for record in left:
                passed += record.weight
                if passed >= pick:
                    break
            ordered.append(record)
            left.remove(record)
    return ordered
