"""HTML of messages as spans, and spans as HTML."""

from __future__ import annotations

import pytest
from hansa import Span, SpanKind, arrange_spans
from hansa_matrix.proto.html import MAX_TAGS, parse_html, render_html, user_id_of_link
from hypothesis import given
from hypothesis import strategies as st

K = SpanKind


def read(source: str) -> tuple[str, list[tuple[str, SpanKind, str]]]:
    made = parse_html(source)
    assert made is not None
    return made.text, [(made.text[s.start : s.end], s.kind, s.value) for s in made.spans]


@pytest.mark.parametrize(
    ("source", "text", "spans"),
    [
        ("<b>bold</b> and <em>it</em>", "bold and it", [("bold", K.BOLD, ""), ("it", K.ITALIC, "")]),
        ("<p>one</p><p>two  <code>x</code></p>", "one\n\ntwo x", [("x", K.CODE, "")]),
        (
            "<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>after",
            "- a\n  - b\n- c\nafter",
            [("- a\n  - b", K.LIST_ITEM, "-"), ("  - b", K.LIST_ITEM, "-"), ("- c", K.LIST_ITEM, "-")],
        ),
        (
            "<ol start=3><li>x</li><li>y</li></ol>",
            "3. x\n4. y",
            [("3. x", K.LIST_ITEM, "3."), ("4. y", K.LIST_ITEM, "4.")],
        ),
        (
            '<pre><code class="language-py">a\n  b\n</code></pre>tail',
            "a\n  b\ntail",
            [("a\n  b", K.CODE_BLOCK, "py")],
        ),
        ("<blockquote>q<br>r</blockquote>a", "q\nr\na", [("q\nr", K.QUOTE, "")]),
        ("<table><tr><th>A</th><th>B</th></tr><tr><td>1</td><td>2</td></tr></table>", "A | B\n1 | 2", []),
        (
            "<a href='https://x.example/?a=b&amp;c'>this</a>",
            "this",
            [("this", K.LINK, "https://x.example/?a=b&c")],
        ),
        ("hi <a href='https://matrix.to/#/@bob:x'>Bob</a>", "hi Bob", [("Bob", K.MENTION, "@bob:x")]),
        ("<span data-mx-spoiler='why'>secret</span>", "secret", [("secret", K.SPOILER, "why")]),
        ("<a href='//evil.example/x'>go</a>", "go", []),
        ("<a href='https://ev&#10;il.example/'>go</a>", "go", [("go", K.LINK, "https://evil.example/")]),
        ("<h1>T</h1>text", "T\n\ntext", [("T", K.BOLD, "")]),
        ("a<br>b<br><br>c", "a\nb\n\nc", []),
        ("<script>x</script><img src=x alt=pic> <a href='javascript:1'>j</a>", "pic j", []),
        ("  \n a &lt;b&gt; \n ", "a <b>", []),
        ("<unknown>kept</unknown>", "kept", []),
    ],
)
def test_html_is_read(source, text, spans):
    assert read(source) == (text, spans)


def test_html_beyond_the_bounds_is_not_read():
    assert parse_html("<b>" * (MAX_TAGS + 1)) is None
    assert parse_html("a" * 65_537) is None
    assert parse_html("<ul><li>" * (MAX_TAGS // 2)) is not None


def test_what_a_parser_opens_again_is_not_read():
    """Elements that are not closed are opened again in each paragraph."""
    many = MAX_TAGS // 2
    assert parse_html("<p>" + "".join(f"<b a{n}>" for n in range(many)) + "<p>x" * (many - 1)) is None


def test_the_values_of_pieces_are_bounded():
    made = parse_html(f"<a href='http://{'x' * 2000}'>" + "<blockquote>x</blockquote>" * (MAX_TAGS // 2 - 1))
    assert made is not None
    assert sum(len(span.value) for span in made.spans) <= 16_384


def test_nested_lists_do_not_grow():
    made = parse_html("<ul><li>" * (MAX_TAGS // 2) + "x")
    assert made is not None
    assert len(made.text) < 40 * MAX_TAGS


def test_only_the_schemes_of_the_specification_are_links():
    for uri, linked in (("https://x.example/", True), ("javascript:alert(1)", False), ("HTTP://x", True)):
        made = arrange_spans("go", [Span(start=0, end=2, kind=K.LINK, value=uri)])
        assert ("href" in render_html(made)) is linked
    for marker in ("", "x", "²³."):
        made = arrange_spans("go", [Span(start=0, end=2, kind=K.LIST_ITEM, value=marker)])
        assert render_html(made) == "<ul><li>go</li></ul>"
    made = arrange_spans("go", [Span(start=0, end=2, kind=K.CODE_BLOCK, value='x"><script>')])
    assert "<script" not in render_html(made)


texts = st.lists(st.sampled_from(["a", "<", "&", '"', "b c", "\n", "😀", "- "]), max_size=20).map("".join)
kinds = [K.BOLD, K.ITALIC, K.STRIKE, K.CODE, K.CODE_BLOCK, K.QUOTE, K.SPOILER]


def _words(text: str) -> list[str]:
    return text.split()


@given(
    texts,
    st.lists(
        st.builds(Span, start=st.integers(0, 30), end=st.integers(0, 30), kind=st.sampled_from(kinds)),
        max_size=8,
    ),
)
def test_what_is_written_is_read_with_the_same_words(text, spans):
    made = parse_html(render_html(arrange_spans(text, spans)))
    assert made is not None
    assert _words(made.text) == _words(text)
    again = parse_html(render_html(made))
    assert again is not None
    assert _words(again.text) == _words(text)


@pytest.mark.parametrize(
    ("uri", "user_id"),
    [
        ("https://matrix.to/#/@bob:x.example", "@bob:x.example"),
        ("https://matrix.to/#/%40bob%3Ax.example?via=y", "@bob:x.example"),
        ("matrix:u/bob:x.example?action=chat", "@bob:x.example"),
        ("https://matrix.to/#/#room:x.example", ""),
        ("https://matrix.to/#/!room:x/$event", ""),
        ("https://x.example/@bob", ""),
        ("https://matrix.to/#/@bob:x%0a%01evil", ""),
        ("https://matrix.to/#/@", ""),
    ],
)
def test_links_to_people(uri, user_id):
    assert user_id_of_link(uri) == user_id
