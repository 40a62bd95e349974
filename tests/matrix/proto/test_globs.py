"""Globs: what they match, as a regular expression would, and in what time."""

from __future__ import annotations

import random
import re

import pytest
from cpu_reference import relative_cost
from hansa_matrix.proto.globs import contains_glob, matches_glob

#: CPU time in units of ``cpu_reference``: as a regular expression one of them takes minutes.
MOST = 50


@pytest.mark.parametrize("seed", range(20))
def test_they_match_what_a_regular_expression_does(seed):
    choice = random.Random(seed)
    for _ in range(300):
        glob = "".join(choice.choices("ab*? .", k=choice.randint(1, 6)))
        text = "".join(choice.choices("abAB. _é", k=choice.randint(0, 9)))
        inner = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in glob)
        whole = re.compile(inner, re.IGNORECASE | re.DOTALL)
        within = re.compile(rf"(?<![A-Za-z0-9_])(?:{inner})(?![A-Za-z0-9_])", re.IGNORECASE | re.DOTALL)
        starts = within.pattern if glob[0] != "*" else rf"(?:{inner})(?![A-Za-z0-9_])"
        ends = starts.removesuffix("(?![A-Za-z0-9_])") if glob[-1] == "*" else starts
        assert matches_glob(glob, text) is (whole.fullmatch(text) is not None), (glob, text)
        expected = re.compile(ends, re.IGNORECASE | re.DOTALL).search(text) is not None
        assert contains_glob(glob, text) is expected, (glob, text)


@pytest.mark.parametrize(
    "glob", ["*a*a*a*b", "?*?*?*?*b", "*a" * 400 + "b", "a*" * 400 + "b", "*" * 900 + "b"]
)
@pytest.mark.parametrize("text", ["a" * 4000, "a " * 2000])
def test_no_pattern_takes_long(glob, text):
    assert not matches_glob(glob, text)
    assert not contains_glob(glob, text)
    assert relative_cost(lambda: (matches_glob(glob, text), contains_glob(glob, text))) < MOST
