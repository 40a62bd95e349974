"""Stanzas to be sent, as text that is made once and differs per receiver only in its ``to``.

SPEC: XML 1.0 section 2.2 (characters), section 2.4 (what is escaped); RFC 6120 section 8.1 (attributes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
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

    @property
    def is_iq_answer(self) -> bool:
        """True for a ``result`` or ``error`` of an IQ, which is asked for again if it is lost."""
        head = self.head
        return head.startswith("<iq ") and (" type='result'" in head or " type='error'" in head)

    @property
    def size(self) -> int:
        """Bytes of the stanza without a receiver."""
        return len(self.head.encode()) + len(self.tail.encode())

    def readdressed(self, to: Iterable[str], child: str = "") -> OutboundStanza:
        """The same stanza for others, with one more child at its end."""
        kind = self.head[1:].partition(" ")[0]
        inner = "" if self.tail == "'/>" else self.tail.removeprefix("'>").removesuffix(f"</{kind}>")
        return replace(self, to=tuple(to), tail=_tail_of(kind, inner + child))

    def embedded(self, xmlns: str, child: str = "") -> str:
        """The stanza as an element of the namespace ``xmlns`` without a receiver, as it is forwarded
        (XEP-0297), with one more child.
        """
        kind = self.head[1:].partition(" ")[0]
        start = self.head.removesuffix(" to='").replace(f"<{kind}", f"<{kind} xmlns='{xmlns}'", 1)
        return start + self.readdressed((), child).tail.removeprefix("'")


def stanza(
    kind: str, sender: str, to: Iterable[str], inner: str = "", *, type_: str = "", id_: str = ""
) -> OutboundStanza:
    """A ``message``, ``presence`` or ``iq`` of the stream's own namespace. ``inner`` is XML already."""
    head = f"<{kind} from='{xml_attribute(sender)}'"
    if type_:
        head += f" type='{type_}'"
    if id_:
        head += f" id='{xml_attribute(id_)}'"
    return OutboundStanza(sender, tuple(to), head + " to='", _tail_of(kind, inner))


def _tail_of(kind: str, inner: str) -> str:
    return f"'>{inner}</{kind}>" if inner else "'/>"


#: Stanzas that are made in one go.
_TOGETHER = 50


def batches(stanzas: Iterable[OutboundStanza]) -> Iterator[list[OutboundStanza]]:
    """Stanzas that are made as they are taken, some at a time."""
    each = iter(stanzas)
    while some := list(islice(each, _TOGETHER)):
        yield some
