"""Formatted text as Markdown and back: the words stay whole, and what is written is read again."""

from __future__ import annotations

import pytest
from cpu_reference import relative_cost
from hansa import Formatted, Span, SpanKind, arrange_spans
from hansa.markdown import MAX_MARKDOWN, parse_markdown, render_markdown
from hypothesis import given
from hypothesis import strategies as st

K = SpanKind


def made(text: str, *spans: tuple[str, SpanKind, str] | tuple[str, SpanKind]) -> Formatted:
    """A text with spans over the first place of some of its words."""
    found = [
        Span(start=text.index(s[0]), end=text.index(s[0]) + len(s[0]), kind=s[1], value=(*s, "")[2])
        for s in spans
    ]
    return arrange_spans(text, found)


BOTH_WAYS = [
    ("hello", made("hello")),
    ("one **bold** word", made("one bold word", ("bold", K.BOLD))),
    ("one *slanted* word", made("one slanted word", ("slanted", K.ITALIC))),
    ("one ~~struck~~ word", made("one struck word", ("struck", K.STRIKE))),
    ("***both***", made("both", ("both", K.ITALIC), ("both", K.BOLD))),
    ("see `x = 1`", made("see x = 1", ("x = 1", K.CODE))),
    ("see ``a`b``", made("see a`b", ("a`b", K.CODE))),
    ("see `` `a` ``", made("see `a`", ("`a`", K.CODE))),
    ("```python\nx = *1*\n```", made("x = *1*", ("x = *1*", K.CODE_BLOCK, "python"))),
    ("> said\n\nso", made("said\n\nso", ("said", K.QUOTE))),
    ("- one\n- two", made("- one\n- two", ("- one", K.LIST_ITEM, "-"), ("- two", K.LIST_ITEM, "-"))),
    ("3. one\n4. two", made("3. one\n4. two", ("3. one", K.LIST_ITEM, "3."), ("4. two", K.LIST_ITEM, "4."))),
    ("[here](<https://example.org/a_b>)", made("here", ("here", K.LINK, "https://example.org/a_b"))),
    ("2 \\* 3 \\* 4 \\_x\\_ \\<b\\>", made("2 * 3 * 4 _x_ <b>")),
    ("\\# no heading\n1\\. no list\n\\- none", made("# no heading\n1. no list\n- none")),
]


@pytest.mark.parametrize(("markdown", "formatted"), BOTH_WAYS, ids=[m for m, _ in BOTH_WAYS])
def test_markdown_says_the_text_and_is_read_again(markdown: str, formatted: Formatted):
    assert render_markdown(formatted) == markdown
    assert parse_markdown(markdown) == formatted


@pytest.mark.parametrize(
    ("markdown", "formatted"),
    [
        ("# A heading\n\ntext", made("A heading\n\ntext", ("A heading", K.BOLD))),
        ("<script>x</script> &amp; more", made("<script>x</script> & more")),
        ("a\nb", made("a\nb")),
        ("a  \nb", made("a\nb")),
        ("![cat](https://example.org/cat.png)", made("!cat", ("cat", K.LINK, "https://example.org/cat.png"))),
        ("    code", made("code", ("code", K.CODE_BLOCK))),
        ("", made("")),
        ("__bold__", made("bold", ("bold", K.BOLD))),
        ("a\n\n---\n\nb", made("a\n\n---\n\nb")),
    ],
)
def test_other_markdown_is_read_as_text(markdown: str, formatted: Formatted):
    assert parse_markdown(markdown) == formatted


def test_a_link_that_runs_a_program_is_no_link():
    found = parse_markdown("[here](javascript:alert(1))")
    assert not found.spans
    assert "here" in found.text


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "\x01javascript:alert(1)",
        "java\tscript:alert(1)",
        "&#106;avascript:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        "file:///etc/passwd",
        "//other.example",
        "https://x.example/>)",
    ],
)
def test_only_an_address_that_is_safe_to_open_is_written_as_a_link(address: str):
    written = render_markdown(made("here", ("here", K.LINK, address)))
    assert "](" not in written
    assert not [span for span in parse_markdown(written).spans if span.kind is K.LINK]


def test_a_reference_in_an_address_is_not_read_as_a_character():
    link = made("here", ("here", K.LINK, "https://x.example/?a=1&copy;=2"))
    assert parse_markdown(render_markdown(link)).spans[0].value.count("&copy;") == 1


def _words(text: str) -> list[str]:
    return text.split()


TEXTS = st.text(alphabet="ab *_~`[](){}<>#+-=.1!|&\\\n", max_size=60)
SPANS = st.lists(
    st.builds(
        lambda start, length, kind: Span(
            start=start, end=start + length, kind=kind, value="x" if kind is K.CODE_BLOCK else ""
        ),
        st.integers(0, 60),
        st.integers(1, 30),
        st.sampled_from([K.BOLD, K.ITALIC, K.STRIKE, K.CODE, K.MENTION]),
    ),
    max_size=6,
)


@given(TEXTS, SPANS)
def test_no_word_is_lost_or_read_as_formatting(text: str, spans: list[Span]):
    formatted = arrange_spans(text, spans)
    again = parse_markdown(render_markdown(formatted))
    assert _words(again.text) == _words(text)
    assert {span.kind for span in again.spans} <= {span.kind for span in formatted.spans}


@given(TEXTS)
def test_whatever_is_written_is_read_without_an_error(text: str):
    found = parse_markdown(text)
    assert arrange_spans(found.text, found.spans) == found


@pytest.mark.parametrize(
    "piece", ["*a ", "**", "[", "> ", "- ", "`", "``` ", "~~a", "[a](", "\\", "1. ", "&#0;"]
)
def test_a_long_text_does_not_take_long(piece: str):
    text = (piece * MAX_MARKDOWN)[:MAX_MARKDOWN]
    assert relative_cost(lambda: parse_markdown(text)) < 5
    assert parse_markdown(text + "x") == Formatted(text=text + "x")
