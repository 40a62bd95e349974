"""Files in messages: what a message names, and how one is named.

SPEC: XEP-0447 section 2 (file sharing), XEP-0446 section 3 (metadata), XEP-0066 section 3 (URLs out of band);
XEP-0300 section 3 (hashes).
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
from itertools import islice
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element

from hansa import Attachment, NativeId, truncate_utf8

from hansa_xmpp.proto.render import xml_element, xml_text
from hansa_xmpp.proto.stanza import NS_FALLBACK, Stanza

NS_FILES = "urn:xmpp:sfs:0"
NS_OOB = "jabber:x:oob"
_NS_METADATA = "urn:xmpp:file:metadata:0"
_NS_URL_DATA = "http://jabber.org/protocol/url-data"
_NS_HASHES = "urn:xmpp:hashes:2"
#: The files of one message, and the bytes of a URL and of a file's name.
MAX_FILES, _MAX_URL, _MAX_NAME = 10, 2048, 255
_MAX_TYPE, _MAX_DIGITS = 127, 15


def parse_files(stanza: Stanza, network: str) -> tuple[Attachment, ...]:
    """The files that a message shares, without those that no http or https URL leads to."""
    shared = islice(stanza.element.iterfind(f"{{{NS_FILES}}}file-sharing"), MAX_FILES)
    found = [file for element in shared if (file := _parse_shared(element, network)) is not None]
    url = _oob_url(stanza)
    if not found and url and (stanza.text_of("body") or url).strip() == url:  # else it is a link in a text
        found.append(_from_url(url, network))
    return tuple(found)


def is_only_link(stanza: Stanza, body: str) -> bool:
    """True if the body of a message that shares files is there for clients that do not know files."""
    if body.strip() == _oob_url(stanza):
        return True
    return any(
        fallback.get("for") == NS_FILES and not any(part.attrib for part in fallback)
        for fallback in stanza.element.iterfind(f"{{{NS_FALLBACK}}}fallback")
    )


def file_xml(file: Attachment, url: str) -> str:
    """Shares one file that can be read at ``url``."""
    parts = [("media-type", file.media_type), ("name", file.name)]
    numbers = [("size", file.size), ("width", file.width), ("height", file.height), ("length", file.duration)]
    parts += [(name, str(number)) for name, number in numbers if number]
    inner = "".join(xml_element(name, "", xml_text(value)) for name, value in parts if value)
    if file.sha256:
        digest = base64.b64encode(bytes.fromhex(file.sha256)).decode()
        inner += xml_element("hash", _NS_HASHES, digest, algo="sha-256")
    sources = xml_element("sources", "", xml_element("url-data", _NS_URL_DATA, target=url))
    shared = xml_element("file", _NS_METADATA, inner) + sources
    return xml_element("file-sharing", NS_FILES, shared, disposition="inline")


def oob_xml(url: str) -> str:
    """The URL for clients that know XEP-0066 alone."""
    return xml_element("x", NS_OOB, xml_element("url", "", xml_text(url)))


def _parse_shared(element: Element, network: str) -> Attachment | None:
    file = element.find(f"{{{_NS_METADATA}}}file")
    targets = (e.get("target", "") for e in element.iter(f"{{{_NS_URL_DATA}}}url-data"))
    url = next((target for target in islice(targets, MAX_FILES) if _is_web(target)), "")
    if file is None or not url:
        return None

    def text(name: str) -> str:
        return (file.findtext(f"{{{_NS_METADATA}}}{name}") or "").strip()

    def number(name: str) -> int:
        digits = text(name)
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS else 0

    named = _from_url(url, network)
    return Attachment(
        name=_clean_name(text("name")) or named.name,
        media_type=_media_type(text("media-type")) or named.media_type,
        size=number("size"),
        width=number("width"),
        height=number("height"),
        duration=number("length"),
        source=named.source,
        sha256=_sha256(file),
    )


def _from_url(url: str, network: str) -> Attachment:
    name = _clean_name(unquote(urlsplit(url).path).rpartition("/")[2])
    guessed = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Attachment(name=name, media_type=guessed, source=NativeId(network, url))


def _oob_url(stanza: Stanza) -> str:
    x = stanza.child("x", NS_OOB)
    url = "" if x is None else (x.findtext(f"{{{NS_OOB}}}url") or "").strip()
    return url if _is_web(url) else ""


def _is_web(url: str) -> bool:
    if len(url.encode()) > _MAX_URL or not url.startswith(("https://", "http://")):
        return False
    try:
        return bool(urlsplit(url).hostname) and url.isprintable() and " " not in url
    except ValueError:
        return False


def _clean_name(name: str) -> str:
    return truncate_utf8("".join(c for c in name if c.isprintable() and c not in "/\\"), _MAX_NAME)


def _media_type(text: str) -> str:
    kind, _, sub = text.partition("/")
    plain = all(c.isalnum() or c in "!#$&-^_.+" for c in kind + sub)
    return text.lower() if kind and sub and plain and text.isascii() and len(text) <= _MAX_TYPE else ""


def _sha256(file: Element) -> str:
    for found in file.iterfind(f"{{{_NS_HASHES}}}hash"):
        if found.get("algo") == "sha-256" and len(text := (found.text or "").strip()) == 44:  # base64 of 32
            try:
                return base64.b64decode(text, validate=True).hex()
            except (binascii.Error, ValueError):
                return ""
    return ""
