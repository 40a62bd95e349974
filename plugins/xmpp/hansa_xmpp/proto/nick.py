"""Nicks: a display name as a MUC resource (resourceprep over Unicode 3.2).

Servers and clients refuse a whole stanza for one emoji in a resource, so what cannot stand there is left out;
the full name still goes along as XEP-0172 nick.

SPEC: RFC 6122 section 2.4 and appendix B; XEP-0172 section 4.3.
"""

from __future__ import annotations

import hashlib
import stringprep
import unicodedata
from collections.abc import Callable

from hansa import NativeId, truncate_utf8
from slixmpp.jid import JID, InvalidJID

#: Far below the 1023 bytes of a resource, so that a suffix always fits (bytes).
MAX_NICK = 200

_FORBIDDEN: tuple[Callable[[str], bool], ...] = (
    stringprep.in_table_a1,
    stringprep.in_table_b1,
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def is_valid(nick: str) -> bool:
    """True if ``nick`` is a resource that resourceprep leaves as it is."""
    try:
        return bool(nick) and JID(f"a@b.example/{nick}").resource == nick
    except InvalidJID:
        return False


def sanitised(name: str) -> str:
    """``name`` as a nick; empty if nothing of it can stand there."""
    if name.isascii() and name.isprintable() and len(name) <= MAX_NICK:
        return " ".join(name.split())
    text = unicodedata.normalize("NFKC", name[: MAX_NICK * 4])
    text = "".join(c for c in text if not any(table(c) for table in _FORBIDDEN))
    text = _bound_nick(" ".join(text.split()))
    if is_valid(text):
        return text
    return max((n for n in (_right_to_left(text), _left_to_right(text)) if is_valid(n)), key=len, default="")


def _bound_nick(text: str) -> str:
    return truncate_utf8(text, MAX_NICK).rstrip("…").strip() if len(text.encode()) > MAX_NICK else text


def _right_to_left(text: str) -> str:
    """Bidi rules 2 and 3 of RFC 3454 section 6, met by leaving out what is written left to right."""
    kept = [c for c in text if not stringprep.in_table_d2(c)]
    while kept and not stringprep.in_table_d1(kept[0]):
        kept.pop(0)
    while kept and not stringprep.in_table_d1(kept[-1]):
        kept.pop()
    return " ".join("".join(kept).split())


def _left_to_right(text: str) -> str:
    return " ".join("".join(c for c in text if not stringprep.in_table_d1(c)).split())


def local_name(user: NativeId) -> str:
    """The readable first part of a user id: ``alice`` of ``@alice:example.org`` and ``alice@example.org``."""
    return user.id.removeprefix("@").partition(":")[0].partition("@")[0]


def nick_for(user: NativeId, name: str | None, taken: Callable[[str], bool]) -> str:
    """The nick of a person who cannot choose it here: the name, else the id's first part; with a suffix made
    of the id where that is taken. The same people in the same room give the same nicks.
    """
    base = sanitised(name or "") or sanitised(local_name(user))
    for candidate in (base, f"{base} ({local_name(user)})", f"{base} ({user.id.removeprefix('@')})"):
        nick = sanitised(candidate)
        if nick and not taken(nick):
            return nick
    digest = hashlib.sha256(str(user).encode(errors="surrogatepass")).hexdigest()
    return next(n for n in (f"user-{digest[:k]}" for k in range(8, 64)) if not taken(n))
