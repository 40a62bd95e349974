"""The network: one connection of the bridge, and those of puppets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from functools import partial

from hansa import (
    Backoff,
    CannotOpenRoom,
    Delivery,
    DeliveryRejected,
    JoinRule,
    Link,
    Member,
    Message,
    NativeId,
    NetworkCommand,
    NetworkContext,
    NetworkStatus,
    OpenedRoom,
    PersonPresence,
    Refusal,
    RefusalCode,
    RetryLater,
    RoomView,
    Standing,
    Submission,
    Topic,
    display_of,
)

from hansa_irc.accounts import SpeaksByAccounts
from hansa_irc.acts import ChannelActs, reason_of
from hansa_irc.away import AwayPeople
from hansa_irc.channels import MAX_CHANNELS, Channels
from hansa_irc.commands import CommandChat, answer_command
from hansa_irc.config import Config
from hansa_irc.connection import Connection, ConnectionLost
from hansa_irc.direct import DirectChats, people_of_chat
from hansa_irc.echoes import Echoes
from hansa_irc.features import FEATURES
from hansa_irc.formatting import plain_word, read_message
from hansa_irc.inbound import Inbound
from hansa_irc.lines import Line, format_line, join_lines, parse_line
from hansa_irc.puppets import Puppets
from hansa_irc.rendering import Speaker, render_message
from hansa_irc.sent import SentDeliveries, schema

_OPEN_TIMEOUT_S = 10.0
#: Lines that enter channels and ask for their modes: as many as channels, with room for both.
_MAX_PACED = 3 * MAX_CHANNELS
#: Seconds between two looks at idle puppets, channels that could not be entered, and splits.
_HOUSEKEEPING_S = 60
#: Seconds between two questions who of a channel is away, where the server does not tell of changes, and the
#: largest channel, in people, that it is asked about.
_AWAY_S, _AWAY_MEMBERS = 120, 100
#: Seconds after which people who were lost in a split have left.
_SPLIT_S = 600


class Irc(SpeaksByAccounts):
    """Channels are rooms; nicks, folded as the server says, are people."""

    features = FEATURES

    def __init__(self, ctx: NetworkContext) -> None:
        self.ctx = ctx
        self.config: Config = ctx.config
        self.puppets = Puppets(ctx, self.config, self._receive_private)
        self.channels = Channels(ctx.id, self.puppets.ours, self.config.members)
        self.acts = ChannelActs(ctx, self.channels, self.puppets, self._require_connection)
        self.inbound = Inbound(ctx, self.channels, self.acts.on_refused)
        self.away = AwayPeople(ctx, self.channels, self.puppets)
        self.direct = DirectChats(ctx, self.channels, self.inbound, self.puppets)
        self.commands = CommandChat(ctx, self.direct, self.puppets)
        self.echoes = Echoes()
        self._sent = SentDeliveries(ctx)
        self._connection: Connection | None = None
        self._stopping = False
        self._inside: set[str] = set()
        #: Lines that nobody waits for, and that the limit of lines holds back.
        self._paced: asyncio.Queue[bytes] = asyncio.Queue(_MAX_PACED)
        self._asked_away: set[str] = set()
        self._up = asyncio.Event()
        self._unlinked: set[str] = set()
        ctx.declare(schema(ctx.id))

    async def start(self) -> None:
        """See ``hansa.Network.start``."""
        self.ctx.report_status(NetworkStatus.CONNECTING, self.config.host)
        await self.load_accounts()
        for link in self.ctx.list_links():
            chat = people_of_chat(link.native.id)
            if chat is None:
                self._open_channel(link.native.id)
            else:
                self.puppets.kept.add(chat[1])
        self.ctx.spawn(self._keep_connected(), "connection")
        self.ctx.spawn(self.inbound.run, "lines")
        self.ctx.spawn(self.direct.run, "private messages")
        self.ctx.spawn(partial(self.acts.run, self.inbound), "refused acts")
        self.ctx.spawn(self.commands.run, "commands")
        self.ctx.spawn(self._send_paced, "paced lines")
        self.ctx.spawn(self.away.run, "presence")
        self.ctx.spawn(self._keep_house, "housekeeping")

    async def stop(self) -> None:
        """See ``hansa.Network.stop``."""
        self._stopping = True
        await self.puppets.close()
        if self._connection is not None:
            await self._connection.close("the bridge stops")

    async def open_room(self, address: str, *, create: bool) -> OpenedRoom:
        """Enters a channel; IRC makes it where it does not exist."""
        del create
        if not self.channels.features.is_channel(address):
            raise self._cannot_open(RefusalCode.INVALID, f"{address[:80]!r} is not the name of a channel")
        key = self.channels.features.fold(address)
        if self.ctx.get_link(key) is not None:
            return self._opened(key)
        if len(self.channels.by_name) >= MAX_CHANNELS:
            raise self._cannot_open(RefusalCode.TOO_LARGE, f"there are {MAX_CHANNELS} channels")
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                await self._up.wait()
            self._open_channel(key)
            errors = await self._require_connection().tell(format_line("JOIN", key))
        except (TimeoutError, ConnectionLost, RetryLater) as error:
            raise self._cannot_open(
                RefusalCode.UNREACHABLE, f"{self.config.host} cannot be reached"
            ) from error
        if key not in self._inside:
            self.channels.by_name.pop(key, None)
            raise self._cannot_open(
                RefusalCode.FORBIDDEN, reason_of(errors) or "the server does not answer JOIN"
            )
        self._unlinked.add(key)
        return self._opened(key)

    def _opened(self, key: str) -> OpenedRoom:
        return OpenedRoom(native=NativeId(self.ctx.id, key), authority=self.config.decides)

    async def require_direct_chat(self, user: str, other: NativeId) -> None:
        """See ``hansa.OpensDirectChats``: a nick that nobody has now does not exist."""
        try:
            await self.direct.require(user, other, self._require_connection())
        except (RetryLater, ConnectionLost) as error:
            raise self._cannot_open(
                RefusalCode.UNREACHABLE, f"{self.config.host} cannot be reached"
            ) from error

    async def open_direct_chat(self, user: str, other: NativeId) -> OpenedRoom:
        """See ``hansa.OpensDirectChats``."""
        await self.require_direct_chat(user, other)
        return self.direct.open(user, other)

    def chat_commands(self) -> Mapping[str, NetworkCommand]:
        """See ``hansa.HasChatCommands``."""
        return self.commands.table()

    async def answer_command(self, link: Link, user: str, text: str) -> None:
        """See ``hansa.AnswersCommands``: notices to the nick alone."""
        del link
        await answer_command(self._require_connection(), user, text)

    async def on_link_added(self, own: Link, added: Link, view: RoomView) -> None:
        """See ``hansa.FollowsLinks``: those who were in the channel before it was linked are shown."""
        del view
        if added.id == own.id:
            await self._sync_linked()

    async def on_link_removed(self, own: Link, removed: Link, view: RoomView) -> None:
        """See ``hansa.FollowsLinks``: the puppets and the bridge leave the channel that is unlinked."""
        if removed.id != own.id:
            return
        channel = own.native.id
        self.channels.by_name.pop(channel, None)
        self._unlinked.discard(channel)
        for person in list(view.joined()):
            if person.user.network != self.ctx.id:
                await self.puppets.leave(person.user, channel, "the channel is no longer linked")
        if channel in self._inside:
            self._inside.discard(channel)
            with contextlib.suppress(ConnectionLost, RetryLater):
                await self._require_connection().tell(
                    format_line("PART", channel, "the channel is no longer linked")
                )

    async def tell_person(self, link: Link, user: str, text: str) -> None:
        """See ``hansa.TellsPeople``: a notice, in a chat from the other person."""
        chat = people_of_chat(link.native.id)
        own = self._require_connection() if chat is None else self.puppets.find(chat[1])
        if own is None:
            raise RetryLater(f"the person of {link.native.id} has no connection to IRC now")
        words = plain_word(text if chat is not None else f"[{link.native.id}] {text}", 300)
        await own.tell(format_line("NOTICE", user, words))

    async def show_presence(self, link: Link, presence: PersonPresence) -> None:
        """See ``hansa.CarriesPresence``: the person's puppet is away."""
        del link
        await self.away.show(presence)

    async def send(self, delivery: Delivery) -> str:
        """See ``hansa.Network.send``: returns when the server has worked on all lines."""
        native = await self._sent.find(delivery)
        if native is not None:
            return native
        channel = delivery.link.native.id
        chat = people_of_chat(channel)
        await self._sync_linked()
        if chat is None and channel not in self._inside:
            raise RetryLater(f"the bridge is not in {channel}")
        try:
            if chat is not None:
                self._require_connection()
                name = self._name_of(delivery.event.sender, channel)
                await self.direct.send(delivery, chat[0], name, self._sent)
            else:
                await self._send_content(delivery, channel)
        except ConnectionLost as error:
            raise RetryLater(str(error)) from error
        return await self._sent.put(delivery)

    async def propose(self, delivery: Delivery) -> str:
        """See ``hansa.LateAuthority``: the server has worked on all lines, or has refused one. A call that is
        cut off goes on: its lines may be under way, and its answer is the next one of the server.
        """
        sending = asyncio.ensure_future(self.send(delivery))
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            if self._stopping:
                sending.cancel()
            else:
                self.ctx.spawn(self._reflect_late(delivery, sending), "late reflection")
            raise

    async def _reflect_late(self, delivery: Delivery, sending: asyncio.Future[str]) -> None:
        try:
            native = await sending
        except (RetryLater, DeliveryRejected):
            return
        reflected = Submission(
            origin=NativeId(self.ctx.id, native),
            room=delivery.link.native,
            sender=NativeId(self.ctx.id, self.config.nick),
            content=delivery.content,
            ts=delivery.event.ts,
            reflects=delivery.key,
        )
        await self.ctx.submit([reflected])

    async def _send_content(self, delivery: Delivery, channel: str) -> None:
        content, person = delivery.content, delivery.event.sender
        match content:
            case Message():
                await self._say(delivery, channel, content)
            case Topic():
                await self._say_instead(delivery, channel, await self.acts.set_topic(channel, content))
            case JoinRule():
                await self._say_instead(delivery, channel, await self.acts.set_join_rule(channel, content))
            case Member():
                await self.acts.change_member(channel, person, content)
            case Standing():
                await self.acts.change_standing(channel, content)
            case _:
                raise DeliveryRejected(f"{content.kind} has no form on IRC")

    async def _say(self, delivery: Delivery, channel: str, message: Message) -> None:
        person = delivery.event.sender
        name = self._name_of(person, channel)
        connection, speaker = await self._speaker(person, name, channel)
        lines = render_message(message, channel, speaker)
        for number in range(self._sent.lines_of(delivery.key), len(lines)):
            self._remember(lines[number], channel, "" if speaker.name else connection.nick)
            errors = await connection.tell(lines[number])
            if refused := [one for one in errors if self.channels.features.fold(one.param(1)) == channel]:
                raise DeliveryRejected(reason_of(refused))
            self._sent.on_lines(delivery.key, number + 1)

    async def _say_instead(self, delivery: Delivery, channel: str, message: Message | None) -> None:
        """People read of a change that the bridge may not make."""
        if message is not None:
            await self._say(delivery, channel, message)

    async def _speaker(self, person: NativeId, name: str, channel: str) -> tuple[Connection, Speaker]:
        own = self._require_connection()
        known = self.channels.open(channel, set())

        async def admit(nick: str) -> bool:
            return not await own.tell(format_line("INVITE", nick, channel))

        puppet = await self.puppets.speaker(person, name, known, self.channels.features, admit)
        if puppet is not None:
            return puppet, Speaker(source=puppet.shown_source)
        return own, Speaker(source=own.shown_source, name=name)

    def _name_of(self, person: NativeId, channel: str) -> str:
        view = self.ctx.get_view(channel)
        name = view.name_of(person) if view is not None else display_of(person)
        return plain_word(name, 32) or "unnamed"

    def _require_connection(self) -> Connection:
        if self._connection is None or not self._connection.up.is_set():
            raise RetryLater("there is no connection to the server")
        return self._connection

    def _open_channel(self, key: str) -> None:
        view = self.ctx.get_view(key)
        rows = view.joined() if view is not None else ()
        self.channels.open(key, {row.user.id for row in rows if row.user.network == self.ctx.id})

    async def _keep_connected(self) -> None:
        backoff, failures = Backoff(), 0
        while True:
            connection = Connection(self.ctx, self.config, self.config.nick, self._receive, self._on_up)
            self._connection = connection
            began = self.ctx.clock.monotonic()
            try:
                await connection.run()
            except ConnectionLost as error:
                self._up.clear()
                self._inside.clear()
                self._asked_away.clear()
                failures = 1 if self.ctx.clock.monotonic() - began > 2 * backoff.most else failures + 1
                self.ctx.report_status(NetworkStatus.CONNECTING, f"{self.config.host}: {error}")
                self.ctx.count("irc_connections_lost")
            await asyncio.sleep(backoff.delay(failures, self.ctx.random.uniform()))

    def _on_up(self) -> None:
        assert self._connection is not None
        self.channels.features = self._connection.features
        ours = self.puppets.ours
        for key in [key for key, person in ours.items() if person is None]:
            del ours[key]
        ours[self.channels.features.fold(self._connection.nick)] = None
        while not self._paced.empty():
            self._paced.get_nowait()
        self._enter_again()
        self._up.set()
        self.ctx.report_status(NetworkStatus.UP)
        self.ctx.spawn(partial(self.puppets.connect_accounts, self.channels.features), "accounts")

    async def _receive(self, line: Line) -> None:
        """A line of the bridge's connection."""
        fold = self.channels.features.fold
        own = self.puppets.ours.get(fold(line.nick), "") is None
        ended = line.param(1) if line.command == "KICK" else line.nick
        if line.command == "PRIVMSG" and self.puppets.ours.get(fold(line.param(0)), "") is None:
            self.commands.receive(self._require_connection(), fold(line.nick), line)
        if self._is_echo(line):
            self.ctx.count("irc_echoes")
            return
        happenings = self.channels.receive(line)
        self.away.receive(line)
        match line.command:
            case "JOIN" if own:
                self._inside.add(fold(line.param(0)))
                self._asked_away.discard(fold(line.param(0)))
                self._pace(format_line("MODE", fold(line.param(0))))
            case "PART" | "KICK" if self.puppets.ours.get(fold(ended), "") is None:
                self._inside.discard(fold(line.param(0)))
            case "NICK" if own:
                self.puppets.ours.pop(fold(line.nick), None)
                self.puppets.ours[fold(line.param(0))] = None
            case "QUIT":
                self.puppets.on_quit(fold(line.nick))
            case _:
                pass
        for happening in happenings:
            await self.inbound.put(
                happening, line.tags.get("msgid", "") if happening is happenings[-1] else ""
            )
            if self.channels.is_operator_entry(happening):
                await self.inbound.rank(happening.channel)
        if line.command in {"366", "324"}:
            await self.inbound.rank(fold(line.param(1)))
        elif line.command == "MODE" and ("!" not in line.source or "m" in line.param(1)):
            # What a person changes is an act, which the room may refuse; what a server changes is so.
            await self.inbound.rank(fold(line.param(0)))

    def _is_echo(self, line: Line) -> bool:
        fold = self.channels.features.fold
        if line.command not in {"PRIVMSG", "NOTICE"} or fold(line.nick) in self.puppets.ours:
            return False
        message = read_message(line.param(1), notice=False)
        now = self.ctx.clock.monotonic()
        return message is not None and self.echoes.is_echo(
            fold(line.param(0)), fold(line.nick), message.text, now
        )

    def _remember(self, raw: bytes, channel: str, puppet: str) -> None:
        message = read_message(parse_line(raw.rstrip()).param(1), notice=False)
        if message is not None:
            self.echoes.say(channel, puppet, message.text, self.ctx.clock.monotonic())

    def _receive_private(self, person: NativeId, line: Line) -> None:
        if line.command == "301":
            self.away.receive(line)
        else:
            self.direct.receive(person, line)

    async def _connect_kept(self) -> None:
        """People with direct chats can be written to at all times."""
        if self._up.is_set():
            await self.puppets.connect_accounts(self.channels.features)
        for link in self.ctx.list_links():
            chat = people_of_chat(link.native.id)
            if chat is not None and self._up.is_set() and self.puppets.find(chat[1]) is None:
                name = self._name_of(chat[1], link.native.id)
                await self.puppets.get(chat[1], name, self.channels.features)

    async def _sync_linked(self) -> None:
        """Show those who were in a channel before it was linked."""
        for key in [key for key in self._unlinked if self.ctx.get_link(key) is not None]:
            self._unlinked.discard(key)
            for happening in self.channels.resync(key):
                await self.inbound.put(happening)
            await self.inbound.rank(key)

    async def _keep_house(self) -> None:
        looks = 0
        while True:
            await asyncio.sleep(1.0)
            looks += 1
            await self._sync_linked()
            if looks % _HOUSEKEEPING_S == 0:
                await self.puppets.close_idle()
                await self._connect_kept()
                self._enter_again()
            if looks % _AWAY_S == 1:
                await self._ask_away()
            if looks % _SPLIT_S == 0:
                for happening in self.channels.give_up_split():
                    await self.inbound.put(happening)

    async def _ask_away(self) -> None:
        """Ask who of the channels is away; a server with ``away-notify`` is asked once of each channel."""
        connection = self._connection
        if connection is None or not self._up.is_set():
            return
        for key in sorted(self._inside):
            channel = self.channels.by_name.get(key)
            if channel is None or len(channel.ranks) > _AWAY_MEMBERS:
                continue
            if "away-notify" in connection.capabilities and key in self._asked_away:
                continue
            self._asked_away.add(key)
            with contextlib.suppress(ConnectionLost):
                await connection.tell(format_line("WHO", key))

    def _enter_again(self) -> None:
        """Channels that the bridge is not in: it was thrown out, could not enter, or has just connected."""
        for raw in join_lines(sorted(set(self.channels.by_name) - self._inside)):
            self._pace(raw)

    def _pace(self, raw: bytes) -> None:
        try:
            self._paced.put_nowait(raw)
        except asyncio.QueueFull:
            self.ctx.count("irc_paced_lines_dropped")

    async def _send_paced(self) -> None:
        """Send what nobody waits for: a server that counts lines takes them one after the other."""
        while True:
            raw = await self._paced.get()
            # A line that is lost with its connection is not sent again: the next one asks again.
            with contextlib.suppress(ConnectionLost, RetryLater):
                await self._require_connection().tell(raw)

    def _cannot_open(self, code: RefusalCode, text: str) -> CannotOpenRoom:
        return CannotOpenRoom(Refusal(code=code, text=text))
