"""Passwords of URLs: in no text that shows the URL, and not taken out of ordinary words."""

from __future__ import annotations

import pytest
from hansa.store.credentials import Credentials

SAID = 'password authentication failed for user "a" at 127.0.0.1:5432 (28P01)'


@pytest.mark.parametrize("password", ["a", "at", "for", "password", "5432", "28P01"])
def test_a_password_that_is_a_word_or_short_is_left_in_ordinary_text(password):
    credentials = Credentials(f"postgres://hansa:{password}@db/hansa")
    assert credentials.blank(SAID.replace('"a"', '"hansa"')) == SAID.replace('"a"', '"hansa"')


@pytest.mark.parametrize("password", ["a", "password", "s3cr%21et", "x%2Fy%40z", "p(a|s"])
@pytest.mark.parametrize(
    "shown",
    [
        "cannot read {url}",
        "host=db user=hansa password={password} dbname=hansa",
        "there is no {password!r} here",
        "sslpassword={password}&sslmode=prefer",
    ],
)
def test_where_a_url_or_a_setting_is_shown_the_password_is_not(password, shown):
    url = f"postgres://hansa:{password}@db/hansa?sslpassword={password}"
    credentials = Credentials(url)
    for form in {password, password.replace("%21", "!").replace("%2F", "/").replace("%40", "@")}:
        told = credentials.blank(shown.format(url=f"postgres://hansa:{form}@db/hansa", password=form))
        for before, after in ((":", "@"), ("=", " "), ("=", "&"), ("'", "'")):
            assert f"{before}{form}{after}" not in told
        assert "***" in told


def test_what_no_ordinary_text_holds_is_blanked_everywhere():
    credentials = Credentials("mongodb://ann:s3cr%21et@db/hansa")
    assert credentials.blank("xs3cr!ety, s3cr%21et") == "x***y, ***"
    assert "s3cr" not in repr(credentials)
