"""Globs, and the many spellings of one server."""

from __future__ import annotations

import pytest
from cpu_reference import relative_cost
from hansa import Glob
from hansa_governance.lists import MAX_NAME, Globs, host_of, server_forms, user_forms
from hansa_governance.patterns import Patterns
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.text("ab*?", min_size=1, max_size=6), max_size=8), st.text("abc", max_size=10))
def test_many_globs_at_once_cover_what_each_does(globs, name):
    assert Patterns(globs).first(name) == next((glob for glob in globs if Glob(glob).matches(name)), "")


@pytest.mark.parametrize("form", ["*.bad{}.example", "bad{}.*", "*bad{}*", "@m?l{}:*.example", "*:bad{}.e?*"])
@pytest.mark.parametrize("name", ["a.example", "@mal:x.example", "bad." * 60, "@m" * 100, "bad1.bad2" * 25])
def test_a_name_is_tried_against_few_of_ten_thousand_globs(form, name, monkeypatch):
    tried = 0

    def counted(glob):
        nonlocal tried
        tried += 1
        return Glob(glob)

    globs = Patterns(form.format(number) for number in range(10_000))
    monkeypatch.setattr("hansa_governance.patterns.Glob", counted)
    globs.first(name)
    assert tried < 50
    assert globs.first(form.format(7).replace("*", "x").replace("?", "y")) == form.format(7)


def test_a_hostile_glob_and_name_take_no_time():
    name = "a" * MAX_NAME
    assert not Patterns(["*a" * 120 + "b"]).first(name)
    assert relative_cost(lambda: Patterns(["*a" * 120 + "b"]).first(name)) < 10


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
    globs = Globs([glob], server_forms)
    assert bool(globs.matching_glob(name)) is covered
    assert globs.covers(name) is covered


def test_what_is_too_long_is_denied_and_never_allowed():
    long = "x" * MAX_NAME + ".good.example"
    assert Globs(["nobody.example"], server_forms).matching_glob(long)
    assert not Globs(["*.good.example", "*"], server_forms).covers(long)
    assert not Globs([], server_forms).matching_glob(long)
    crafted = "x" * (MAX_NAME - len(".good.example")) + ".good.example" + ".evil.example"
    assert not Globs(["*.good.example"], server_forms).covers(crafted)
    assert Globs(["*.evil.example"], server_forms).matching_glob(crafted)


def test_what_is_not_known_is_not_allowed():
    assert not Globs(["*"], server_forms).covers("")
    assert not Globs(["a.example"], server_forms).matching_glob("")
    assert not Globs([], server_forms)


@pytest.mark.parametrize(
    "spelled",
    [
        "192.0.2.1",
        "192.0.2.1:8448",
        "192.0.2.1.",
        "[::ffff:192.0.2.1]",
        "[::FFFF:c000:201]:8448",
        "[0:0:0:0:0:ffff:192.0.2.1]",
        "[::192.0.2.1]",
        "[64:ff9b::192.0.2.1]",
        "[2002:c000:201::1]",
        "[::ffff:192.0.2.1%eth0]",
        "3221225985",
        "0xc0000201",
        "0xC0.0.2.1",
        "0300.0.02.01",
        "192.0.513",
        "192.513",
        "\uff11\uff19\uff12.0.2.1",
        "192\u3002" + "0.2.1",
        "192.0.2.1\u200b",
    ],
)
def test_one_address_has_one_form(spelled):
    assert Globs(["192.0.2.1"], server_forms).matching_glob(spelled)
    assert Globs(["[::ffff:192.0.2.1]"], server_forms).matching_glob(spelled)
    assert Globs(["192.0.2.*"], server_forms).matching_glob(spelled)


@pytest.mark.parametrize("server", ["1.2.3.4.5", "x0", "08.0.0.1", "1..2", "999999999999", "a.1"])
def test_what_is_no_address_stays_a_name(server):
    assert not Globs(["0.0.0.*", "192.0.2.*"], server_forms).matching_glob(server)


@pytest.mark.parametrize(
    "spelled",
    [
        "evil.example",
        "EVIL.EXAMPLE:8448",
        "evil.example.",
        "ev\u200bil.example",
        "evil\u3002example",
        "ｅｖｉｌ.example",
        "evil\u00ad.example",
    ],
)
def test_what_is_not_seen_in_a_server_name_changes_nothing(spelled):
    assert Globs(["evil.example"], server_forms).matching_glob(spelled)
    assert Globs(["*.example"], server_forms).matching_glob(spelled)


@pytest.mark.parametrize(
    "spelled",
    [
        "@mallory:evil.example",
        "@Mallory:evil.example",
        "@mallory\u200b:evil.example",
        "@mal\u00adlory:evil.example",
        "@ｍallory:evil.example",
        "\u2060@mallory:evil.example",
        "@mallory:evil.example.:8448",
        "@mallory:EVIL.example",
    ],
)
@pytest.mark.parametrize("glob", ["@mallory:*", "@mallory:evil.example", "@*:evil.example"])
def test_what_is_not_seen_in_a_user_id_changes_nothing(glob, spelled):
    assert Globs([glob], user_forms).matching_glob(spelled)


@pytest.mark.parametrize(
    "spelled", ["mallory@evil.example", "MALLORY@evil.example/phone", "mallory\u200b@evil.example."]
)
def test_a_jid_is_compared_as_it_is_prepared(spelled):
    assert Globs(["mallory@*"], user_forms).matching_glob(spelled)
    assert Globs(["*@evil.example*"], user_forms).matching_glob(spelled)


def test_a_list_that_allows_covers_the_canonical_spelling_only():
    users = Globs(["@ann:*"], user_forms)
    assert users.covers("@ann:good.example") and users.covers("@ANN:good.example:8448")
    ports = Globs(["good.example:8448"], server_forms)
    assert ports.covers("good.example:8448") and not ports.covers("good.example:1")
    assert not Globs(["[::ffff:*]"], server_forms).covers("[::ffff:192.0.2.1]")
    assert Globs(["192.0.2.1"], server_forms).covers("[::ffff:192.0.2.1]")


@given(st.text(max_size=40))
def test_any_name_has_spellings(name):
    for forms in (server_forms, user_forms):
        canonical, others = forms(name)
        assert canonical and others
