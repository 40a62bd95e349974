"""When to try again, and when not to try at all."""

from __future__ import annotations

from hansa import Backoff, CircuitBreaker
from hansa.testing import ManualClock


def test_waits_double_up_to_the_longest_one():
    backoff = Backoff(first=0.5, most=4.0)
    assert [backoff.delay(n) for n in (1, 2, 3, 4, 5, 1000)] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert backoff.delay(0) == 0.5


def test_waits_are_spread_by_their_jitter():
    backoff = Backoff(first=10.0, most=10.0, jitter=0.1)
    assert (backoff.delay(1, 0.0), backoff.delay(1, 0.5), backoff.delay(1, 1.0)) == (9.0, 10.0, 11.0)


def test_a_breaker_opens_after_some_failures_and_lets_one_through_after_a_while():
    clock = ManualClock()
    breaker = CircuitBreaker(clock, 3, 60.0)
    for _ in range(2):
        breaker.failed()
        assert not breaker.is_open
    breaker.failed()
    assert breaker.is_open
    clock.advance(59.0)
    assert breaker.is_open
    clock.advance(1.0)
    assert not breaker.is_open
    breaker.failed()
    assert breaker.is_open
    breaker.succeeded()
    assert not breaker.is_open
    breaker.failed()
    assert not breaker.is_open
