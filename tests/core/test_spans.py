"""Spans over a text: they nest, they keep the bounds, and no word depends on them."""

from __future__ import annotations

import pytest
from hansa import (
    Features,
    Formatted,
    Kind,
    Level,
    Message,
    NativeId,
    Span,
    SpanKind,
    arrange_spans,
    plain_text,
    span_tree,
)
from hansa.model.codec import content_from_json, content_to_json
from hansa.model.features import degrade
from hansa.model.spans import MAX_SPAN_DEPTH, MAX_SPANS, SPAN_BLOCKS
from hypothesis import given
from hypothesis import strategies as st

texts = st.text(st.sampled_from("ab \n😀"), max_size=40)
spans = st.builds(
    Span,
    start=st.integers(-2, 42),
    end=st.integers(-2, 42),
    kind=st.sampled_from(SpanKind),
    value=st.sampled_from(["", "x", "-"]),
    user=st.sampled_from([None, NativeId("matrix", "@a:x")]),
)


def _text_of(nodes: list) -> str:
    return "".join(node if isinstance(node, str) else _text_of(node[1]) for node in nodes)


@given(texts, st.lists(spans, max_size=30))
def test_whatever_is_said_of_a_text_nests_in_it(text, said):
    made = arrange_spans(text, said)
    assert made.text == text
    for number, span in enumerate(made.spans):
        assert 0 <= span.start < span.end <= len(text)
        for later in made.spans[number + 1 :]:
            assert later.start >= span.end or (span.start <= later.start and later.end <= span.end)
        if span.kind in SPAN_BLOCKS:
            assert span.start == 0 or text[span.start - 1] == "\n"
            assert span.end == len(text) or text[span.end] == "\n"
    assert _text_of(span_tree(made)) == text
    assert arrange_spans(text, made.spans) == made


@given(texts, st.lists(spans, max_size=10))
def test_a_formatted_message_survives_the_log(text, said):
    message = Message(text=text, spans=arrange_spans(text, said).spans)
    assert content_from_json(content_to_json(message)) == message


def test_a_span_of_a_newer_hansa_is_left_out():
    row = {
        "kind": "message",
        "text": "hi",
        "style": "text",
        "spans": [[0, 2, "glow", ""], [0, 2, "bold", ""]],
    }
    assert content_from_json(row) == Message(text="hi", spans=(Span(start=0, end=2, kind=SpanKind.BOLD),))


def test_marks_do_not_outgrow_a_text():
    lines = "x\n" * 31_000 + "x"
    deep = arrange_spans(lines, [Span(start=0, end=len(lines), kind=SpanKind.QUOTE) for _ in range(16)])
    assert len(deep.spans) == 16
    assert plain_text(deep) == lines


def test_a_message_of_an_older_log_has_no_spans():
    assert content_from_json({"kind": "message", "text": "hi", "style": "text"}) == Message(text="hi")
    assert "spans" not in content_to_json(Message(text="hi"))


def _span(text: str, part: str, kind: SpanKind, value: str = "") -> Span:
    start = text.index(part)
    return Span(start=start, end=start + len(part), kind=kind, value=value)


def test_the_later_of_two_that_cross_is_split():
    text = "one two three"
    made = arrange_spans(
        text, [_span(text, "one two", SpanKind.BOLD), _span(text, "two three", SpanKind.ITALIC)]
    )
    assert [(text[s.start : s.end], s.kind) for s in made.spans] == [
        ("one two", SpanKind.BOLD),
        ("two", SpanKind.ITALIC),
        (" three", SpanKind.ITALIC),
    ]


def test_a_span_of_a_line_ends_where_a_block_begins():
    text = "one\ntwo\nthree"
    made = arrange_spans(text, [_span(text, text, SpanKind.BOLD), _span(text, "two", SpanKind.QUOTE)])
    assert [(text[s.start : s.end], s.kind) for s in made.spans] == [
        ("one\n", SpanKind.BOLD),
        ("two", SpanKind.QUOTE),
        ("two", SpanKind.BOLD),
        ("\nthree", SpanKind.BOLD),
    ]


@pytest.mark.parametrize("kind", [SpanKind.CODE, SpanKind.CODE_BLOCK])
def test_nothing_in_code_is_formatted(kind):
    text = "x = 1"
    made = arrange_spans(text, [_span(text, text, kind), _span(text, "x", SpanKind.BOLD)])
    assert [s.kind for s in made.spans] == [kind]


def test_bounds():
    text = "\n".join("ab" for _ in range(1000))
    many = [Span(start=3 * n, end=3 * n + 2, kind=SpanKind.BOLD) for n in range(1000)]
    assert len(arrange_spans(text, many).spans) == MAX_SPANS
    deep = [Span(start=0, end=2, kind=SpanKind.QUOTE) for _ in range(100)]
    assert len(arrange_spans(text, deep).spans) == MAX_SPAN_DEPTH


def test_a_network_without_formatting_gets_text():
    text = "said\nsee here"
    message = Message(
        text=text,
        spans=arrange_spans(
            text,
            [_span(text, "said", SpanKind.QUOTE), _span(text, "here", SpanKind.LINK, "https://x.example/")],
        ).spans,
    )
    plain = Message(text="> said\nsee here (https://x.example/)")
    levels = {Kind.MESSAGE: Level.FULL}
    assert degrade(message, Features(levels=levels)) == plain
    assert degrade(message, Features(levels=levels, formatting=True)) == message
    assert plain_text(Formatted(text=text, spans=message.spans)) == plain.text
