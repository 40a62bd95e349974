"""Caches that forget what was used least recently."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from hansa import LruCache, WeightedLruCache
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
#: What takes out the oldest of its entries, and is not one of these caches.
OTHERS = {
    "core/hansa/bus/presence_relay.py": "queues, of which the one that waits longest has its turn",
    "core/hansa/http/tls_handshakes.py": "a queue, of which the first one has its turn",
    "core/hansa/pacing/token_buckets.py": "two tables of one thing, on the way of every request",
    "plugins/matrix/hansa_matrix/federation/destination_queue.py": "a queue, of which each drop is counted",
    "plugins/matrix/hansa_matrix/bounds/generations.py": "what it forgets stays as the floor for all others",
}
STEPS = st.lists(st.tuples(st.sampled_from(["get", "put", "pop"]), st.integers(0, 6), st.integers(0, 5)))


@given(STEPS)
def test_the_entry_that_was_used_least_recently_is_forgotten(steps):
    cache, model = LruCache[int, int](3), OrderedDict[int, int]()
    for what, key, value in steps:
        if what == "put":
            cache.put(key, value)
            model.pop(key, None)
            model[key] = value
            if len(model) > 3:
                del model[next(iter(model))]
        elif what == "pop":
            assert cache.pop(key) == model.pop(key, None)
        else:
            assert cache.get(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
        assert (
            cache.items() == list(model.items())
            and len(cache) == len(model)
            and (key in cache) is (key in model)
        )
    cache.clear()
    assert not len(cache)


@given(STEPS)
def test_weights_are_bounded_and_the_last_entry_stays(steps):
    cache, model = WeightedLruCache[int, int](3, 7, lambda value: value * 2), OrderedDict[int, int]()
    for what, key, value in steps:
        if what == "put":
            cache.put(key, value)
            model.pop(key, None)
            model[key] = value
            while len(model) > 1 and (len(model) > 3 or 2 * sum(model.values()) > 7):
                del model[next(iter(model))]
        elif what == "pop":
            assert cache.pop(key) == model.pop(key, None)
        else:
            assert cache.get(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
        assert cache.items() == list(model.items()) and cache.weight == 2 * sum(model.values())
        assert len(cache) == len(model) and (key in cache) is (key in model)
    cache.clear()
    assert not len(cache) and cache.weight == 0


def test_what_forgets_its_oldest_entries_is_one_of_these_caches():
    sources = [file for folder in ("core", "plugins") for file in (ROOT / folder).rglob("*.py")]
    evicting = {str(f.relative_to(ROOT)) for f in sources if "popitem(last=False)" in f.read_text()}
    assert evicting - {"core/hansa/model/lru.py"} == OTHERS.keys()
