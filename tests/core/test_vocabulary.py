"""Every kind of content: it survives the log, it has words, and policies read them."""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson
import pytest
from core.vocabulary import ANN, PICTURE, SAMPLES, WHOLE
from hansa import (
    Attachment,
    Content,
    Custom,
    Edit,
    Event,
    Features,
    Kind,
    Level,
    Message,
    NativeId,
    PollVote,
    Reaction,
    Retraction,
    Style,
    Surroundings,
    attachments_of,
    fallback_text,
    target_of,
    words_of,
)
from hansa.model.codec import content_from_json, content_to_json, event_from_bytes, event_to_bytes
from hansa.model.features import MAX_PARTS, degrade, split_content
from hypothesis import given
from hypothesis import strategies as st

EACH = [content for content, _ in SAMPLES]


def event_with(content: Content, **more: Any) -> Event:
    origin = NativeId("left", "o1")
    return Event(
        id="e1", room="r", seq=1, origin=origin, sender=ANN, content=content, ts=1, received=2, **more
    )


@pytest.mark.parametrize("content", EACH, ids=lambda content: content.kind)
def test_a_content_survives_the_log(content):
    read = content_from_json(orjson.loads(orjson.dumps(content_to_json(content))))
    assert dataclasses.astuple(read) == dataclasses.astuple(content)


@pytest.mark.parametrize("content", EACH, ids=lambda content: content.kind)
def test_an_older_version_reads_a_kind_that_it_does_not_know_as_its_text(content):
    data = content_to_json(content) | {"kind": "hologram"}
    known = {Kind.MEMBER, Kind.ENCRYPTED, Kind.MESSAGE, Kind.NAME, Kind.TOPIC, Kind.CUSTOM}
    words = data.get("text", "") if content.kind in known else fallback_text(content)
    assert content_from_json(data) == Custom(type="hologram", text=words)


def test_every_field_of_every_kind_is_in_a_sample_that_differs_from_its_default():
    for kind in {type(content) for content in EACH} | {Attachment}:
        samples = [PICTURE] if kind is Attachment else [one for one in EACH if type(one) is kind]
        for field in dataclasses.fields(kind):
            said = [getattr(one, field.name) for one in samples]
            assert any(one != field.default for one in said), (kind, field.name)


def _strings(value: Any) -> set[str]:
    """The strings of a content, without ids, tags and names of the vocabulary."""
    match value:
        case str():
            return {value}
        case tuple():
            return set().union(*map(_strings, value)) if value else set()
        case NativeId():
            return set()
        case _ if dataclasses.is_dataclass(value):
            fields = (f.name for f in dataclasses.fields(value) if f.name not in _IDS)
            return set().union(*(_strings(getattr(value, name)) for name in fields))
        case _:
            return set()


_IDS = {"target", "of", "of_target", "reply_to", "thread", "style", "kind", "sha256", "id", "role"} | {
    "membership",
    "former_membership",
    "former_name",
    "type",
}


@pytest.mark.parametrize("content", EACH, ids=lambda content: content.kind)
def test_policies_read_every_string_of_a_content(content):
    assert _strings(content) - {""} <= set(words_of(content))


def test_a_payload_is_stored_with_its_event():
    event = event_with(Message(text="hello"), payload=bytes(range(256)))
    assert event_from_bytes("r", 1, event_to_bytes(event)) == event


def test_the_target_of_each_kind():
    assert {content.kind for content in EACH if target_of(content)} == {
        Kind.MESSAGE,
        Kind.EDIT,
        Kind.REACTION,
        Kind.RETRACTION,
        Kind.REPORT,
        Kind.POLL_VOTE,
        Kind.POLL_END,
    }
    assert attachments_of(Edit(target="e1", message=WHOLE)) == WHOLE.attachments


def _full(**more: Any) -> Features:
    return Features(levels=dict.fromkeys(Kind, Level.FULL), **more)


def _around(content: Content) -> Surroundings:
    return Surroundings(
        target=event_with(content), target_name="Ann", link_of=lambda file: f"https://x/{file.name}"
    )


