"""State that says something of another kind than a word says what its default is."""

from __future__ import annotations

from typing import Any

import pytest
from hansa_matrix.proto.words import history_visibility, join_rule

ODD: list[Any] = [["joined"], {"a": 1}, 1, True, None]


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_word_is_the_default(odd: Any) -> None:
    assert history_visibility({"history_visibility": odd}) == "shared"
    assert join_rule({"join_rule": odd}) == "invite"


def test_words_are_taken() -> None:
    assert history_visibility({"history_visibility": "joined"}) == "joined"
    assert history_visibility({"history_visibility": "nonsense"}) == history_visibility(None) == "shared"
    assert join_rule({"join_rule": "public"}) == "public"
    assert join_rule(None) == "invite"
