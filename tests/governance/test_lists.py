"""Globs, and the many spellings of one server."""

from __future__ import annotations

import fnmatch
import re
import time

import pytest
from hansa_governance.lists import MAX_NAME, Globs, host_of, matches
from hypothesis import given
from hypothesis import strategies as st
from yardstick import yardstick


@given(st.text("ab*?", max_size=8), st.text("abc", max_size=10))
def test_a_glob_covers_what_a_regular_expression_says(glob, name):
    pattern = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in glob)
    assert matches(glob, name) is bool(re.fullmatch(pattern, name))
    assert matches(glob, name) is fnmatch.fnmatchcase(name, glob)


def test_a_hostile_glob_and_name_take_no_time():
    began = time.process_time()
    assert not matches("*a" * 120 + "b", "a" * MAX_NAME)
    assert time.process_time() - began < 5 * yardstick()


@pytest.mark.parametrize(
    ("server", "host"),
    [
        ("Evil.Example", "evil.example"),
        ("evil.example:8448", "evil.example"),
        ("evil.example.", "evil.example"),
        ("evil.example.:8448", "evil.example"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[2001:DB8:0::1]:8448", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8:0::1", "2001:db8::1"),
        ("xn--bcher-kva.example", "bücher.example"),
        ("XN--BCHER-KVA.example:1", "bücher.example"),
        ("xn--\udcff.example", "xn--\udcff.example"),
        ("xn--a-.example", "xn--a-.example"),
        ("", ""),
        (":", ":"),
        ("a:b", "a:b"),
    ],
)
def test_one_server_has_one_form(server, host):
    assert host_of(server) == host


@pytest.mark.parametrize(
    ("glob", "name", "covered"),
    [
        ("evil.example", "EVIL.example", True),
        ("evil.example", "evil.example:8448", True),
        ("evil.example", "evil.example.", True),
        ("evil.example", "not-evil.example", False),
        ("*.evil.example", "a.b.evil.example:1", True),
        ("*.evil.example", "evil.example", False),
        ("localhost:*", "localhost:8448", True),
        ("localhost:*", "localhost", False),
        ("evil.example:8448", "evil.example:8448", True),
        ("evil.example:8448", "evil.example:1", False),
        ("10.0.0.?", "10.0.0.7:1", True),
        ("bücher.example", "xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "bücher.example", True),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example:1", True),
        ("[2001:db8::1]", "[2001:db8:0:0::1]:8448", True),
        ("2001:db8::*", "[2001:db8::5]", True),
    ],
)
def test_a_glob_covers_every_spelling_of_a_server(glob, name, covered):
    globs = Globs([glob])
    assert bool(globs.denies(name, host_of(name))) is covered
    assert globs.allows(name, host_of(name)) is covered


def test_what_is_too_long_is_denied_and_never_allowed():
    long = "x" * MAX_NAME + ".good.example"
    assert Globs(["nobody.example"]).denies(long)
    assert not Globs(["*.good.example", "*"]).allows(long)
    assert not Globs([]).denies(long)
    crafted = "x" * (MAX_NAME - len(".good.example")) + ".good.example" + ".evil.example"
    assert not Globs(["*.good.example"]).allows(crafted)
    assert Globs(["*.evil.example"]).denies(crafted)


def test_what_is_not_known_is_not_allowed():
    assert not Globs(["*"]).allows("")
    assert not Globs(["a.example"]).denies("")
    assert not Globs([])
