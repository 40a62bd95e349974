"""``AWAY`` and presence: the people of IRC who are away, and the puppets (RFC 2812 section 4.1, IRCv3
away-notify).
"""

from __future__ import annotations

import asyncio
import contextlib

from hansa import LruCache, NativeId, NetworkContext, PersonPresence, PresenceState

from hansa_irc.channels import Channels
from hansa_irc.connection import ConnectionLost
from hansa_irc.formatting import plain_word
from hansa_irc.lines import Line, divide_text, format_line
from hansa_irc.puppets import Puppets

#: People whose presence waits for the core, and people whose presence is remembered.
_MAX_WAITING, _MAX_REMEMBERED = 1000, 10_000
#: Bytes of a puppet's reason to be away.
_MAX_WORDS = 200
_WORDS = {PresenceState.AWAY: "away", PresenceState.BUSY: "busy", PresenceState.OFFLINE: "offline"}


class AwayPeople:
    """Both directions. The latest presence of a person replaces the one before."""

    def __init__(self, ctx: NetworkContext, channels: Channels, puppets: Puppets) -> None:
        self._ctx, self._channels, self._puppets = ctx, channels, puppets
        self._waiting: dict[str, PersonPresence] = {}
        self._news = asyncio.Event()
        self._last: LruCache[str, tuple[PresenceState, str]] = LruCache(_MAX_REMEMBERED)

    def receive(self, line: Line) -> None:
        """Takes what a line says of a person's presence: ``AWAY``, and the replies 301 and 352."""
        match line.command:
            case "AWAY" if "!" in line.source:
                self._put(line.nick, line.param(0), is_away=bool(line.param(0)))
            case "301":
                self._put(line.param(1), line.param(2), is_away=True)
            case "352" if line.param(6)[:1] in {"G", "H"}:
                known = self._last.get(self._channels.features.fold(line.param(5)))
                is_away = line.param(6).startswith("G")
                # The flag has no words: those that are known stay.
                if is_away != (known is not None and known[0] is PresenceState.AWAY):
                    self._put(line.param(5), "", is_away=is_away)
            case "QUIT":
                self._last.pop(self._channels.features.fold(line.nick))
            case "NICK":
                self._last.pop(self._channels.features.fold(line.nick))
            case _:
                pass

    async def show(self, presence: PersonPresence) -> None:
        """The puppet of a person is away as the person is."""
        words = plain_word(presence.text, _MAX_WORDS) or _WORDS.get(presence.state, "")
        if presence.state is PresenceState.HERE:
            words = ""
        words = next(divide_text(words, _MAX_WORDS), "")
        if (self._puppets.away.get(presence.user) or "") == words:
            return
        self._puppets.away.put(presence.user, words)
        connection = self._puppets.find(presence.user)
        if connection is not None and connection.up.is_set():
            with contextlib.suppress(ConnectionLost):
                await connection.tell(format_line("AWAY", *filter(None, [words])))

    async def run(self) -> None:
        """Tells the core for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                await self._ctx.send_presence(self._waiting.pop(next(iter(self._waiting))))

    def _put(self, nick: str, text: str, *, is_away: bool) -> None:
        key = self._channels.features.fold(nick)
        state = PresenceState.AWAY if is_away else PresenceState.HERE
        words = plain_word(text, _MAX_WORDS) if is_away else ""
        if not key or key in self._puppets.ours or self._last.get(key) == (state, words):
            return
        if key not in self._waiting and len(self._waiting) >= _MAX_WAITING:
            self._ctx.count("irc_presence_dropped")
            return
        self._last.put(key, (state, words))
        user = NativeId(self._ctx.id, key)
        self._waiting[key] = PersonPresence(user=user, state=state, text=words, since=self._ctx.clock.now())
        self._news.set()
