"""Any JSON that has a canonical form, as hypothesis strategies."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

MOST = 2**53 - 1
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-MOST, MOST), st.sampled_from([MOST, -MOST, 0]), texts
)
json_values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(texts, json_values, max_size=5)
