"""Every string of a JSON value, and what is read of markup."""

from __future__ import annotations

import re

import pytest
from hansa import readings, strings_of


def test_every_string_and_every_name_counts():
    value = {"a": ["one", {"b": "two", "c": [["three"]]}], "four": 4, "": "five", "d": True, "e": None}
    assert set(strings_of(value)) == {"a", "b", "c", "d", "e", "one", "two", "three", "four", "five"}
    assert set(strings_of(value, names={"a", "b", "c", "d", "e"})) == {"one", "two", "three", "four", "five"}
    assert strings_of("six") == ("six",) and strings_of(6) == strings_of("") == ()


def test_an_identifier_is_known_by_its_place_and_by_its_form():
    forms = {"id": re.compile(r"\$[0-9]+")}
    names = {"id", "x"}
    assert strings_of({"id": "$1"}, names=names, forms=forms) == ()
    assert strings_of({"id": ["$1", "$2"]}, names=names, forms=forms) == ()
    assert strings_of({"id": {"$1": 0}}, names=names, forms=forms) == ()
    assert strings_of({"id": "$1 words"}, names=names, forms=forms) == ("$1 words",)
    assert strings_of({"x": "$1"}, names=names, forms=forms) == ("$1",)
    assert strings_of({"id": {"words": 0}}, names=names, forms=forms) == ("words",)


def test_deep_values_are_read_without_recursion():
    value: object = "deep"
    for _ in range(100_000):
        value = [value]
    assert strings_of(value) == ("deep",)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a<b>c</b>d", "acd"),
        ("<p>top</p><p>secret</p>", "top  secret"),
        ('a<b title=">">c', "ac"),
        ('a<b ">c', "ac"),
        ("a<!-- > -->c", "ac"),
        ("a<!doctype x>c", "ac"),
        ("a</3>c", "ac"),
        ("1 < 2", "1 < 2"),
        ("a&lt;b", "a<b"),
        ("a&#99999999999999999999;b", "ab"),
        ("a<b", "a"),
        ('<img alt="x&amp;y">', "x&y"),
        ("a<script>b<script></script>c</script>d", "ad"),
    ],
)
def test_markup_is_read_as_it_is_shown(text, read):
    assert read in [reading.strip() for reading in readings([text])]
    assert readings([text])[0] == text


def test_a_text_without_markup_is_read_once():
    assert readings(["hello", "hello", ""]) == ("hello", "")
