"""The stream's parser: expat with bounds, in the shape that slixmpp asks for (``feed``, ``read_events``).

* Comments, processing instructions, a DOCTYPE and entity declarations end the stream (RFC 6120 section 11.1,
  ``restricted-xml``): the host server never forwards one, so who sends it is not a host server.
* A stanza that is too large, too deep or has too many elements is a person's fault and must not take the link
  down for everybody: it is read to its end without being kept and handed out as ``OversizedStanza``.

SPEC: RFC 6120 section 4.9.3.18 (restricted-xml), section 11.1 (what XML may not hold).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn
from xml.etree.ElementTree import Element
from xml.parsers import expat

from hansa import RemoteProtocolError

#: The attributes that are kept of a root with too many: they address the stanza.
_ADDRESSING = ("from", "to", "id", "type")


@dataclass(frozen=True, slots=True, kw_only=True)
class StanzaLimits:
    """``stanza`` and ``token`` (one tag with its attributes) in bytes; the others are counted per stanza."""

    stanza: int = 256 * 1024
    token: int = 1024 * 1024
    depth: int = 24
    elements: int = 1000
    attributes: int = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class OversizedStanza:
    """A stanza over the bounds: its root without children, and which bound it broke."""

    element: Element
    reason: str


class BoundedParser:
    """Feed it the bytes of one stream. ``on_excess`` is told of stanzas over the bounds."""

    def __init__(self, bounds: StanzaLimits, on_excess: Callable[[OversizedStanza], None]) -> None:
        self._bounds = bounds
        self._on_excess = on_excess
        self._events: list[tuple[str, Element]] = []
        self._stack: list[Element] = []
        self._words: list[str] = []
        self._depth = self._elements = self._attributes = self._began = self._fed = self._seen = 0
        self._reason = ""
        self._expat = parser = expat.ParserCreate("UTF-8", "}")
        if hasattr(parser, "SetReparseDeferralEnabled"):  # else a whole stanza may wait for the next one
            parser.SetReparseDeferralEnabled(False)
        parser.buffer_text = True
        parser.buffer_size = 65_536
        parser.StartElementHandler = self._start_element
        parser.EndElementHandler = self._end_element
        parser.CharacterDataHandler = self._add_text
        parser.StartDoctypeDeclHandler = self._refuse_restricted
        parser.EntityDeclHandler = self._refuse_restricted
        parser.ProcessingInstructionHandler = self._refuse_restricted
        parser.CommentHandler = self._refuse_restricted

    def feed(self, data: bytes) -> None:
        """Raises RemoteProtocolError, its ``code`` the condition of the stream error to answer with."""
        self._fed += len(data)
        try:
            self._expat.Parse(data, False)
        except expat.ExpatError as error:
            raise RemoteProtocolError(str(error), code="not-well-formed") from None
        if self.unfinished > self._bounds.token:
            raise RemoteProtocolError("one tag is too large", code="policy-violation")

    def set_bounds(self, bounds: StanzaLimits) -> None:
        """Other bounds, from now on."""
        self._bounds = bounds

    @property
    def unfinished(self) -> int:
        """Bytes since the last tag or text that has ended."""
        return self._fed - self._seen

    def read_events(self) -> Iterator[tuple[str, Element]]:
        """Yields the parts completed since the last call: the stream's root as it opens and closes, and whole
        stanzas.
        """
        events, self._events = self._events, []
        return iter(events)

    def close(self) -> None:
        """The stream ended: let go of what was read of it, which can be ``token`` bytes, at once."""
        self._stack, self._events, self._words = [], [], []
        self._expat = expat.ParserCreate("UTF-8", "}")

    def _refuse_restricted(self, *_: object) -> NoReturn:
        raise RemoteProtocolError("DOCTYPE, comment or processing instruction", code="restricted-xml")

    def _start_element(self, name: str, attributes: dict[str, str]) -> None:
        self._join_text()
        self._depth += 1
        self._seen = self._expat.CurrentByteIndex
        if self._depth == 1:
            self._events.append(("start", _make_element(name, attributes)))
            return
        if self._depth == 2:
            self._began, self._elements, self._reason = self._seen, 0, ""
            self._attributes = len(attributes)
            if self._attributes > self._bounds.attributes:
                attributes = {key: attributes[key] for key in _ADDRESSING if key in attributes}
            self._stack = [_make_element(name, attributes)]
            return
        self._elements += 1
        self._attributes += len(attributes)
        self._check_bounds()
        if not self._reason:
            element = _make_element(name, attributes)
            self._stack[-1].append(element)
            self._stack.append(element)

    def _add_text(self, data: str) -> None:
        self._seen = self._expat.CurrentByteIndex
        if self._depth < 2:
            return
        self._check_bounds()
        if self._reason:
            return
        self._words.append(data)

    def _join_text(self) -> None:
        """Text that came in pieces belongs behind the last tag, joined once."""
        data, self._words = "".join(self._words), []
        if not data or self._reason or not self._stack:
            return
        element = self._stack[-1]
        if len(element):
            element[-1].tail = (element[-1].tail or "") + data
        else:
            element.text = (element.text or "") + data

    def _end_element(self, name: str) -> None:
        self._join_text()
        self._depth -= 1
        self._seen = self._expat.CurrentByteIndex
        if self._depth == 0:
            self._events.append(("end", _make_element(name, {})))
        elif self._depth == 1:
            self._check_bounds()
            self._complete_stanza()
        elif not self._reason:
            self._stack.pop()

    def _complete_stanza(self) -> None:
        element, self._stack = self._stack[0], []
        if self._reason:
            self._on_excess(OversizedStanza(element=element, reason=self._reason))
        else:
            self._events += [("start", element), ("end", element)]

    def _check_bounds(self) -> None:
        """Notice a broken bound, and let go of what was read so far."""
        if self._reason:
            return
        if self._seen - self._began > self._bounds.stanza:
            self._reason = f"the stanza has over {self._bounds.stanza} bytes"
        elif self._depth - 1 > self._bounds.depth:
            self._reason = f"the stanza is nested over {self._bounds.depth} deep"
        elif self._elements > self._bounds.elements:
            self._reason = f"the stanza has over {self._bounds.elements} elements"
        elif self._attributes > self._bounds.attributes:
            self._reason = f"the stanza has over {self._bounds.attributes} attributes"
        if self._reason:
            root, self._words = self._stack[0], []
            self._stack = [Element(root.tag, root.attrib)]


def _make_element(name: str, attributes: dict[str, str]) -> Element:
    return Element(_qualified_name(name), {_qualified_name(key): value for key, value in attributes.items()})


def _qualified_name(name: str) -> str:
    return "{" + name if "}" in name else name
