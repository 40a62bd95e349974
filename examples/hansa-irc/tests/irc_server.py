"""A small IRC server for tests: it has what ngircd lacks (SASL), and does what a test says."""

from __future__ import annotations

import asyncio
import base64
import ssl
from dataclasses import dataclass, field

from hansa_irc.isupport import ServerFeatures
from hansa_irc.lines import Line, format_line, parse_line

NAME = "irc.test.example"
_FOLD = ServerFeatures().fold


@dataclass(eq=False)
class User:
    """A connection, or a person that the test moves."""

    nick: str = ""
    writer: asyncio.StreamWriter | None = None
    registering: bool = False
    ended: bool = False
    got: list[Line] = field(default_factory=list)
    pings: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        return f"{self.nick}!~u@test.example"


class IrcServer:
    """One server. ``accounts`` are those of SASL, if it has any; ``mute`` drops PINGs; ``refuse`` maps a
    command to the numeric reply with which it is refused; ``closed`` channels take the invited.
    """

    def __init__(self) -> None:
        self.port = 0
        self.users: dict[str, User] = {}
        self.channels: dict[str, dict[User, set[str]]] = {}
        self.accounts: dict[str, str] | None = None
        self.refuse: dict[str, str] = {}
        self.deaf = False
        #: While this is set, no registration ends: those connections are in ``held``.
        self.holding = False
        self.held: list[User] = []
        self.tls: ssl.SSLContext | None = None
        #: The account of each connection that has one.
        self.logged_in: dict[User, str] = {}
        self.flags: dict[str, str] = {}
        self.closed: set[str] = set()
        self._invited: set[tuple[str, str]] = set()
        self.commands: list[Line] = []
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> IrcServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Every connection ends without a word."""
        for writer in list(self._open):
            writer.transport.abort()

    def person(self, nick: str, channel: str, modes: str = "") -> User:
        """A person in a channel, moved by the test."""
        user = self.users.setdefault(_FOLD(nick), User(nick=nick))
        if user not in self.channels.setdefault(channel, {}):
            self.channels[channel][user] = set(modes)
            self._tell(channel, format_line("JOIN", channel), user)
        return user

    def act(self, nick: str, command: str, *params: str) -> None:
        """A person does something."""
        user = self.users.setdefault(_FOLD(nick), User(nick=nick))
        self._handle(user, Line(command=command, params=params))

    def set_mode(self, channel: str, *change: str) -> None:
        """The server itself changes a mode, as services do."""
        for one in self.channels[channel]:
            self._write(one, f":{NAME} ".encode() + format_line("MODE", channel, *change))

    def tell(self, channel: str, nick: str, command: str, *params: str) -> None:
        """A line of a person to all connections in a channel."""
        self._tell(channel, format_line(command, *params), self.users[_FOLD(nick)])

    def reply(self, nick: str, number: str, *params: str) -> None:
        """A numeric reply to one connection."""
        self._reply(self.users[_FOLD(nick)], number, *params)

    def ping(self, nick: str) -> None:
        """Ask a connection if it is there."""
        self._write(self.users[_FOLD(nick)], format_line("PING", "test"))

    def pong(self, user: User) -> None:
        """Answer the PINGs of a connection that wait."""
        for token in user.pings:
            self._write(user, f":{NAME} ".encode() + format_line("PONG", NAME, token))
        user.pings.clear()

    def texts(self, channel: str) -> list[str]:
        """What connections have said in a channel, in order."""
        return [
            c.params[1]
            for c in self.commands
            if c.command in {"PRIVMSG", "NOTICE"} and c.params[0] == channel
        ]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        user = User(writer=writer, registering=True)
        self._open.add(writer)
        try:
            while raw := await reader.readline():
                line = parse_line(raw.rstrip(b"\r\n"))
                self.commands.append(line)
                self._handle(user, line)
        except OSError:
            pass
        finally:
            self._open.discard(writer)
            self._quit(user, "gone")
            writer.close()

    def _quit(self, user: User, reason: str) -> None:
        others = {one for members in self.channels.values() if user in members for one in members}
        for members in self.channels.values():
            members.pop(user, None)
        self.users.pop(_FOLD(user.nick), None)
        for one in others - {user}:
            self._write(one, b":" + user.source.encode() + b" " + format_line("QUIT", reason))

    def _handle(self, user: User, line: Line) -> None:
        if line.command in self.refuse:
            self._reply(user, self.refuse[line.command], line.param(0), "it is refused")
            return
        match line.command:
            case "PING":
                user.pings.append(line.param(0))
                if not self.deaf:
                    self.pong(user)
            case "CAP" if line.param(0) == "LS" and self.accounts is not None:
                self._write(user, format_line("CAP", "*", "LS", "*", "multi-prefix"))
                self._write(user, format_line("CAP", "*", "LS", "sasl=PLAIN server-time"))
            case "CAP" if line.param(0) == "LS":
                self._write(user, format_line("CAP", "*", "LS", "multi-prefix"))
            case "CAP" if line.param(0) == "REQ":
                self._write(user, format_line("CAP", "*", "ACK", line.param(1)))
            case "AUTHENTICATE" if line.param(0) == "PLAIN":
                self._write(user, format_line("AUTHENTICATE", "+"))
            case "AUTHENTICATE":
                _, account, password = base64.b64decode(line.param(0)).decode().split("\0")
                good = (self.accounts or {}).get(account.lower()) == password
                if good:
                    self.logged_in[user] = account.lower()
                    self._reply(user, "900", "*", account.lower(), f"You are now logged in as {account}")
                self._reply(user, "903" if good else "904", "done" if good else "wrong password")
            case "NICK":
                self._nick(user, line.param(0))
            case "USER":
                user.registering = True
            case "JOIN":
                for name in line.param(0).split(","):
                    self._join(user, name)
            case "PART":
                self._tell(line.param(0), format_line("PART", *line.params), user)
                self.channels[line.param(0)].pop(user, None)
            case "PRIVMSG" | "NOTICE" if line.param(0) in self.channels:
                self._tell(line.param(0), format_line(line.command, *line.params), user, others=True)
            case "PRIVMSG" | "NOTICE":
                other = self.users.get(_FOLD(line.param(0)))
                if other is not None:
                    self._write(other, f":{user.source} ".encode() + format_line(line.command, *line.params))
                else:
                    self._reply(user, "401", line.param(0), "No such nick")
            case "INVITE":
                self._invited.add((_FOLD(line.param(0)), line.param(1)))
            case "MODE" if len(line.params) == 1:
                self._reply(user, "324", line.param(0), "+" + "".join(self.flags.get(line.param(0), "")))
            case "TOPIC" | "MODE" | "KICK":
                self._tell(line.param(0), format_line(line.command, *line.params), user)
                if line.command == "KICK":
                    self.channels[line.param(0)].pop(self.users[_FOLD(line.param(1))], None)
            case "QUIT":
                self._quit(user, line.param(0))
            case _:
                pass
        ended = (line.command, line.param(0)) == ("CAP", "END")
        user.ended |= ended
        if user.ended and user.nick and user.registering:
            user.registering = False
            if self.holding:
                self.held.append(user)
                return
            self._welcome(user)

    def release(self) -> None:
        """Welcomes the connections that were held."""
        self.holding = False
        for user in self.held:
            self._welcome(user)

    def _welcome(self, user: User) -> None:
        self._reply(user, "001", "welcome")
        self._reply(user, "005", "CASEMAPPING=rfc1459", "NICKLEN=20", "PREFIX=(ov)@+", "are supported")
        self._reply(user, "422", "no message of the day")

    def _nick(self, user: User, nick: str) -> None:
        if self.users.get(_FOLD(nick), user) is not user:
            self._reply(user, "433", nick, "in use")
            return
        before = user.source.encode()
        self.users.pop(_FOLD(user.nick), None)
        others = {one for members in self.channels.values() if user in members for one in members} | {user}
        was, user.nick = user.nick, nick
        self.users[_FOLD(nick)] = user
        if was and not user.registering:
            for one in others:
                self._write(one, b":" + before + b" " + format_line("NICK", nick))

    def _join(self, user: User, name: str) -> None:
        if name in self.closed and (_FOLD(user.nick), name) not in self._invited:
            self._reply(user, "473", name, "Cannot join channel (+i)")
            return
        members = self.channels.setdefault(name, {})
        members.setdefault(user, set())
        self._tell(name, format_line("JOIN", name), user)
        names = " ".join(
            "".join("@" if m == "o" else "+" for m in modes) + u.nick for u, modes in members.items()
        )
        self._reply(user, "353", "=", name, names)
        self._reply(user, "366", name, "End of NAMES list")

    def _tell(self, channel: str, raw: bytes, by: User, *, others: bool = False) -> None:
        for one in list(self.channels.get(channel, {})):
            if not (others and one is by):
                self._write(one, f":{by.source} ".encode() + raw)

    def _reply(self, user: User, number: str, *params: str) -> None:
        self._write(user, f":{NAME} ".encode() + format_line(number, user.nick or "*", *params))

    def _write(self, user: User, raw: bytes) -> None:
        user.got.append(parse_line(raw.rstrip(b"\r\n")))
        if user.writer is not None and not user.writer.is_closing():
            user.writer.write(raw)
