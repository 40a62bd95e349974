"""Private messages as direct chats: a person of IRC writes to the puppet of a person of another network."""

from __future__ import annotations

import asyncio

from hansa import (
    CannotOpenRoom,
    Delivery,
    DeliveryRejected,
    LruCache,
    Message,
    NativeId,
    NetworkContext,
    OpenedRoom,
    Refusal,
    RefusalCode,
    RetryLater,
    Style,
)

from hansa_irc.channels import Channels, Happening
from hansa_irc.config import Config
from hansa_irc.connection import Connection
from hansa_irc.formatting import plain_word, read_message
from hansa_irc.inbound import Inbound
from hansa_irc.lines import Line, format_line, is_nick
from hansa_irc.puppets import Puppets
from hansa_irc.rendering import Speaker, render_message
from hansa_irc.sent import SentDeliveries

#: Private messages that wait; further ones are dropped and counted.
_MAX_WAITING = 200
#: Nicks that were told once that the bridge itself reads nothing.
_MAX_TOLD = 1000
_NO_SUCH_NICK = "401"


def chat_id(nick: str, other: NativeId) -> str:
    """The native id of the chat of a folded nick with a person of another network."""
    return f"={nick} {other}"


def people_of_chat(native: str) -> tuple[str, NativeId] | None:
    """The folded nick and the person of another network; None for a channel."""
    if not native.startswith("="):
        return None
    nick, _, other = native[1:].partition(" ")
    network, _, user = other.partition(":")
    return nick, NativeId(network, user)


class DirectChats:
    """The chats of one network. Each needs a puppet: the bridge's own nick stands for no person."""

    def __init__(self, ctx: NetworkContext, channels: Channels, inbound: Inbound, puppets: Puppets) -> None:
        self._ctx, self._channels, self._inbound, self._puppets = ctx, channels, inbound, puppets
        self._config: Config = ctx.config
        self._queue: asyncio.Queue[tuple[NativeId, Line]] = asyncio.Queue(_MAX_WAITING)
        self._told: LruCache[str, bool] = LruCache(_MAX_TOLD)

    async def require(self, nick: str, other: NativeId, connection: Connection) -> None:
        """Raises CannotOpenRoom where ``other`` cannot write to a nick."""
        if not self._config.puppets and not self._puppets.has_account(other):
            raise _refusal(RefusalCode.FORBIDDEN, "this bridge has no direct chats with people of IRC")
        if not is_nick(nick):
            raise _refusal(RefusalCode.NOT_FOUND, f"{nick[:40]!r} cannot be a nick")
        try:
            asked = format_line("WHOIS", nick)
        except ValueError:
            raise _refusal(RefusalCode.NOT_FOUND, f"{nick[:40]!r} cannot be a nick") from None
        if any(line.command == _NO_SUCH_NICK for line in await connection.tell(asked)):
            raise _refusal(RefusalCode.NOT_FOUND, f"there is nobody with the nick {nick} on IRC now")

    def open(self, nick: str, other: NativeId) -> OpenedRoom:
        """The chat of a nick with a person, whose puppet stays connected from now on."""
        self._puppets.kept.add(other)
        return OpenedRoom(native=NativeId(self._ctx.id, chat_id(self._channels.features.fold(nick), other)))

    async def send(self, delivery: Delivery, nick: str, name: str, sent: SentDeliveries) -> None:
        """Says a message to a nick. Raises RetryLater, DeliveryRejected and ConnectionLost."""
        content = delivery.content
        if not isinstance(content, Message):
            return
        connection = await self._puppets.get(delivery.event.sender, name, self._channels.features)
        if connection is None:
            raise RetryLater(f"{name} has no connection to IRC now")
        lines = render_message(content, nick, Speaker(source=connection.shown_source))
        for number in range(sent.lines_of(delivery.key), len(lines)):
            errors = await connection.tell(lines[number])
            if errors:
                reason = plain_word(errors[0].params[-1] if errors[0].params else "", 200)
                await self._tell_loss(delivery.link.native.id, nick, reason)
                raise DeliveryRejected(reason)
            sent.on_lines(delivery.key, number + 1)

    async def _tell_loss(self, native: str, nick: str, reason: str) -> None:
        """The sender reads in the chat that the nick did not get a message."""
        text = f"{nick} did not get a message: {reason}"
        content = Message(text=text, style=Style.NOTICE)
        await self._inbound.put(Happening(channel=native, sender=nick, content=content))

    def receive(self, person: NativeId, line: Line) -> None:
        """Queue a private message that a puppet got."""
        try:
            self._queue.put_nowait((person, line))
        except asyncio.QueueFull:
            self._ctx.count("irc_private_messages_dropped")

    async def answer(self, connection: Connection, line: Line) -> None:
        """Says once to a nick that the bridge itself has no reader. A notice is never answered."""
        if line.command == "PRIVMSG" and "!" in line.source and line.nick not in self._told:
            self._told.put(line.nick, True)
            connection.post(
                format_line("NOTICE", line.nick, "this is a bridge: write to a person's own nick")
            )

    async def run(self) -> None:
        """Submit private messages for ever, in order."""
        while True:
            person, line = await self._queue.get()
            await self._submit(person, line)

    async def _submit(self, person: NativeId, line: Line) -> None:
        nick = self._channels.features.fold(line.nick)
        message = read_message(line.param(1), notice=line.command == "NOTICE")
        if message is None or nick in self._puppets.ours or "!" not in line.source:
            return
        native = chat_id(nick, person)
        try:
            await self._ctx.open_direct_chat(native, nick, person)
        except CannotOpenRoom as error:
            connection = self._puppets.find(person)
            if connection is not None and line.command == "PRIVMSG":
                reason = plain_word(f"your message was not delivered: {error.refusal.text}", 300)
                connection.post(format_line("NOTICE", line.nick, reason))
            return
        self._puppets.kept.add(person)
        await self._inbound.put(Happening(channel=native, sender=nick, content=message))


def _refusal(code: RefusalCode, text: str) -> CannotOpenRoom:
    return CannotOpenRoom(Refusal(code=code, text=text))
