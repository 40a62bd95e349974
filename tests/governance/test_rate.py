"""A bucket per sender, by a clock that the test moves."""

from __future__ import annotations

import pytest
from hansa.testing import ManualClock
from hansa_governance.config import Rate
from hansa_governance.rate import _SENDERS, Rates


def test_a_burst_passes_then_one_for_each_share_of_the_time():
    clock = ManualClock()
    rates = Rates(Rate(events=5, seconds=10), clock)
    assert [rates.take("ann") for _ in range(5)] == [0.0] * 5
    assert rates.take("ann") == pytest.approx(2.0)
    clock.advance(1.9)
    assert rates.take("ann") == pytest.approx(0.1)
    clock.advance(0.1)
    assert rates.take("ann") == 0.0
    assert rates.take("ann") == pytest.approx(2.0)
    clock.advance(3600)
    assert [rates.take("ann") > 0 for _ in range(6)] == [False] * 5 + [True]


def test_each_sender_has_a_bucket_of_their_own_and_being_refused_costs_nothing():
    clock = ManualClock()
    rates = Rates(Rate(events=1, seconds=1), clock)
    assert rates.take("ann") == 0.0 and rates.take("bob") == 0.0
    for _ in range(50):
        assert rates.take("ann") > 0
    clock.advance(1)
    assert rates.take("ann") == 0.0


def test_memory_is_bounded_and_who_is_active_is_not_forgotten():
    clock = ManualClock()
    rates = Rates(Rate(events=1, seconds=3600), clock)
    assert rates.take("ann") == 0.0
    for n in range(3 * _SENDERS):
        rates.take(f"flood-{n}")
        if n % 1000 == 0:
            assert rates.take("ann") > 0
    assert len(rates._buckets) == _SENDERS
    assert rates.take("ann") > 0
    assert rates.take("late") == 0.0 and rates.take("late") > 0
