"""How a connection becomes a user: capabilities, SASL PLAIN and a nick that is free. Without I/O: lines go
in, lines to send come out.
"""

from __future__ import annotations

import base64

from hansa_irc.isupport import ServerFeatures, nick_candidates
from hansa_irc.lines import Line, format_line

_WANTED = frozenset({"away-notify", "server-time", "message-tags", "multi-prefix"})
#: Numeric replies that say that a nick cannot be had: in use, taken on another server, not possible.
_NICK_REFUSED = frozenset({"433", "436", "437", "432"})
_SASL_REFUSED = frozenset({"902", "904", "905", "906", "908"})
#: Those that say that the account itself cannot be used: it is locked, its password is wrong.
_ACCOUNT_REFUSED = frozenset({"902", "904"})
#: Bytes of one ``AUTHENTICATE`` (IRCv3 SASL 3.1).
_CHUNK = 400


class Registration:
    """One registration. ``done`` says that it succeeded, ``failure`` why it did not."""

    def __init__(
        self, nick: str, user: str, real_name: str, *, password: str = "", sasl: tuple[str, str] | None = None
    ) -> None:
        self.nick = nick
        self.done = False
        self.failure = ""
        self.features = ServerFeatures()
        self._user, self._real_name = user, real_name
        self._password, self._sasl = password, sasl
        self._authenticated = False
        #: The account as the server writes it (``RPL_LOGGEDIN``), once it has said so.
        self.account = ""
        #: True if the server refuses the account, not only the attempt.
        self.account_refused = False
        self._offered: set[str] = set()
        #: What the server has granted.
        self.capabilities: set[str] = set()
        self._candidates = nick_candidates(nick, max(len(nick), self.features.nick_length))
        next(self._candidates)

    def begin(self) -> list[bytes]:
        """The first lines."""
        lines = [format_line("CAP", "LS", "302")]
        if self._password:
            lines.append(format_line("PASS", self._password))
        return [
            *lines,
            format_line("NICK", self.nick),
            format_line("USER", self._user, "0", "*", self._real_name),
        ]

    def receive(self, line: Line) -> list[bytes]:
        """What a line of the server is answered with."""
        if line.command in _NICK_REFUSED:
            return self._next_nick()
        if line.command in _SASL_REFUSED:
            self.account_refused |= line.command in _ACCOUNT_REFUSED
            return self._fail(
                f"the server refuses the SASL account: {line.params[-1] if line.params else ''}"
            )
        match line.command:
            case "CAP":
                return self._receive_capabilities(line)
            case "AUTHENTICATE" if line.param(0) == "+" and self._sasl is not None:
                return self._authenticate(*self._sasl)
            case "900":
                self.account = line.param(2)
            case "903":
                self._authenticated = True
                return [format_line("CAP", "END")]
            case "001":
                if self._sasl is not None and not self._authenticated:
                    return self._fail("the server has no SASL, and an account is configured")
                self.nick = line.param(0) or self.nick
                self.done = not self.failure
            case "ERROR" | "464" | "465" | "463":
                self._fail(line.params[-1] if line.params else "the server closes the connection")
            case _:
                pass
        return []

    def _receive_capabilities(self, line: Line) -> list[bytes]:
        verb = line.param(1).upper()
        names = (
            {word.partition("=")[0] for word in line.params[-1].split()} if len(line.params) > 2 else set()
        )
        if verb == "LS":
            self._offered |= names
            return [] if line.param(2) == "*" and len(line.params) > 3 else self._request()
        if verb == "ACK":
            self.capabilities |= names
        if verb == "ACK" and "sasl" in names:
            return [format_line("AUTHENTICATE", "PLAIN")]
        if verb == "NAK" and self._sasl is not None:
            return self._fail("the server has no SASL")
        return [format_line("CAP", "END")] if verb in {"ACK", "NAK"} else []

    def _request(self) -> list[bytes]:
        wanted = _WANTED & self._offered
        if self._sasl is not None:
            if "sasl" not in self._offered:
                return self._fail("the server has no SASL, and an account is configured")
            wanted |= {"sasl"}
        return (
            [format_line("CAP", "REQ", " ".join(sorted(wanted)))] if wanted else [format_line("CAP", "END")]
        )

    def _authenticate(self, account: str, password: str) -> list[bytes]:
        encoded = base64.b64encode(f"{account}\0{account}\0{password}".encode()).decode()
        chunks = [encoded[at : at + _CHUNK] for at in range(0, len(encoded), _CHUNK)]
        if len(chunks[-1]) == _CHUNK:
            chunks.append("+")
        return [format_line("AUTHENTICATE", chunk) for chunk in chunks]

    def _next_nick(self) -> list[bytes]:
        nick = next(self._candidates, None)
        if nick is None:
            return self._fail(f"the nick {self.nick} and others like it are in use")
        self.nick = nick
        return [format_line("NICK", nick)]

    def _fail(self, reason: str) -> list[bytes]:
        self.failure = self.failure or reason
        return []
