"""The files that a content names."""

from __future__ import annotations

from hansa.model.content import Avatar, Content, Member, attachments_of
from hansa.model.ref import NativeId


def sources_of(content: Content) -> frozenset[NativeId]:
    """Every file that a content names: attachments, their thumbnails, pictures of people and rooms."""
    named: tuple[NativeId | None, ...]
    match content:
        case Avatar():
            named = (content.source,)
        case Member():
            named = (content.avatar,)
        case _:
            named = tuple(name for one in attachments_of(content) for name in (one.source, one.thumbnail))
    return frozenset(source for source in named if source is not None)
