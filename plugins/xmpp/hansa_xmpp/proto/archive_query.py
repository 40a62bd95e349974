"""Queries of a room's archive.

SPEC: XEP-0313 section 4 (filters, paging) and section 5 (metadata); XEP-0059 section 2 (pages); XEP-0004
section 3 (forms).
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element

from hansa_xmpp.proto import errors
from hansa_xmpp.proto.convert import parse_timestamp
from hansa_xmpp.proto.errors import Condition
from hansa_xmpp.proto.stanza import MAX_ID, NS_DATA_FORM, NS_MAM, NS_RSM, Stanza, local_name

#: Messages of a page for who does not say how many, and of any page.
DEFAULT_PAGE, MAX_PAGE = 50, 100
#: The longest JID of a filter, in characters.
_MAX_JID = 3071
_QUERY, _METADATA = f"{{{NS_MAM}}}query", f"{{{NS_MAM}}}metadata"
_FIELDS = frozenset({"FORM_TYPE", "with", "start", "end", "before-id", "after-id", "ids"})


class ArchiveRefused(Exception):
    """The query is answered with an error."""

    def __init__(self, condition: Condition, text: str) -> None:
        super().__init__(text)
        self.condition = condition
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveQuery:
    """A page of an archive. ``start`` and ``end`` are times in ms, both inclusive. ``after`` and ``before``
    are ids between which the messages are. ``ids`` is None where any message matches. ``from_end``: the last
    ``limit`` messages that match, else the first. ``flipped``: the newest is sent first.
    """

    query_id: str = ""
    sender: str = ""
    start: int | None = None
    end: int | None = None
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    ids: tuple[str, ...] | None = None
    limit: int = DEFAULT_PAGE
    from_end: bool = False
    flipped: bool = False


def is_archive_request(stanza: Stanza) -> bool:
    """True for an IQ that asks something of an archive."""
    if stanza.kind != "iq" or stanza.type not in {"get", "set"} or len(stanza.element) != 1:
        return False
    return stanza.element[0].tag in {_QUERY, _METADATA}


def is_metadata_request(asked: Element) -> bool:
    """True for a request of the archive's first and last message."""
    return asked.tag == _METADATA


def parse_archive_query(asked: Element) -> ArchiveQuery:
    """The query in an IQ of type ``set``. Raises ``ArchiveRefused``."""
    if asked.tag != _QUERY:
        raise ArchiveRefused(errors.BAD_REQUEST, "an archive is only asked for its metadata")
    if asked.get("node"):
        raise ArchiveRefused(errors.NOT_FOUND, "the archive of a room has no nodes")
    fields = _parse_form(_only_child(asked, f"{{{NS_DATA_FORM}}}x"))
    page = _only_child(asked, f"{{{NS_RSM}}}set")
    after, before = _page_ids(page, "after"), _page_ids(page, "before")
    return ArchiveQuery(
        query_id=_require_id(asked.get("queryid", "")),
        sender=_jid_of(fields),
        start=_time_of(fields, "start"),
        end=_time_of(fields, "end"),
        after=tuple(filter(None, (*map(_require_id, fields.get("after-id", ())), *after))),
        before=tuple(filter(None, (*map(_require_id, fields.get("before-id", ())), *before))),
        ids=_ids_of(fields),
        limit=_limit_of(page),
        from_end=bool(before) and not after,
        flipped=asked.find(f"{{{NS_MAM}}}flip-page") is not None,
    )


def _only_child(asked: Element, tag: str) -> Element | None:
    found = asked.findall(tag)
    if len(found) > 1:
        raise ArchiveRefused(errors.BAD_REQUEST, f"a query has one {local_name(tag)}")
    return found[0] if found else None


def _parse_form(form: Element | None) -> dict[str, tuple[str, ...]]:
    """The values of the fields by name; each has one, but ``ids``."""
    if form is None:
        return {}
    if form.get("type") != "submit":
        raise ArchiveRefused(errors.BAD_REQUEST, "the form is not of the type submit")
    fields = dict[str, tuple[str, ...]]()
    for field in form.iterfind(f"{{{NS_DATA_FORM}}}field"):
        name = field.get("var", "")
        if name not in _FIELDS:
            raise ArchiveRefused(errors.NOT_IMPLEMENTED, "the form has a field that this archive has not")
        values = tuple(value.text or "" for value in field.iterfind(f"{{{NS_DATA_FORM}}}value"))
        if name in fields or not values or not all(values) or (name != "ids" and len(values) > 1):
            raise ArchiveRefused(errors.BAD_REQUEST, f"the field {name} does not have one value")
        fields[name] = values
    if fields.get("FORM_TYPE") != (NS_MAM,):
        raise ArchiveRefused(errors.BAD_REQUEST, f"the form is not of {NS_MAM}")
    return fields


def _require_id(text: str) -> str:
    if len(text.encode(errors="surrogatepass")) > MAX_ID:
        raise ArchiveRefused(errors.BAD_REQUEST, f"an id has over {MAX_ID} bytes")
    return text


def _ids_of(fields: dict[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    ids = fields.get("ids")
    if ids is None:
        return None
    if len(ids) > MAX_PAGE:
        raise ArchiveRefused(errors.POLICY_VIOLATION, f"a query names at most {MAX_PAGE} messages")
    return tuple(dict.fromkeys(map(_require_id, ids)))


def _time_of(fields: dict[str, tuple[str, ...]], name: str) -> int | None:
    if name not in fields:
        return None
    found = parse_timestamp(fields[name][0])
    if found is None:
        raise ArchiveRefused(errors.BAD_REQUEST, f"the field {name} is not a time of XEP-0082")
    return found


def _jid_of(fields: dict[str, tuple[str, ...]]) -> str:
    sender = fields.get("with", ("",))[0]
    if len(sender) > _MAX_JID:
        raise ArchiveRefused(errors.BAD_REQUEST, "the field with is not a JID")
    return sender


def _page_ids(page: Element | None, name: str) -> tuple[str, ...]:
    """The id of an element of the page; an empty one stands for the end of the archive."""
    found = None if page is None else page.find(f"{{{NS_RSM}}}{name}")
    return () if found is None else (_require_id(found.text or ""),)


def _limit_of(page: Element | None) -> int:
    if page is None:
        return DEFAULT_PAGE
    if page.find(f"{{{NS_RSM}}}index") is not None:
        raise ArchiveRefused(errors.NOT_IMPLEMENTED, "messages are not numbered: name one by its id")
    text = page.findtext(f"{{{NS_RSM}}}max")
    if text is None:
        return DEFAULT_PAGE
    if not (text.isascii() and text.isdigit()):
        raise ArchiveRefused(errors.BAD_REQUEST, "the maximum of a page is a number")
    return min(int(text[:10]), MAX_PAGE)
