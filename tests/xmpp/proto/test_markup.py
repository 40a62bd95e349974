"""Message markup (XEP-0394): what it says of a body, and what it must not do."""

from __future__ import annotations

import pytest
from hansa import Message, SpanKind, Style
from hansa_xmpp.proto import convert
from hansa_xmpp.proto.markup import MAX_ELEMENTS
from hypothesis import given
from hypothesis import strategies as st
from xmpp.stanzas import arrived, groupchat

B, I, S, C = SpanKind.BOLD, SpanKind.ITALIC, SpanKind.STRIKE, SpanKind.CODE  # noqa: E741  # as in the table
CODE, QUOTE, ITEM = SpanKind.CODE_BLOCK, SpanKind.QUOTE, SpanKind.LIST_ITEM


def message(body: str, markup: str, more: str = "") -> Message:
    inner = f"<body>{body}</body><markup xmlns='urn:xmpp:markup:0'>{markup}</markup>{more}"
    content = convert.content_of(arrived(groupchat("j@x.example/a", inner)))
    assert isinstance(content, Message)
    return content


def span(start: object, end: object, *styles: str) -> str:
    return f"<span start='{start}' end='{end}'>{''.join(f'<{style}/>' for style in styles)}</span>"


def spans_of(content: Message) -> list[tuple[str, SpanKind, str]]:
    return [(content.text[one.start : one.end], one.kind, one.value) for one in content.spans]


LIST = "<list start='3' end='12'><li start='3'/><li start='8'/></list>"


@pytest.mark.parametrize(
    ("body", "markup", "spans"),
    [
        ("no reason", span(3, 9, "emphasis"), [("reason", I, "")]),
        ("é😀 x", span(0, 2, "strong", "deleted"), [("é😀", B, ""), ("é😀", S, "")]),
        ("a `b`", span(2, 5, "code"), [("`b`", C, "")]),
        ("run:\n$ ls", "<bcode start='5' end='9' language='bash'/>", [("$ ls", CODE, "bash")]),
        ("run:\n$ ls", "<bcode start='5' end='9' language='&lt;x&gt; y'/>", [("$ ls", CODE, "")]),
        ("He:\n&gt; no\nso", "<bquote start='4' end='8'/>", [("> no", QUOTE, "")]),
        ("ab\n- cd\n- ef", LIST, [("- cd", ITEM, "-"), ("- ef", ITEM, "-")]),
        ("ab\n1. c\n2. d", LIST, [("1. c", ITEM, "1."), ("2. d", ITEM, "2.")]),
        ("ab\ncd e\ngh i", LIST, []),
        ("*all* words", "", []),
        ("*all* words", "<new start='0' end='3'/>" + span(0, 5, "new"), []),
    ],
)
def test_the_markup_says_the_formatting_and_the_body_stands(
    body: str, markup: str, spans: list[tuple[str, SpanKind, str]]
) -> None:
    content = message(body, markup)
    assert content.text == body.replace("&gt;", ">")
    assert spans_of(content) == spans


@pytest.mark.parametrize(
    ("start", "end"), [(2, 2), (3, 2), (0, 99), (-1, 2), ("", 2), ("x", 2), ("٠", 2), (0, "9" * 30)]
)
def test_a_span_that_is_not_within_the_body_is_left_out(start: object, end: object) -> None:
    assert message("words", span(start, end, "strong")) == Message(text="words")


def test_positions_count_from_the_start_of_the_whole_body() -> None:
    emote = message("/me waves", span(4, 9, "strong"))
    assert (emote.text, emote.style, spans_of(emote)) == ("waves", Style.EMOTE, [("waves", B, "")])
    stanza = arrived(
        groupchat(
            "j@x.example/a",
            "<body>&gt; hi\nyes</body><markup xmlns='urn:xmpp:markup:0'>"
            + span(0, 7, "strong")
            + "</markup>",
        )
    )
    assert spans_of(convert.message_of(stanza, "yes")) == [("ye", B, "")]


def test_the_markup_is_bounded() -> None:
    many = message("x" * 4000, "".join(span(n, n + 1, "strong") for n in range(0, 2000, 2)))
    assert len(many.spans) == MAX_ELEMENTS
    items = "".join(f"<li start='{2 * n}'/>" for n in range(1000))
    lists = f"<list start='0' end='4000'>{items}</list>" * 100
    assert len(message("- x\n" * 1000, lists).spans) <= 500


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.sampled_from(["strong", "code"]))))
def test_spans_that_cross_come_out_nested(pieces: list[tuple[int, int, str]]) -> None:
    content = message("ab cd\nef gh", "".join(span(*piece) for piece in pieces))
    ends = list[int]()
    for one in content.spans:
        while ends and ends[-1] <= one.start:
            ends.pop()
        assert not ends or one.end <= ends[-1]
        ends.append(one.end)
