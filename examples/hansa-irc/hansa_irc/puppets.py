"""Connections of people of other networks: each has its own nick on IRC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from hansa import LruCache, NativeId, NetworkContext

from hansa_irc.channels import Channel
from hansa_irc.config import Config
from hansa_irc.connection import Account, AccountRefused, Connection, ConnectionLost
from hansa_irc.isupport import ServerFeatures, make_nick
from hansa_irc.lines import Line, format_line

#: Seconds that a message waits for its sender's connection, before the bridge says it.
_OPEN_TIMEOUT_S = 15.0
#: Seconds until a person whose connection failed gets another one.
_FAILED_S = 300.0
#: People whose connection failed.
_MAX_REMEMBERED = 1000
#: Numeric replies to JOIN that an invite of an operator overrides: by invitation only, banned, wrong key.
_NOT_LET_IN = frozenset({"473", "474", "475"})
#: Invites a nick into a channel; False where that cannot be done.
Admit = Callable[[str], Awaitable[bool]]


@dataclass(slots=True)
class Puppet:
    """One person's connection."""

    person: NativeId
    connection: Connection
    used: float
    channels: set[str] = field(default_factory=set)


class Puppets:
    """At most ``config.puppets``. ``ours`` maps folded nicks to the people they stand for: lines of these
    nicks are our own, which the bridge must not read as those of other people.
    """

    def __init__(
        self, ctx: NetworkContext, config: Config, on_private: Callable[[NativeId, Line], None]
    ) -> None:
        #: People whose puppets stay, because they have direct chats.
        self.kept: set[NativeId] = set()
        self._on_private = on_private
        #: The reasons of people who are away.
        self.away: LruCache[NativeId, str] = LruCache(_MAX_REMEMBERED)
        self.ours: dict[str, NativeId | None] = {}
        self._ctx, self._config = ctx, config
        self._puppets: dict[NativeId, Puppet] = {}
        self._failed: LruCache[NativeId, float] = LruCache(_MAX_REMEMBERED)
        self._number = 0
        #: The accounts of people who logged in. They have a puppet beside the number of ``config.puppets``.
        self._accounts: dict[NativeId, Account] = {}

    async def speaker(
        self, person: NativeId, name: str, channel: Channel, features: ServerFeatures, admit: Admit
    ) -> Connection | None:
        """The connection of a person, in the channel; None where the bridge must speak for them. ``admit``
        invites a nick that the channel does not let in.
        """
        connection = await self.get(person, name, features)
        puppet, key = self._puppets.get(person), features.fold(channel.name)
        if connection is None or puppet is None:
            return None
        if key in puppet.channels:
            return puppet.connection
        enter = format_line("JOIN", *filter(None, [key, channel.flags.get("k", "")]))
        refused = await puppet.connection.tell(enter)
        if any(line.command in _NOT_LET_IN for line in refused) and await admit(puppet.connection.nick):
            refused = await puppet.connection.tell(enter)
        if refused:
            reason = refused[0].params[-1] if refused[0].params else ""
            self._ctx.log.info("%s cannot enter %s: %s", puppet.connection.nick, key, reason)
            return None
        puppet.channels.add(key)
        return puppet.connection

    async def get(self, person: NativeId, name: str, features: ServerFeatures) -> Connection | None:
        """The connection of a person, None where they can have none now."""
        puppet = self._puppets.get(person)
        if puppet is None:
            puppet = await self._open(person, name, features)
        elif not await _is_up(puppet.connection):  # another message, or a login, has opened it just now
            return None
        if puppet is None:
            return None
        puppet.used = self._ctx.clock.monotonic()
        return puppet.connection

    @property
    def account_count(self) -> int:
        """The number of people who are logged in."""
        return len(self._accounts)

    def has_account(self, person: NativeId) -> bool:
        """True if a person is logged in with an account of their own."""
        return person in self._accounts

    async def take_account(self, person: NativeId, account: Account) -> None:
        """The person speaks by this account from now on, and by no other connection."""
        self._accounts[person] = account
        self._failed.pop(person)
        await self._close(person, "logs in")

    async def drop_account(self, person: NativeId) -> None:
        """The person has no account any more."""
        if self._accounts.pop(person, None) is not None:
            await self._close(person, "logged out")

    async def connect_accounts(self, features: ServerFeatures) -> None:
        """Connects those who are logged in and have no connection: they can be written to at all times."""
        for person, account in list(self._accounts.items()):
            if person not in self._puppets:
                await self.get(person, account.name, features)

    async def _close(self, person: NativeId, reason: str) -> None:
        puppet = self._puppets.pop(person, None)
        if puppet is not None:
            await puppet.connection.close(reason)

    def on_quit(self, key: str) -> None:
        """The server said that a nick of our connections has left: its next holder is another person."""
        person = self.ours.get(key)
        if person is not None and person not in self._puppets:
            del self.ours[key]

    def find(self, person: NativeId) -> Connection | None:
        """The connection of a person who has one."""
        puppet = self._puppets.get(person)
        return puppet.connection if puppet is not None else None

    async def enter(self, person: NativeId, channel: str, password: str) -> None:
        """A person was thrown out of a channel in which they may be."""
        puppet = self._puppets.get(person)
        if puppet is None or channel in puppet.channels:
            return
        with contextlib.suppress(ConnectionLost):
            if not await puppet.connection.tell(format_line("JOIN", *filter(None, [channel, password]))):
                puppet.channels.add(channel)

    async def leave(self, person: NativeId, channel: str, reason: str) -> None:
        """A person is not in a room any more."""
        puppet = self._puppets.get(person)
        if puppet is None or channel not in puppet.channels:
            return
        puppet.channels.discard(channel)
        with contextlib.suppress(ConnectionLost):
            await puppet.connection.tell(format_line("PART", channel, reason))
        if not puppet.channels and not self._stays(person):
            await puppet.connection.close("left")

    async def close_idle(self) -> None:
        """Those who have said nothing for long leave; they come back when they speak."""
        now = self._ctx.clock.monotonic()
        for puppet in list(self._puppets.values()):
            if now - puppet.used > self._config.puppet_idle and not self._stays(puppet.person):
                await puppet.connection.close("idle")

    async def close(self) -> None:
        """All leave."""
        await asyncio.gather(*(p.connection.close("the bridge stops") for p in list(self._puppets.values())))

    async def _open(self, person: NativeId, name: str, features: ServerFeatures) -> Puppet | None:
        now = self._ctx.clock.monotonic()
        account = self._accounts.get(person)
        others = sum(one not in self._accounts for one in self._puppets)
        if (account is None and others >= self._config.puppets) or now - (
            self._failed.get(person) or -1e9
        ) < _FAILED_S:
            return None
        nick = make_nick(account.name if account is not None else name, features.nick_length)

        async def receive(line: Line) -> None:
            await self._receive(person, line)

        def on_up() -> None:
            self.ours[features.fold(connection.nick)] = person
            if words := self.away.get(person):
                connection.post(format_line("AWAY", words))

        connection = Connection(self._ctx, self._config, nick, receive, on_up, account=account)
        puppet = self._puppets[person] = Puppet(person=person, connection=connection, used=now)
        self._number += 1
        self._ctx.spawn(self._run(puppet), f"puppet {self._number}")
        if await _is_up(connection):
            return puppet
        if self._accounts.get(person) is account:  # it was not replaced meanwhile
            self._failed.put(person, now)
        await connection.close("too late")
        return None

    def _stays(self, person: NativeId) -> bool:
        return person in self.kept or person in self._accounts

    async def _run(self, puppet: Puppet) -> None:
        try:
            await puppet.connection.run()
        except AccountRefused as error:
            await self._ctx.end_login(puppet.person, str(error))
        except ConnectionLost as error:
            self._ctx.log.info("the connection of %s ended: %s", puppet.person, error)
        finally:
            if self._puppets.get(puppet.person) is puppet:
                del self._puppets[puppet.person]

    async def _receive(self, person: NativeId, line: Line) -> None:
        puppet = self._puppets.get(person)
        if puppet is None:
            return
        own = puppet.connection.features.fold
        private = line.command in {"PRIVMSG", "NOTICE"} and own(line.param(0)) == own(puppet.connection.nick)
        if private or line.command == "301":
            self._on_private(person, line)
        if line.command == "KICK" and own(line.param(1)) == own(puppet.connection.nick):
            puppet.channels.discard(own(line.param(0)))


async def _is_up(connection: Connection) -> bool:
    """Waits until the server knows a connection; False if it does not come to that in time."""
    if connection.up.is_set():
        return True
    waits = [asyncio.ensure_future(event.wait()) for event in (connection.up, connection.ended)]
    try:
        await asyncio.wait(waits, timeout=_OPEN_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return connection.up.is_set()
