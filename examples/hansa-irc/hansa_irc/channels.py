"""What is known of a channel, and what a line of the server makes of it. Without I/O: lines go in, what
happened comes out, in the values of the core.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hansa import Content, JoinRule, LruCache, Member, Membership, NativeId, Role, Standing, Topic

from hansa_irc.formatting import plain_word, read_formatted, read_message
from hansa_irc.isupport import ServerFeatures
from hansa_irc.lines import Line

#: The reason of a QUIT where two servers of the network have lost each other: their names.
_SPLIT = re.compile(r"[\w-]+(?:\.[\w*-]+)+ [\w-]+(?:\.[\w*-]+)+")
#: People whose return after a split is waited for.
_MAX_SPLIT = 10_000
#: People of one channel that are remembered, bans of it, and channels.
MAX_NAMES, MAX_BANS, MAX_CHANNELS = 20_000, 500, 500
#: Modes of a person that a moderated channel lets speak.
_SPEAKS = frozenset("qaohv")


@dataclass(slots=True)
class Channel:
    """One channel. ``ranks`` has everybody who is there, by folded nick; ``shown`` those of them who are
    members of the core's room. ``flags`` are the modes of the channel itself, each with its parameter, and
    ``banned`` the folded nicks that were banned while we were here.
    """

    name: str
    ranks: dict[str, frozenset[str]] = field(default_factory=dict)
    nicks: dict[str, str] = field(default_factory=dict)
    shown: set[str] = field(default_factory=set)
    names: dict[str, tuple[str, frozenset[str]]] | None = None
    topic: str | None = None
    flags: dict[str, str] = field(default_factory=dict)
    banned: set[str] = field(default_factory=set)

    @property
    def is_moderated(self) -> bool:
        """True if only those with a rank or voice may speak (``+m``)."""
        return "m" in self.flags

    def has_voice(self, modes: frozenset[str]) -> bool:
        """True if a person with these modes may speak."""
        return not self.is_moderated or bool(modes & _SPEAKS)

    def forget(self, key: str) -> None:
        """A person is not there any more."""
        self.ranks.pop(key, None)
        self.nicks.pop(key, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that a person did in a channel. ``sender`` is a folded nick, empty for the server."""

    channel: str
    sender: str
    content: Content


