"""Allow and deny lists of globs.

One server has many spellings (case, a port, a trailing dot, an IDN in either form, an address written in any
way), and so has a user. A list that denies covers a name in any of its spellings. A list that allows covers
it only in its canonical one, so that no spelling gets past either.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from hansa_governance.folding import prepared
from hansa_governance.patterns import WILD, Patterns

#: A longer name than this is covered by everything that denies and by nothing that allows.
MAX_NAME = 1024
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{0,10}|[0-9]{1,12}", re.ASCII)
_PARTS = 4
#: Answers that a list remembers.
_ANSWERS = 4096

#: The canonical spellings of a name, and all others.
Spellings = tuple[tuple[str, ...], tuple[str, ...]]
Forms = Callable[[str], Spellings]


def host_of(server: str) -> str:
    """A server name in its canonical form: without what is not seen, lower case, without port, trailing dot
    and zone; IDN labels decoded, addresses compressed, an IPv4 address within an IPv6 one as itself.
    """
    return _split_port(server)[0]


def _split_port(server: str) -> tuple[str, str]:
    """Host and port; the port is empty where there is none."""
    name, port = prepared(server).replace("\u3002", "."), ""
    if name.startswith("["):
        name, _, rest = name.removeprefix("[").partition("]")
        port = rest.removeprefix(":")
    else:
        host, colon, last = name.rpartition(":")
        if colon and last.isdigit() and ":" not in host:
            name, port = host, last
    name = name.rstrip(".")
    return _parse_address(name) or ".".join(_decode_label(label) for label in name.split(".")), port


def _parse_address(name: str) -> str:
    try:
        found = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return _odd_address(name)
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        low = int(found)
        if inner is None and (low >> 32 == 0x64FF9B << 64 or (low >> 32 == 0 and low > 1)):
            inner = ipaddress.IPv4Address(low & 0xFFFFFFFF)
        found = inner or found
    return found.compressed


def _odd_address(name: str) -> str:
    """An IPv4 address as C libraries read it: one to four numbers, each in base 8, 10 or 16."""
    parts = name.split(".")
    if len(parts) > _PARTS or not all(_NUMBER.fullmatch(part) for part in parts):
        return ""
    try:
        numbers = [_parse_number(part) for part in parts]
    except ValueError:
        return ""
    *first, last = numbers
    if any(number > 255 for number in first) or last >= 256 ** (_PARTS + 1 - len(parts)):
        return ""
    whole = last
    for at, number in enumerate(first):
        whole += number << (8 * (_PARTS - 1 - at))
    return ipaddress.IPv4Address(whole).compressed


def _parse_number(part: str) -> int:
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    return int(part, 8) if part.startswith("0") and len(part) > 1 else int(part)


def _decode_label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return prepared(label.encode().decode("idna"))
    except UnicodeError:
        return label


def server_forms(server: str) -> Spellings:
    """The spellings of a server's name: its host, with its port where it has one; then as it is written."""
    host, port = _split_port(server)
    canonical = (host, f"{host}:{port}") if port else (host,)
    return canonical, (prepared(server), server.lower())


def user_forms(user: str) -> Spellings:
    """The spellings of a user's id: the server in a Matrix id or a JID is spelled as servers are."""
    seen = prepared(user)
    at = ":" if seen.startswith("@") and ":" in seen else "@"
    local, mark, rest = seen.partition(at)
    if not mark:
        return (seen,), (user.lower(),)
    server, slash, resource = rest.partition("/")
    canonical = tuple(f"{local}{at}{form}{slash}{resource}" for form in server_forms(server)[0])
    return canonical, (seen, user.lower())


def _glob_form(glob: str, forms: Forms) -> str:
    """A glob in the form of what it is matched against: a plain name as any other, a pattern by labels."""
    if not set(glob) & WILD:
        return forms(glob)[0][-1]
    if glob.startswith("[") and glob.endswith("]"):
        return prepared(glob).strip("[]")
    return ".".join(_decode_label(label) for label in prepared(glob).split("."))


class Globs:
    """A list of globs. The time for a name does not grow with the list."""

    def __init__(self, globs: Iterable[str], forms: Forms) -> None:
        self._forms = forms
        named = [_glob_form(glob, forms) for glob in globs]
        self._plain = {g for g in named if not set(g) & WILD}
        self._wild = Patterns(g for g in named if set(g) & WILD)
        # The same servers are asked about for every event of a room.
        self._denied = lru_cache(_ANSWERS)(self._denies)
        self._allowed = lru_cache(_ANSWERS)(self._allows)

    def __bool__(self) -> bool:
        return bool(self._plain or self._wild)

    def matching_glob(self, name: str) -> str:
        """The first glob that covers a spelling of the name, empty if none does."""
        if not self:
            return ""
        if len(name) > MAX_NAME:
            return f"(longer than {MAX_NAME} characters)"
        return self._denied(name)

    def _denies(self, name: str) -> str:
        canonical, others = self._forms(name)
        each = dict.fromkeys((*canonical, *others))
        return next((hit for form in each if (hit := self._is_covered(form))), "")

    def covers(self, name: str) -> bool:
        """True if a glob covers the canonical spelling. A name that is not known is not covered."""
        return 0 < len(name) <= MAX_NAME and self._allowed(name)

    def _allows(self, name: str) -> bool:
        return any(self._is_covered(form) for form in self._forms(name)[0])

    def _is_covered(self, form: str) -> str:
        if form in self._plain:
            return form
        return self._wild.first(form)
