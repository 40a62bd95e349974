"""Any query of an archive is a bounded value or is refused, whatever it holds."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

import pytest
from hansa_xmpp.proto.archive_query import MAX_PAGE, ArchiveQuery, ArchiveRefused, parse_archive_query
from hansa_xmpp.proto.stanza import MAX_ID, NS_DATA_FORM, NS_MAM, NS_RSM
from hypothesis import given
from hypothesis import strategies as st

_WORDS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", NS_MAM, "0", "-1", "9" * 5000, "²", "2020-01-01T00:00:00Z", "x" * 5000, "\ud800"]),
    st.sampled_from(["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "a@b/c", "e1", "e1.2"]),
)
_NAMES = st.sampled_from(
    ["FORM_TYPE", "with", "start", "end", "before-id", "after-id", "ids", "include-groupchat", ""]
)
_FIELDS = st.lists(st.tuples(_NAMES, st.lists(_WORDS, max_size=3)), max_size=6)
_PAGES = st.lists(st.tuples(st.sampled_from(["max", "after", "before", "index", "x"]), _WORDS), max_size=4)


def parsed(asked: Element) -> ArchiveQuery | None:
    try:
        return parse_archive_query(asked)
    except ArchiveRefused as refused:
        reason = refused
    assert (reason.condition.name, reason.text) > ("a", "")
    return None


@given(_WORDS, st.sampled_from(["", "n"]), st.lists(_FIELDS, max_size=2), st.lists(_PAGES, max_size=2))
def test_a_query_of_any_shape(
    query_id: str, node: str, forms: list[list[tuple[str, list[str]]]], pages: list[list[tuple[str, str]]]
) -> None:
    asked = Element(f"{{{NS_MAM}}}query", {"queryid": query_id} | ({"node": node} if node else {}))
    for fields in forms:
        form = SubElement(asked, f"{{{NS_DATA_FORM}}}x", {"type": "submit"})
        for name, values in [("FORM_TYPE", [NS_MAM]), *fields]:
            field = SubElement(form, f"{{{NS_DATA_FORM}}}field", {"var": name})
            for value in values:
                SubElement(field, f"{{{NS_DATA_FORM}}}value").text = value
    for page in pages:
        one = SubElement(asked, f"{{{NS_RSM}}}set")
        for name, value in page:
            SubElement(one, f"{{{NS_RSM}}}{name}").text = value
    found = parsed(asked)
    if found is None:
        return
    assert 0 <= found.limit <= MAX_PAGE
    assert len(found.ids or ()) <= MAX_PAGE
    named = [found.query_id, *found.after, *found.before, *(found.ids or ())]
    assert all(len(name.encode(errors="surrogatepass")) <= MAX_ID for name in named)
    assert all(when is None or 0 <= when < 253_402_400_000_000 for when in (found.start, found.end))


@pytest.mark.parametrize(
    "seconds", ["2020-01-01T00:00:00Z", "2020-01-01T02:00:00+02:00", "2020-01-01T00:00:00.0Z"]
)
def test_times_are_those_of_xep_0082(seconds: str) -> None:
    asked = Element(f"{{{NS_MAM}}}query")
    form = SubElement(asked, f"{{{NS_DATA_FORM}}}x", {"type": "submit"})
    for name, value in (("FORM_TYPE", NS_MAM), ("start", seconds)):
        field = SubElement(form, f"{{{NS_DATA_FORM}}}field", {"var": name})
        SubElement(field, f"{{{NS_DATA_FORM}}}value").text = value
    found = parsed(asked)
    assert found is not None
    assert found.start == 1_577_836_800_000
