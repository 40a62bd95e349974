"""Message styling: the examples of XEP-0393, and what must hold of any body."""

from __future__ import annotations

import pytest
from hansa import Formatted, Span, SpanKind, arrange_spans
from hansa_xmpp.proto.styling import parse_styling, render_styling
from hypothesis import given
from hypothesis import strategies as st

B, I, S, C = SpanKind.BOLD, SpanKind.ITALIC, SpanKind.STRIKE, SpanKind.CODE  # noqa: E741  # as in the table
CODE, QUOTE = SpanKind.CODE_BLOCK, SpanKind.QUOTE


def spans_of(formatted: Formatted) -> list[tuple[str, SpanKind]]:
    return [(formatted.text[span.start : span.end], span.kind) for span in formatted.spans]


@pytest.mark.parametrize(
    ("body", "text", "spans"),
    [
        ("*strong span*", "strong span", [("strong span", B)]),
        ("plain _emphasis_ plain", "plain emphasis plain", [("emphasis", I)]),
        ("`pre` plain *strong*", "pre plain strong", [("pre", C), ("strong", B)]),
        ("*strong*plain*", "strongplain*", [("strong", B)]),
        ("* plain *strong*", "* plain strong", [("strong", B)]),
        ("Everyone ~dis~likes cake.", "Everyone dislikes cake.", [("dis", S)]),
        ("`*monospace*`", "*monospace*", [("*monospace*", C)]),
        (
            "*`monospace and bold`*",
            "monospace and bold",
            [("monospace and bold", B), ("monospace and bold", C)],
        ),
        ("_*x*_", "x", [("x", I), ("x", B)]),
        ("```meet me at five\nx", "```meet me at five\nx", []),
        ("```ignored\n(println)\n```\nafter", "(println)\nafter", [("(println)", CODE)]),
        ("> ```\n> (println)\nplain", "(println)\nplain", [("(println)", QUOTE), ("(println)", CODE)]),
        ("> That that is, is.\n\nSaid", "That that is, is.\n\nSaid", [("That that is, is.", QUOTE)]),
        (">> That\n> Said\n\nWho?", "That\nSaid\n\nWho?", [("That\nSaid", QUOTE), ("That", QUOTE)]),
    ],
)
def test_examples(body, text, spans):
    made = parse_styling(body)
    assert made.text == text
    assert spans_of(made) == spans


@pytest.mark.parametrize(
    "body",
    [
        "not strong*",
        "*not strong",
        "*not \n strong*",
        "*not *strong",
        "**",
        "***",
        "****",
        "a*b*",
        "x > y",
        "2 * 3 * 4",
    ],
)
def test_these_are_not_styled(body):
    assert parse_styling(body) == Formatted(text=body)
    assert render_styling(Formatted(text=body)) == (body, False)


@pytest.mark.parametrize("text", ["> _ <", "*not meant*", "```\ncode"])
def test_a_plain_text_that_looks_styled_is_marked(text):
    assert render_styling(Formatted(text=text)) == (text, True)


pieces = st.lists(st.sampled_from(["*", "_", "~", "`", "```", ">", " ", "\n", "a", "bc"]), max_size=30).map(
    "".join
)


@given(pieces)
def test_any_body_is_read_without_losing_a_letter(body):
    made = parse_styling(body)
    letters = [char for char in body if char in "abc"]
    assert [char for char in made.text if char in "abc"][: len(letters)] == letters or "```" in body


@given(
    pieces,
    st.lists(
        st.builds(
            Span,
            start=st.integers(0, 30),
            end=st.integers(0, 30),
            kind=st.sampled_from([B, I, S, C, CODE, QUOTE]),
        ),
        max_size=6,
    ),
)
def test_a_rendered_body_is_read_as_its_text(text, spans):
    formatted = arrange_spans(text, spans)
    body, unstyled = render_styling(formatted)
    if not unstyled:
        assert parse_styling(body).text == text


def test_a_deep_quote_of_many_lines_is_not_marked():
    lines = "x\n" * 10_000 + "x"
    deep = arrange_spans(lines, [Span(start=0, end=len(lines), kind=QUOTE) for _ in range(16)])
    assert render_styling(deep) == (lines, False)


def test_a_spoiler_is_announced():
    spoiler = Span(start=0, end=6, kind=SpanKind.SPOILER, value="the end")
    assert render_styling(arrange_spans("secret", [spoiler])) == ("[spoiler: the end] secret", False)


def test_a_link_says_where_it_leads():
    text = "see this, or https://a.example/"
    spans = [
        Span(start=4, end=8, kind=SpanKind.LINK, value="https://b.example/"),
        Span(start=13, end=31, kind=SpanKind.LINK, value="https://a.example/"),
    ]
    body = "see this (https://b.example/), or https://a.example/"
    assert render_styling(arrange_spans(text, spans)) == (body, False)


@pytest.mark.parametrize(
    "body", ["*a " * 11_000, "`" * 32_000, ">" * 32_000, "> " * 16_000, "*_~`" * 8_000, "```\n" * 8_000]
)
def test_a_hostile_body_is_read_in_bounded_steps(body):
    made = parse_styling(body)
    assert len(made.spans) <= 500
