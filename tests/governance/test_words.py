"""The word rule: whole words, in whatever form they come."""

from __future__ import annotations

import time

import pytest
from hansa_governance.words import Words, tokens
from yardstick import yardstick

CAUGHT = [
    "classified",
    "this is CLASSIFIED!",
    "Classified: yes",
    "_classified_",
    "**classified**",
    "x\nclassified\ny",
    "ｃｌａｓｓｉｆｉｅｄ",
    "𝐜𝐥𝐚𝐬𝐬𝐢𝐟𝐢𝐞𝐝",
    "clas\u200bsified",
    "clas\u00adsified",
    "clas\u2060si\ufefffied",
    "\u202eclassified\u202c",
    "c\u0332l\u0332a\u0332ssified",
    "class\u034fified",
    "classi\ufe0ffied",
    "claſſified",
    "classiﬁed",
    "clas\U000e0041sified",
]
PASSES = ["unclassified", "classifieds", "declassified!", "class ified", "", "klassified", "\0", "🙈"]


@pytest.mark.parametrize("text", CAUGHT, ids=ascii)
def test_a_word_is_found_in_every_form(text):
    assert Words(["Classified"]).hit([text]) == "classified"


@pytest.mark.parametrize("text", PASSES, ids=ascii)
def test_only_whole_words_are_found(text):
    assert Words(["classified"]).hit([text]) == ""


def test_letters_that_differ_by_a_mark_of_their_own_differ():
    assert Words(["schon"]).hit(["schön"]) == ""
    assert Words(["schön"]).hit(["SCHO\u0308N"]) == "schön"
    assert Words(["straße"]).hit(["STRASSE"]) == "strasse"


def test_other_scripts_are_words_too():
    assert Words(["секрет"]).hit(["СЕКРЕТ!"]) == "секрет"
    assert Words(["秘密"]).hit(["秘密"]) == "秘密"
    assert Words(["गोपनीय"]).hit(["यह गोपनीय है"])
    assert Words(["سري"]).hit(["هذا سري"]) == "سري"


def test_phrases_and_any_of_several_texts():
    words = Words(["top secret", "top", "operation sea lion"])
    assert words.hit(["nothing", "the Operation -- Sea\nLion --"]) == "operation sea lion"
    assert words.hit(["operation sea", "lion"]) == ""
    assert words.hit(["top"]) == "top"
    assert Words(["top secret"]).hit(["top, very secret"]) == ""
    assert Words(["...", " "]).hit(["..."]) == ""
    assert Words([]).hit(["classified"]) == ""


def test_many_words_with_one_beginning_take_no_time():
    words = Words(f"the secret number {n}" for n in range(10_000))
    text = "the " * 15_000
    began = time.process_time()
    assert words.hit([text]) == ""
    assert time.process_time() - began < 5 * yardstick()
    assert words.hit([text + "secret number 77"]) == "the secret number 77"


def test_ascii_takes_the_short_way_to_the_same_result():
    text = "It_is: CLASSIFIED, or not-so 4 U"
    assert tokens(text) == tokens(text + "\u200b") == ["it", "is", "classified", "or", "not", "so", "4", "u"]