def test_a_network_without_replies_gets_a_quote_and_one_without_files_a_link():
    message = Message(text="yes", reply_to="e1", attachments=(PICTURE,))
    around = _around(Message(text="shall\nwe? " + "really " * 40))
    told = degrade(message, _full(), around)
    assert isinstance(told, Message)
    quote, words, file = told.text.split("\n")
    assert quote.startswith("> Ann: shall we? really") and quote.endswith("…") and len(quote) < 140
    assert (words, file) == ("yes", "[voice message balcony.png, 120 KB] https://x/balcony.png")
    assert degrade(message, _full(replies=True, attachments=True), around) == message
    edit = degrade(Edit(target="e1", message=message), _full(), around)
    assert isinstance(edit, Edit) and edit.message.text.endswith(file)


def test_spans_stand_where_they_stood_behind_a_quote():
    message = dataclasses.replace(WHOLE, attachments=())
    told = degrade(message, _full(formatting=True), _around(Message(text="hm")))
    assert isinstance(told, Message) and told.text == "> Ann: hm\nsee here"
    assert [told.text[span.start : span.end] for span in told.spans] == ["see"]


def test_fallbacks_name_what_they_are_about():
    words = _around(Message(text="shall we?"))
    assert fallback_text(Reaction(target="e1", key="👍"), words) == "[reacted with 👍 to “shall we?”]"
    assert fallback_text(Retraction(target="e1"), words) == "[a message of Ann was removed]"
    assert fallback_text(Retraction(target="e1", of=Kind.REACTION), words) == ""
    poll = next(content for content in EACH if content.kind is Kind.POLL_START)
    assert fallback_text(PollVote(target="e1", answers=("t", "x")), _around(poll)) == "[voted: Tea, x]"


@given(st.text(st.sampled_from("ab \né👩‍🚀e\u0301"), max_size=300), st.integers(8, 64))
def test_a_text_that_is_too_long_comes_in_parts_that_say_all_of_it(text, limit):
    parts = split_content(Message(text=text), _full(max_text=limit))
    assert all(isinstance(part, Message) and len(part.text.encode()) <= limit for part in parts[:MAX_PARTS])
    said = "".join(part.text for part in parts[:MAX_PARTS] if isinstance(part, Message))
    if len(parts) <= MAX_PARTS:
        assert said.replace("\n", "") == text.replace("\n", "")
    else:
        last = parts[-1]
        assert isinstance(last, Message) and last.style is Style.NOTICE and "characters more" in last.text


def test_parts_end_with_a_line_or_a_word_and_keep_their_spans_and_what_goes_with_a_message():
    text = "one two three four"
    spans = tuple(dataclasses.replace(WHOLE.spans[0], start=start, end=start + 5) for start in (4, 10))
    message = Message(text=text, spans=spans, reply_to="e1", attachments=(PICTURE,))
    first, second = split_content(message, _full(max_text=13))
    assert isinstance(first, Message) and isinstance(second, Message)
    assert (first.text, second.text) == ("one two ", "three four")
    assert (first.reply_to, first.attachments) == ("e1", ())
    assert (second.reply_to, second.attachments) == ("", (PICTURE,))
    assert [first.text[s.start : s.end] for s in first.spans] == ["two "]


def test_a_character_of_several_is_not_divided():
    parts = split_content(Message(text="aaaa" + "e\u0301" * 10), _full(max_text=12))
    assert not any(part.text.startswith("\u0301") for part in parts if isinstance(part, Message))


def test_an_edit_that_is_too_long_says_what_is_missing():
    message = Message(text="word " * 100, spans=(dataclasses.replace(WHOLE.spans[0], start=0, end=4),))
    [edit] = split_content(Edit(target="e1", message=message), _full(max_text=200))
    assert isinstance(edit, Edit) and len(edit.message.text.encode()) <= 200
    kept, _, note = edit.message.text.partition("…")
    assert note == f" [{500 - len(kept)} characters more are not shown here]"
    assert edit.message.spans == message.spans
    short = Edit(target="e1", message=Message(text="word"))
    assert split_content(short, _full(max_text=200)) == (short,)
