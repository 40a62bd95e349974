"""The secret parts of a database's URL, and their removal from a text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, unquote, urlsplit

#: Options of a URL whose value is a secret, of whichever database.
_OPTIONS = frozenset({"password", "sslpassword", "tlscertificatekeyfilepassword"})
#: Characters from which on a secret that is not a plain word is blanked wherever it stands: what is shorter,
#: or is a word, is part of ordinary text, and a blank in it would tell the secret.
_LONG = 6


class Credentials:
    """The secrets of a URL. They are in no representation."""

    __slots__ = ("_patterns",)

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        given = [parts.password or ""]
        given += [value for name, value in parse_qsl(parts.query) if name.lower() in _OPTIONS]
        secrets = {
            form for raw in given for form in (raw, unquote(raw), quote(unquote(raw), safe="")) if form
        }
        self._patterns = [_secret_pattern(secret) for secret in sorted(secrets, key=len, reverse=True)]

    def __repr__(self) -> str:
        return "Credentials()"

    def blank(self, text: str) -> str:
        """A text without the secrets: each where a URL, a setting or a quotation has it; one that no ordinary
        text holds, everywhere.
        """
        for pattern in self._patterns:
            text = pattern.sub("***", text)
        return text


def _secret_pattern(secret: str) -> re.Pattern[str]:
    whole = re.escape(secret)
    places: Iterable[str] = (
        rf"(?<=:){whole}(?=@)",
        rf"(?<==){whole}(?![^\s&;,'\")])",
        rf"(?<=['\"]){whole}(?=['\"])",
    )
    if len(secret) >= _LONG and not secret.isalpha():
        places = (whole,)
    return re.compile("|".join(places))
