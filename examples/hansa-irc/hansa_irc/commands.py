"""Answers to commands that people of IRC write to the bridge, in a channel or to its nick."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence

from hansa import NativeId, NetworkCommand, NetworkContext

from hansa_irc.connection import Connection, ConnectionLost
from hansa_irc.direct import DirectChats
from hansa_irc.formatting import plain_word
from hansa_irc.lines import Line, divide_text, format_line, room_for_text
from hansa_irc.puppets import Puppets

#: Lines of an answer: a server throws out who sends many at once.
MAX_LINES = 20
#: Private messages to the bridge that wait.
_MAX_WAITING = 50


def answer_lines(source: str, nick: str, text: str) -> Iterator[bytes]:
    """An answer as notices to a nick, which no client answers by itself."""
    room, count = room_for_text(source, "NOTICE", nick), 0
    for line in text.splitlines():
        for piece in divide_text(plain_word(line, 2000), room):
            count += 1
            if count > MAX_LINES:
                return
            yield format_line("NOTICE", nick, piece if count < MAX_LINES else "...")


async def answer_command(connection: Connection, nick: str, text: str) -> None:
    """Sends an answer to a nick, as fast as the connection may. Raises ConnectionLost."""
    await connection.tell(*answer_lines(connection.shown_source, nick, text))


class CommandChat:
    """Private messages to the bridge's own nick. The reader of the connection does not wait for them."""

    def __init__(self, ctx: NetworkContext, direct: DirectChats, puppets: Puppets) -> None:
        self._ctx, self._direct, self._puppets = ctx, direct, puppets
        self._queue: asyncio.Queue[tuple[Connection, str, Line]] = asyncio.Queue(_MAX_WAITING)

    def receive(self, connection: Connection, user: str, line: Line) -> None:
        """Queue a private message of ``user``, a folded nick. A notice is never answered."""
        if line.command != "PRIVMSG" or "!" not in line.source:
            return
        try:
            self._queue.put_nowait((connection, user, line))
        except asyncio.QueueFull:
            self._ctx.count("irc_private_messages_dropped")

    def table(self) -> Mapping[str, NetworkCommand]:
        """See ``hansa.HasChatCommands``."""
        text = "tells by which nick people of IRC see you"
        return {"nick": NetworkCommand(usage="", help=text, run=self._tell_nick)}

    async def _tell_nick(self, person: NativeId, words: Sequence[str]) -> str:
        del words
        if person.network == self._ctx.id:
            return f"You are {person.id} on IRC."
        connection = self._puppets.find(person)
        if connection is None:
            return "The bridge says what you write, with your name before it."
        return f"You are {connection.nick} on IRC."

    async def run(self) -> None:
        """Answer for ever."""
        while True:
            connection, user, line = await self._queue.get()
            with contextlib.suppress(ConnectionLost):
                answer = await self._ctx.answer_command(user, line.param(1))
                if answer is None:
                    await self._direct.answer(connection, line)
                else:
                    await answer_command(connection, line.nick, answer)
