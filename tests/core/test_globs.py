"""Globs: what they cover is what a regular expression says, and none takes long."""

from __future__ import annotations

import fnmatch
import re
import time

import pytest
from cpu_reference import reference_cpu_s
from hansa import Glob, glob_expression
from hypothesis import given
from hypothesis import strategies as st

GLOBS, TEXTS = st.text("ab*?.[]", max_size=8), st.text("abAB.[]?*\n", max_size=10)


def covered(glob: str, text: str, special: dict[str, str], flags: int = 0) -> bool:
    source = "".join(special.get(c, re.escape(c)) for c in glob)
    return re.fullmatch(source, text, re.DOTALL | flags) is not None


@given(GLOBS, TEXTS)
def test_a_star_is_a_run_and_a_question_mark_is_one_character(glob, text):
    expected = covered(glob, text, {"*": ".*", "?": "."})
    assert Glob(glob).matches(text) is expected
    assert bool(re.fullmatch(glob_expression(glob), text, re.DOTALL)) is expected
    if "[" not in glob:
        assert fnmatch.fnmatchcase(text, glob) is expected


@given(GLOBS, TEXTS)
def test_what_is_not_a_wildcard_stands_for_itself(glob, text):
    assert Glob(glob, wildcards="*").matches(text) is covered(glob, text, {"*": ".*"})
    assert Glob(glob, wildcards="").matches(text) is (glob == text)


@given(GLOBS, TEXTS)
def test_case_is_ignored_where_that_is_asked_for(glob, text):
    expected = covered(glob, text, {"*": ".*", "?": "."}, re.IGNORECASE)
    assert Glob(glob, ignore_case=True).matches(text) is expected


@pytest.mark.parametrize(
    "glob", ["*a*a*a*b", "?*?*?*?*b", "*a" * 400 + "b", "a*" * 400 + "b", "*" * 900 + "b", "*?a" * 300 + "b"]
)
def test_no_glob_takes_long(glob):
    text = "a" * 4000
    began = time.process_time()
    assert not Glob(glob).matches(text)
    assert not Glob(glob, wildcards="*").matches(text)
    assert not Glob(glob, ignore_case=True).matches(text)
    assert not re.fullmatch(glob_expression(glob), text, re.DOTALL)
    assert time.process_time() - began < 50 * reference_cpu_s()
