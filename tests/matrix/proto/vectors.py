"""Vector files as test parameters; what is written short in them spelt out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from matrix.proto.room_graph import load_vectors

_LONG = {"prefix", "repeat", "times", "suffix"}


def spelt(value: Any) -> Any:
    """The value with every ``{prefix, repeat, times, suffix}`` as the text that it stands for."""
    if isinstance(value, dict):
        if value.keys() == _LONG:
            return str(value["prefix"] + value["repeat"] * value["times"] + value["suffix"])
        return {key: spelt(one) for key, one in value.items()}
    return [spelt(one) for one in value] if isinstance(value, list) else value


def vectors(file: str) -> Mapping[str, Any]:
    return spelt(load_vectors(file))


def each(cases: Iterable[Any], name: str = "name") -> Callable[[Any], Any]:
    """The test once for every case, as ``case``."""
    found = list(cases)
    assert found
    ids = [str(case.get(name, case) if isinstance(case, dict) else case)[:60] or "empty" for case in found]
    return pytest.mark.parametrize("case", found, ids=ids)
