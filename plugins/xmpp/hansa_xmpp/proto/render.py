"""Stanzas to be sent, as text that is made once and differs per receiver only in its ``to``.

SPEC: XML 1.0 section 2.2 (characters), section 2.4 (what is escaped); RFC 6120 section 8.1 (attributes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

#: The characters that XML 1.0 (production 2, Char) does not allow, as a character class.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TEXT = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord("\r"): "&#13;"}
_ATTRIBUTE = _TEXT | {ord("'"): "&apos;", ord("\n"): "&#10;", ord("\t"): "&#9;"}


def xml_text(value: str) -> str:
    """Returns character data. A character that XML cannot hold becomes U+FFFD: one of them would end the
    stream.
    """
    return _NOT_XML.sub("\ufffd", value).translate(_TEXT)


def xml_attribute(value: str) -> str:
    """The inside of an attribute in single quotes."""
    return _NOT_XML.sub("\ufffd", value).translate(_ATTRIBUTE)


def xml_element(name: str, xmlns: str = "", inner: str = "", /, **attributes: str) -> str:
    """One element. ``inner`` is XML already; attributes with an empty value are left out."""
    parts = [name]
    if xmlns:
        parts.append(f"xmlns='{xml_attribute(xmlns)}'")
    parts += [f"{key}='{xml_attribute(value)}'" for key, value in attributes.items() if value]
    start = " ".join(parts)
    return f"<{start}>{inner}</{name}>" if inner else f"<{start}/>"


@dataclass(frozen=True, slots=True)
class OutboundStanza:
    """One stanza for one receiver or many. ``sender`` is checked by the transport against our domain."""

    sender: str
    to: tuple[str, ...]
    head: str
    tail: str

    def texts(self) -> Iterable[str]:
        """The stanza for each receiver."""
        return (f"{self.head}{xml_attribute(to)}{self.tail}" for to in self.to)


def stanza(
    kind: str, sender: str, to: Iterable[str], inner: str = "", *, type_: str = "", id_: str = ""
) -> OutboundStanza:
    """A ``message``, ``presence`` or ``iq`` of the stream's own namespace. ``inner`` is XML already."""
    head = f"<{kind} from='{xml_attribute(sender)}'"
    if type_:
        head += f" type='{type_}'"
    if id_:
        head += f" id='{xml_attribute(id_)}'"
    tail = f"'>{inner}</{kind}>" if inner else "'/>"
    return OutboundStanza(sender, tuple(to), head + " to='", tail)


#: Stanzas that are made in one go.
_TOGETHER = 50


def batches(stanzas: Iterable[OutboundStanza]) -> Iterator[list[OutboundStanza]]:
    """Stanzas that are made as they are taken, some at a time."""
    each = iter(stanzas)
    while some := list(islice(each, _TOGETHER)):
        yield some