class Channels:
    """The channels of one connection. ``ours`` maps the folded nicks of our own connections to the people
    that they stand for, and the bridge's own to None: what they do came from the core.
    """

    def __init__(self, network: str, ours: Mapping[str, NativeId | None], members: int) -> None:
        self.features = ServerFeatures()
        self.by_name: dict[str, Channel] = {}
        #: Nicks that a split of the network took away, with their channels.
        self.split: LruCache[str, frozenset[str]] = LruCache(_MAX_SPLIT)
        self._network = network
        self._ours = ours
        self._members = members

    def open(self, name: str, shown: set[str]) -> Channel:
        """A channel that we are in, or are about to be. ``shown`` are its members in the core's room."""
        key = self.features.fold(name)
        channel = self.by_name.setdefault(key, Channel(name=name))
        channel.shown |= shown
        return channel

    def find(self, name: str) -> Channel | None:
        """The channel of a name."""
        return self.by_name.get(self.features.fold(name))

    def receive(self, line: Line) -> list[Happening]:
        """What a line says that people did."""
        match line.command:
            case "PRIVMSG" | "NOTICE":
                return list(self._said(line))
            case "JOIN":
                return list(self._joined(line))
            case "PART":
                return list(self._left(line.param(0), line.nick, line.nick, line.param(1)))
            case "KICK":
                return list(self._left(line.param(0), line.param(1), line.nick, line.param(2)))
            case "QUIT":
                return list(self._quit(line))
            case "NICK":
                return list(self._renamed(line))
            case "TOPIC":
                return list(self._topic(line.param(0), line.nick, line.param(1)))
            case "332":
                return list(self._topic(line.param(1), "", line.param(2)))
            case "MODE":
                return list(self._modes(line))
            case "324":
                self._read_flags(line.param(1), line.params[2:])
            case "353":
                self._names(line)
            case "366":
                return list(self._end_of_names(line.param(1)))
            case _:
                pass
        return []

    def _happening(self, channel: Channel, nick: str, content: Content) -> Iterator[Happening]:
        """What a person did, after their entry if the room does not show them yet."""
        key = self.features.fold(nick)
        if key in self._ours or not key:
            return
        if key not in channel.shown:
            yield self._entry(channel, key, nick)
        yield Happening(channel=self.features.fold(channel.name), sender=key, content=content)

    def _entry(self, channel: Channel, key: str, nick: str) -> Happening:
        channel.shown.add(key)
        user = NativeId(self._network, key)
        content = Member(user=user, membership=Membership.JOIN, name=plain_word(nick))
        return Happening(channel=self.features.fold(channel.name), sender=key, content=content)

    def _said(self, line: Line) -> Iterator[Happening]:
        channel = self.find(line.param(0))
        message = read_message(line.param(1), notice=line.command == "NOTICE")
        if channel is not None and message is not None and "!" in line.source:
            yield from self._happening(channel, line.nick, message)

    def _joined(self, line: Line) -> Iterator[Happening]:
        channel = self.find(line.param(0))
        key = self.features.fold(line.nick)
        if channel is None or len(channel.ranks) >= MAX_NAMES:
            return
        channel.ranks[key] = frozenset()
        channel.nicks[key] = line.nick
        self.split.pop(key)
        if key not in self._ours and key not in channel.shown and len(channel.shown) < self._members:
            yield self._entry(channel, key, line.nick)

    def _left(self, name: str, nick: str, by: str, reason: str) -> Iterator[Happening]:
        channel = self.find(name)
        if channel is None:
            return
        key, sender = self.features.fold(nick), self.features.fold(by)
        channel.forget(key)
        if key in channel.banned and key != sender:
            # The ban came a moment ago, and it is this line that says why. A leave would end the ban.
            yield from self._banned(channel, by, key, reason)
        elif key in self._ours:
            person = self._ours[key]
            if person is not None and sender not in self._ours:
                content = Member(user=person, membership=Membership.LEAVE, reason=plain_word(reason, 300))
                yield from self._happening(channel, by, content)
        elif sender not in self._ours or key == sender:
            yield from self._leaves(channel, key, by if sender != key else nick, reason)
        else:
            channel.shown.discard(key)

    def _leaves(self, channel: Channel, key: str, by: str, reason: str) -> Iterator[Happening]:
        if key not in channel.shown:
            return
        content = Member(
            user=NativeId(self._network, key), membership=Membership.LEAVE, reason=plain_word(reason, 300)
        )
        if self.features.fold(by) == key:
            channel.shown.discard(key)
            yield Happening(channel=self.features.fold(channel.name), sender=key, content=content)
            return
        yield from self._happening(channel, by, content)
        channel.shown.discard(key)

    def _quit(self, line: Line) -> Iterator[Happening]:
        key = self.features.fold(line.nick)
        here = [channel for channel in self.by_name.values() if key in channel.ranks]
        for channel in here:
            channel.forget(key)
        if _SPLIT.fullmatch(line.param(0)):
            self.split.put(key, frozenset(self.features.fold(channel.name) for channel in here))
            return
        for channel in here:
            yield from self._leaves(channel, key, line.nick, line.param(0))

    def is_operator_entry(self, happening: Happening) -> bool:
        """True if an operator of the channel enters the room: the room has to know their rank before it
        judges what they do.
        """
        channel = self.by_name.get(happening.channel)
        modes = channel.ranks.get(happening.sender, frozenset()) if channel is not None else frozenset()
        enters = isinstance(happening.content, Member) and happening.content.membership is Membership.JOIN
        return enters and role_of(modes) >= Role.MODERATOR

    def resync(self, name: str) -> list[Happening]:
        """The entries of those who are in a channel, and not shown yet."""
        channel = self.find(name)
        if channel is None:
            return []
        channel.names = {key: (channel.nicks.get(key, key), modes) for key, modes in channel.ranks.items()}
        return list(self._end_of_names(name))

    def give_up_split(self) -> Iterator[Happening]:
        """People who were lost in a split, and did not come back, have left."""
        for key, names in list(self.split.items()):
            self.split.pop(key)
            for name in names:
                channel = self.by_name.get(name)
                if channel is not None and key not in channel.ranks:
                    yield from self._leaves(channel, key, key, "lost in a split of the network")

    def _renamed(self, line: Line) -> Iterator[Happening]:
        old, new = self.features.fold(line.nick), self.features.fold(line.param(0))
        for channel in self.by_name.values():
            if old not in channel.ranks:
                continue
            rank, was_shown = channel.ranks[old], old in channel.shown
            if old != new:
                yield from self._leaves(channel, old, line.nick, f"is now known as {line.param(0)}")
            channel.forget(old)
            channel.ranks[new], channel.nicks[new] = rank, line.param(0)
            if was_shown and new not in self._ours:
                yield self._entry(channel, new, line.param(0))

    def _topic(self, name: str, nick: str, text: str) -> Iterator[Happening]:
        channel = self.find(name)
        if channel is None:
            return
        channel.topic = read_formatted(text).text
        if nick:
            yield from self._happening(channel, nick, Topic(text=channel.topic))

    def _names(self, line: Line) -> None:
        channel = self.find(line.param(2))
        if channel is None:
            return
        channel.names = channel.names if channel.names is not None else {}
        for word in line.param(3).split():
            modes, nick = self.features.split_prefixes(word)
            if nick and len(channel.names) < MAX_NAMES:
                channel.names[self.features.fold(nick)] = (nick.partition("!")[0], modes)

    def _end_of_names(self, name: str) -> Iterator[Happening]:
        """All of a channel is known: those who came and went while we were away, did so now."""
        channel = self.find(name)
        if channel is None or channel.names is None:
            return
        names, channel.names = channel.names, None
        channel.ranks = {key: modes for key, (_, modes) in names.items()}
        channel.nicks = {key: nick for key, (nick, _) in names.items()}
        for key in sorted(channel.shown - set(names)):
            if key not in self.split:
                yield from self._leaves(channel, key, key, "")
        for key, (nick, _) in sorted(names.items()):
            if key not in self._ours and key not in channel.shown and len(channel.shown) < self._members:
                yield self._entry(channel, key, nick)

    def _modes(self, line: Line) -> Iterator[Happening]:
        channel = self.find(line.param(0))
        if channel is None:
            return
        ranks = {mode for _, mode in self.features.prefixes}
        for added, letter, parameter in self.features.mode_changes(line.params[1:]):
            if letter in ranks:
                yield from self._ranked(channel, line.nick, added, letter, parameter)
            elif letter == "b":
                yield from self._ban_changed(channel, line.nick, added, parameter)
            elif letter not in self.features.list_modes:
                was_set = letter in channel.flags
                _set_flag(channel, added, letter, parameter)
                if letter == "i" and added != was_set and "!" in line.source:
                    yield from self._happening(
                        channel, line.nick, JoinRule(rule="invite" if added else "public")
                    )

    def _read_flags(self, name: str, words: Sequence[str]) -> None:
        channel = self.find(name)
        if channel is None:
            return
        channel.flags.clear()
        for added, letter, parameter in self.features.mode_changes(words):
            _set_flag(channel, added, letter, parameter)

    def _ranked(self, channel: Channel, by: str, added: bool, letter: str, nick: str) -> Iterator[Happening]:
        key = self.features.fold(nick)
        before = channel.ranks.get(key)
        if before is None:
            return
        now = channel.ranks[key] = (before | {letter}) if added else (before - {letter})
        user = self._user_of(key)
        changed = (role_of(before), channel.has_voice(before)) != (role_of(now), channel.has_voice(now))
        if user is None or not changed or "." in by:
            return
        if key not in self._ours and key not in channel.shown:
            yield self._entry(channel, key, channel.nicks.get(key, nick))
        content = Standing(user=user, role=role_of(now), voice=channel.has_voice(now))
        yield from self._happening(channel, by, content)

    def _ban_changed(self, channel: Channel, by: str, added: bool, mask: str) -> Iterator[Happening]:
        """A ban of a nick is one of a person; one of a pattern of many is IRC's own affair."""
        nick = mask.partition("!")[0]
        key = self.features.fold(nick)
        if not nick or re.search(r"[*?]", nick) or mask != f"{nick}!*@*":
            return
        if added and len(channel.banned) < MAX_BANS:
            channel.banned.add(key)
        elif not added:
            channel.banned.discard(key)
        if added:
            yield from self._banned(channel, by, key, "")
            return
        user = self._user_of(key)
        if user is not None:
            yield from self._happening(channel, by, Member(user=user, membership=Membership.LEAVE))

    def _banned(self, channel: Channel, by: str, key: str, reason: str) -> Iterator[Happening]:
        user = self._user_of(key)
        if user is not None:
            content = Member(user=user, membership=Membership.BAN, reason=plain_word(reason, 300))
            yield from self._happening(channel, by, content)
        channel.shown.discard(key)

    def _user_of(self, key: str) -> NativeId | None:
        """The person behind a nick, None for the bridge itself."""
        return self._ours.get(key) if key in self._ours else NativeId(self._network, key)


def _set_flag(channel: Channel, added: bool, letter: str, parameter: str) -> None:
    if added:
        channel.flags[letter] = parameter
    else:
        channel.flags.pop(letter, None)


def role_of(modes: frozenset[str]) -> Role:
    """The rank that modes of a person give: founder and admin own a channel, operators moderate it."""
    if modes & {"q", "a"}:
        return Role.OWNER
    return Role.MODERATOR if modes & {"o", "h"} else Role.MEMBER
