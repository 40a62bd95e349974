"""URLs of others, taken apart strictly: what is not plainly an http or https address is not fetched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urljoin, urlsplit

#: Characters of the longest URL that is fetched.
MAX_URL = 4096
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,252}[a-z0-9])?|[0-9a-f:]{2,45}", re.ASCII)
_FORBIDDEN = frozenset('\\"<>^`{|}')


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAddress:
    """An http or https URL. ``target`` is path and query as they are sent; ``netloc`` is the host as the URL
    has it, with the port if it names one.
    """

    is_secure: bool
    host: str
    port: int
    netloc: str
    target: str

    def __str__(self) -> str:
        return f"{'https' if self.is_secure else 'http'}://{self.netloc}{self.target}"

    @property
    def file_name(self) -> str:
        """The last part of the path."""
        return unquote(self.target.partition("?")[0].rpartition("/")[2], errors="replace")


def parse_web_address(text: str) -> WebAddress | None:
    """A URL without user, on the ports 80, 443 or above 1023; None for any other text."""
    if len(text) > MAX_URL or not text.isascii() or not text.isprintable() or " " in text:
        return None
    if _FORBIDDEN & set(text):
        return None
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or "@" in parts.netloc or not _HOST.fullmatch(host):
        return None
    secure = parts.scheme == "https"
    port = (443 if secure else 80) if port is None else port
    if port not in {80, 443} and port < 1024:
        return None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return WebAddress(is_secure=secure, host=host, port=port, netloc=parts.netloc.lower(), target=target)


def resolve_redirect(address: WebAddress, location: str) -> WebAddress | None:
    """The address that a ``Location`` header names, None where it may not be followed: from https to http, or
    to what is not an address.
    """
    if len(location) > MAX_URL:
        return None
    try:
        target = parse_web_address(urljoin(str(address), location))
    except ValueError:
        return None
    if target is None or (address.is_secure and not target.is_secure):
        return None
    return target
