"""Limits by name and by address: nobody is let in again by being many."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from hansa import Busy
from hansa.pacing import token_buckets
from hansa_matrix.client_api.account.address_shares import AddressShares
from hansa_matrix.ratelimit import RateLimiter
from hansa_matrix.server_api.unproven_work import MAX_EACH, UnprovenWork


class At:
    """A clock that stands."""

    at = 0.0

    def monotonic(self) -> float:
        return self.at


def test_inventing_names_makes_nobody_forget_who_has_used_up_theirs(monkeypatch):
    """10,000 invented names once gave a caller as many guesses as it liked."""
    monkeypatch.setattr(token_buckets, "MAX_NAMES", 100)
    clock: Any = At()
    allowed = RateLimiter(clock, 0.01, 5)
    assert [bool(allowed.take("juliet")) for _ in range(6)] == [False] * 5 + [True]
    for n in range(5000):
        allowed.take(f"invented{n}")
    assert allowed.take("juliet") > 0 and len(allowed) <= 200
    clock.at = 1000.0
    assert allowed.take("juliet") == 0.0


def test_who_has_a_wide_network_has_few_times_the_allowance_of_one_64():
    clock: Any = At()
    allowed = RateLimiter(clock, 1.0, 8)
    assert sum(not allowed.take_from("2a00:1:2:3::1") for _ in range(50)) == 8
    assert sum(not allowed.take_from(f"2a00:1:2:{n:x}::1") for n in range(4, 500)) == 16 - 8
    assert sum(not allowed.take_from(f"2a00:1:{n:x}::1") for n in range(3, 500)) == 32 - 16
    assert allowed.take_from("2a00:2::1") == 0.0
    assert sum(not allowed.take_from(f"192.0.2.{n}") for n in range(200)) == 8
    assert all(RateLimiter(clock, 0, 1).take_from("192.0.2.1") == 0.0 for _ in range(5))


def test_a_wide_network_does_not_take_the_pool_of_all_strangers():
    clock: Any = At()
    strangers = UnprovenWork(clock)
    with ExitStack() as stack:
        for n in range(2 * MAX_EACH):
            stack.enter_context(strangers.work(f"2a00:1:2:{n:x}::1"))
        for n in range(2 * MAX_EACH, 4 * MAX_EACH):
            with pytest.raises(Busy), strangers.work(f"2a00:1:2:{n:x}::1"):
                pass
            stack.enter_context(strangers.work(f"2a00:1:{n:x}::1"))
        with pytest.raises(Busy), strangers.work("2a00:1:ff::1"):
            pass
        assert stack.enter_context(strangers.work("192.0.2.1")) == "192.0.2.0/24"
    assert not strangers._under_way and strangers._in_work == 0


def test_a_wide_network_pushes_out_its_own_and_keeps_nobody_out():
    """One value for each of its /64 took all places, and everybody else was told to wait."""
    clock: Any = At()
    shares: AddressShares[int] = AddressShares(clock, most=50, each=5, seconds=60.0)
    shares.put("mine", "192.0.2.1", 0)
    for n in range(500):
        shares.put(f"theirs{n}", f"2a00:1:2:{n:x}::1", n)
    for n in range(20):
        shares.put(f"others{n}", f"198.51.{n}.1", n)
    assert shares.get("mine") == 0 and shares.get("others0") == 0 and len(shares) == 50
    clock.at = 100.0
    shares.put("later", "192.0.2.1", 0)
    assert len(shares) == 1 and len(shares._of) == len(shares._wide) == 1
