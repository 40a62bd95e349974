"""What a server says of itself in the numeric reply 005 (``ISUPPORT``), and the names that follow from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from string import ascii_lowercase, ascii_uppercase

_FOLD = {
    "ascii": str.maketrans(ascii_uppercase, ascii_lowercase),
    "rfc1459": str.maketrans(ascii_uppercase + "[]\\^", ascii_lowercase + "{}|~"),
    "rfc1459-strict": str.maketrans(ascii_uppercase + "[]\\", ascii_lowercase + "{}|"),
}
_NOT_IN_NICKS = re.compile(r"[^A-Za-z0-9\[\]\\`_^{|}-]+")
#: The longest value that is believed of ``NICKLEN``.
_MAX_NICK = 64
#: Nicks that are tried where one is in use.
MAX_NICKS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFeatures:
    """The values of one server. ``prefixes`` maps the sign before a nick to its mode (``@`` to ``o``);
    ``list_modes`` (``b``), ``always`` and ``when_set`` are the channel modes that have a parameter.
    """

    casemapping: str = "rfc1459"
    nick_length: int = 9
    channel_types: str = "#&"
    prefixes: tuple[tuple[str, str], ...] = (("@", "o"), ("+", "v"))
    list_modes: str = "b"
    always: str = "k"
    when_set: str = "l"

    def fold(self, name: str) -> str:
        """The one form of a nick or a channel under which it is compared."""
        return name.translate(_FOLD.get(self.casemapping, _FOLD["rfc1459"]))

    def is_channel(self, name: str) -> bool:
        """True if this is the name of a channel."""
        return len(name) > 1 and name[0] in self.channel_types and not re.search(r"[\s,\a:]", name)

    def split_prefixes(self, nick: str) -> tuple[frozenset[str], str]:
        """The modes and the nick of an entry of a list of names (``@+ann``)."""
        signs = dict(self.prefixes)
        modes: set[str] = set()
        while nick and nick[0] in signs:
            modes.add(signs[nick[0]])
            nick = nick[1:]
        return frozenset(modes), nick

    def mode_changes(self, words: Sequence[str]) -> list[tuple[bool, str, str]]:
        """The changes of ``MODE``: whether it is set, the mode, and its parameter."""
        changes: list[tuple[bool, str, str]] = []
        rest = list(words[1:])
        added = True
        for letter in words[0] if words else "":
            if letter in "+-":
                added = letter == "+"
                continue
            ranks = {mode for _, mode in self.prefixes}
            needs = letter in ranks or letter in self.list_modes or letter in self.always
            takes = needs or (added and letter in self.when_set)
            changes.append((added, letter, rest.pop(0) if takes and rest else ""))
        return changes


def with_tokens(features: ServerFeatures, tokens: Sequence[str]) -> ServerFeatures:
    """``features`` with what the tokens of one reply 005 say. Values that make no sense are left out."""
    for token in tokens:
        name, _, value = token.partition("=")
        match name:
            case "CASEMAPPING" if value in _FOLD:
                features = replace(features, casemapping=value)
            case "NICKLEN" if value.isdecimal() and 1 <= int(value[:4]) <= _MAX_NICK:
                features = replace(features, nick_length=int(value))
            case "CHANTYPES" if 0 < len(value) <= 8 and value.isascii():
                features = replace(features, channel_types=value)
            case "PREFIX":
                match = re.fullmatch(r"\(([A-Za-z]{1,16})\)([^\w\s]{1,16})", value)
                if match and len(match[1]) == len(match[2]):
                    features = replace(features, prefixes=tuple(zip(match[2], match[1], strict=True)))
            case "CHANMODES" if value.count(",") >= 3 and len(value) <= 256:
                list_modes, always, when_set, *_ = value.split(",")
                features = replace(features, list_modes=list_modes, always=always, when_set=when_set)
            case _:
                pass
    return features


def make_nick(name: str, length: int, suffix: str = "") -> str:
    """A nick that resembles a name of another network (RFC 2812 section 2.3.1)."""
    nick = _NOT_IN_NICKS.sub("_", name).strip("_-") or "guest"
    if nick[0].isdigit():
        nick = f"_{nick}"
    return nick[: max(1, length - len(suffix))] + suffix


def nick_candidates(nick: str, length: int) -> Iterator[str]:
    """The nick, and others to try where it is in use."""
    yield nick
    for number in range(1, MAX_NICKS):
        end = "_" if number == 1 else f"_{number}"
        yield nick[: max(1, length - len(end))] + end
