"""A bucket per sender, by a clock that the test moves."""

from __future__ import annotations

import pytest
from hansa.testing import ManualClock
from hansa_governance.config import RateConfig
from hansa_governance.rate import _SENDERS, SenderRates


def test_a_burst_passes_then_one_for_each_share_of_the_time():
    clock = ManualClock()
    rates = SenderRates(RateConfig(events=5, seconds=10), clock)
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
    rates = SenderRates(RateConfig(events=1, seconds=1), clock)
    assert rates.take("ann") == 0.0 and rates.take("bob") == 0.0
    for _ in range(50):
        assert rates.take("ann") > 0
    clock.advance(1)
    assert rates.take("ann") == 0.0


def test_memory_is_bounded_and_who_is_active_is_not_forgotten():
    clock = ManualClock()
    rates = SenderRates(RateConfig(events=1, seconds=3600), clock)
    assert rates.take("ann") == 0.0
    for n in range(3 * _SENDERS):
        rates.take(f"flood-{n}")
        if n % 1000 == 0:
            assert rates.take("ann") > 0
    assert len(rates._senders) == _SENDERS
    assert rates.take("ann") > 0
    assert rates.take("late") == 0.0 and rates.take("late") > 0


def hour_ago(clock, minutes):
    return clock.now() - 3_600_000 + int(minutes * 60_000)


def test_what_arrives_late_together_is_counted_by_the_times_at_which_it_was_done():
    clock = ManualClock(1_700_000_000_000)
    rates = SenderRates(RateConfig(events=20, seconds=60), clock)
    waits = [rates.take("ann", hour_ago(clock, n * 1.2)) for n in range(50)]
    assert waits == [0.0] * 50
    crowd = SenderRates(RateConfig(events=20, seconds=60), clock)
    waits = [crowd.take("bob", hour_ago(clock, 0)) for n in range(50)]
    assert waits[:20] == [0.0] * 20 and all(wait > 0 for wait in waits[20:])


def test_what_arrives_late_passes_also_after_something_of_now():
    clock = ManualClock(1_700_000_000_000)
    rates = SenderRates(RateConfig(events=5, seconds=60), clock)
    assert [rates.take("ann") for _ in range(5)] == [0.0] * 5
    assert rates.take("ann") > 0
    assert [rates.take("ann", hour_ago(clock, n)) for n in range(30)] == [0.0] * 30
    clock.advance(60)
    assert [rates.take("ann") for _ in range(5)] == [0.0] * 5


def test_a_flood_of_old_claims_does_not_keep_the_sender_from_speaking_now():
    clock = ManualClock(1_700_000_000_000)
    rates = SenderRates(RateConfig(events=5, seconds=60), clock)
    for n in range(5_000):
        rates.take("ann", clock.now() - 80_000_000 + n * 15_000)
    assert rates.take("ann") == 0.0


def test_claiming_old_times_gains_ten_times_the_burst_at_most_and_once():
    clock = ManualClock(1_700_000_000_000)
    rates = SenderRates(RateConfig(events=5, seconds=10), clock)

    def flood():
        begin = clock.now() - 10 * 365 * 86_400_000
        return sum(rates.take("eve", begin + n * 3_600_000) == 0.0 for n in range(10_000))

    assert flood() <= 50
    clock.advance(10)
    assert flood() <= 5, "no more than at any rate, once the gain is used up"
    late = sum(rates.take("eve") == 0.0 for _ in range(100))
    assert late <= 5


def test_times_ahead_and_times_that_run_back_gain_nothing():
    clock = ManualClock(1_700_000_000_000)
    rates = SenderRates(RateConfig(events=5, seconds=10), clock)
    ahead = [rates.take("eve", clock.now() + n * 60_000) for n in range(1, 20)]
    assert ahead[:5] == [0.0] * 5 and all(wait > 0 for wait in ahead[5:])
    back = [rates.take("bob", clock.now() - n * 60_000) for n in range(1, 30)]
    assert all(wait > 0 for wait in back[6:]), "one that runs back gains nothing"


def test_what_cannot_be_refused_counts():
    rates = SenderRates(RateConfig(events=2, seconds=10), ManualClock())
    assert [rates.take("ann", always=True) for _ in range(50)] == [0.0] * 50
    assert rates.take("ann") > 0
