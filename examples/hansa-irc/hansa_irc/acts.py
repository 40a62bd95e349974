"""What people of other networks do to a channel and to those in it, and what becomes of an act on IRC that
the room refuses: it is undone where the bridge is an operator of the channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from hansa import (
    Content,
    DeliveryRejected,
    JoinRule,
    LruCache,
    Member,
    Membership,
    Message,
    NativeId,
    NetworkContext,
    Refusal,
    RetryLater,
    Role,
    Standing,
    Style,
    Topic,
    display_of,
    fallback_text,
)

from hansa_irc.channels import Channel, Channels, Happening, role_of
from hansa_irc.connection import Connection, ConnectionLost
from hansa_irc.direct import people_of_chat
from hansa_irc.formatting import plain_word
from hansa_irc.inbound import Inbound
from hansa_irc.lines import Line, divide_text, format_line, is_nick, room_for_text
from hansa_irc.puppets import Puppets

#: Refused acts that wait to be undone; further ones stand, and are counted.
_MAX_WAITING = 200
#: Refusals of messages that their senders were told, each once.
_MAX_TOLD = 5000
_RETRY_S = 5.0


class ChannelActs:
    """The acts in all channels. ``connection`` returns that of the bridge, or raises RetryLater."""

    def __init__(
        self,
        ctx: NetworkContext,
        channels: Channels,
        puppets: Puppets,
        connection: Callable[[], Connection],
    ) -> None:
        self._ctx, self._channels, self._puppets, self._connection = ctx, channels, puppets, connection
        self._refused: asyncio.Queue[tuple[Happening, Refusal]] = asyncio.Queue(_MAX_WAITING)
        self._told: LruCache[tuple[str, str, str], bool] = LruCache(_MAX_TOLD)

    async def set_topic(self, channel: str, content: Topic) -> Message | None:
        """Sets a topic. Returns what is to be said where it does not fit, or the bridge may not set it."""
        known = self._channels.find(channel)
        text = " ".join(content.text.split())
        if known is not None and known.topic == text:
            return None
        own = self._connection()
        fitting = next(divide_text(text, room_for_text(own.shown_source, "TOPIC", channel)), "")
        if fitting == text and not await own.tell(format_line("TOPIC", channel, text)):
            if known is not None:
                known.topic = text
            return None
        return Message(text=f"[the topic is: {content.text}]", style=Style.NOTICE)

    async def set_join_rule(self, channel: str, content: JoinRule) -> Message | None:
        """Sets or removes ``+i``. Returns what is to be said where the bridge may not."""
        known = self._channels.find(channel)
        if known is None or ("i" in known.flags) == (content.rule != "public"):
            return None
        sign = "-" if content.rule == "public" else "+"
        if not await self._connection().tell(format_line("MODE", channel, f"{sign}i")):
            return None
        return Message(text=fallback_text(content), style=Style.NOTICE)

    async def change_member(self, channel: str, sender: NativeId, content: Member) -> None:
        """Kicks, bans, pardons and invites people of IRC; a puppet leaves with the person."""
        if content.user.network != self._ctx.id:
            if content.membership is not Membership.JOIN:
                await self._puppets.leave(content.user, channel, plain_word(content.reason, 200) or "left")
            return
        known = self._channels.find(channel)
        key = content.user.id
        if not is_nick(key):  # a ban of "*" would be one of everybody, whatever rank they have
            raise DeliveryRejected(f"{key[:40]!r} cannot be a nick")
        lines: list[bytes] = []
        if content.membership is Membership.BAN:
            lines.append(format_line("MODE", channel, "+b", f"{key}!*@*"))
        elif content.former_membership is Membership.BAN:
            lines.append(format_line("MODE", channel, "-b", f"{key}!*@*"))
        leaves = content.membership in {Membership.BAN, Membership.LEAVE}
        if leaves and known is not None and key in known.ranks:
            by = plain_word(self._name_of(sender, channel), 32)
            reason = plain_word(f"by {by}: {content.reason}" if content.reason else f"by {by}", 200)
            lines.append(format_line("KICK", channel, key, reason))
        elif content.membership is Membership.INVITE:
            lines.append(format_line("INVITE", key, channel))
        if lines and (refused := await self._connection().tell(*lines)):
            raise DeliveryRejected(reason_of(refused))

    async def change_standing(self, channel: str, content: Standing) -> None:
        """Gives or takes ``o``, and ``v`` where the channel is moderated."""
        known, nick = self._channels.find(channel), self._nick_of(content.user)
        if known is None or nick is None:
            self._ctx.count("irc_not_shown", kind=content.kind.value)
            return
        line = self._standing_line(known, nick, content)
        if line is not None and (refused := await self._connection().tell(line)):
            raise DeliveryRejected(reason_of(refused))

    def on_refused(self, happening: Happening, refusal: Refusal) -> None:
        """The core has refused what a person did on IRC."""
        try:
            self._refused.put_nowait((happening, refusal))
        except asyncio.QueueFull:
            self._ctx.count("irc_refusals_dropped")

    async def run(self, inbound: Inbound) -> None:
        """Undoes refused acts for ever, and tells those who did them."""
        while True:
            happening, refusal = await self._refused.get()
            while True:
                try:
                    await self._answer(happening, refusal, inbound)
                except (ConnectionLost, RetryLater):
                    # Without the connection nobody is told: who acted may be gone when it is back.
                    await asyncio.sleep(_RETRY_S)
                else:
                    break

    async def _answer(self, happening: Happening, refusal: Refusal, inbound: Inbound) -> None:
        channel, content = self._channels.find(happening.channel), happening.content
        if (chat := people_of_chat(happening.channel)) is not None:
            await self._tell_in_chat(happening, chat[1], refusal)
        if channel is None or happening.sender in self._puppets.ours:
            return
        own = self._connection()
        may = role_of(channel.ranks.get(self._channels.features.fold(own.nick), frozenset()))
        lines = self._undo_lines(channel, happening) if may >= Role.MODERATOR else []
        undone = bool(lines) and not await own.tell(*lines)
        if isinstance(content, Member) and content.membership in {Membership.LEAVE, Membership.BAN}:
            await self._follow_kick(channel, happening.sender, content, inbound)
        told = (happening.channel, happening.sender, f"{content.kind} {refusal.code}")
        if self._is_act(happening) or told not in self._told:
            self._told.put(told, True)
            after = ", and it is undone here" if undone else ""
            text = plain_word(
                f"[{channel.name}] the other networks do not take this ({_in_words(content)}): "
                f"{refusal.text}{after}",
                300,
            )
            await own.tell(format_line("NOTICE", happening.sender, text))

    async def _tell_in_chat(self, happening: Happening, other: NativeId, refusal: Refusal) -> None:
        """A private message was refused: the puppet that got it says so."""
        connection = self._puppets.find(other)
        if connection is not None:
            reason = plain_word(f"your message was not delivered: {refusal.text}", 300)
            await connection.tell(format_line("NOTICE", happening.sender, reason))

    def _is_act(self, happening: Happening) -> bool:
        content = happening.content
        if isinstance(content, Member):
            return content.user.id != happening.sender
        return isinstance(content, Standing | Topic | JoinRule)

    def _undo_lines(self, channel: Channel, happening: Happening) -> list[bytes]:
        """The lines that make the channel again what the room is."""
        view = self._ctx.get_view(happening.channel)
        if view is None:
            return []
        name = happening.channel
        match happening.content:
            case Topic():
                text = " ".join(view.facts.topic.split())
                room = room_for_text(self._connection().shown_source, "TOPIC", name)
                channel.topic = next(divide_text(text, room), "")
                return [format_line("TOPIC", name, channel.topic)]
            case JoinRule():
                return [format_line("MODE", name, "-i" if view.facts.join_rule == "public" else "+i")]
            case Standing(user=user):
                row, nick = view.person(user), self._nick_of(user)
                right = Standing(
                    user=user, role=row.role if row else Role.MEMBER, voice=row.voice if row else True
                )
                line = self._standing_line(channel, nick, right) if nick is not None else None
                return [line] if line is not None else []
            case Member() as content:
                return self._undo_member(name, happening.sender, content, view.membership(content.user))
            case _:
                return []

    def _undo_member(self, name: str, sender: str, content: Member, before: Membership | None) -> list[bytes]:
        nick = self._nick_of(content.user)
        if nick is None:
            return []
        if content.user.network == self._ctx.id and content.user.id == sender:
            banned = content.membership is Membership.JOIN and before is Membership.BAN
            return [format_line("KICK", name, nick, "you are banned from this room")] if banned else []
        mask = f"{self._channels.features.fold(nick)}!*@*"
        if content.membership is Membership.BAN and before is not Membership.BAN:
            return [format_line("MODE", name, "-b", mask)]
        if content.membership is Membership.LEAVE and before is Membership.BAN:
            return [format_line("MODE", name, "+b", mask)]
        if content.membership is Membership.LEAVE and content.user.network == self._ctx.id:
            return [format_line("INVITE", nick, name)]
        return []

    async def _follow_kick(self, channel: Channel, sender: str, content: Member, inbound: Inbound) -> None:
        """After a kick that the room refuses, a puppet comes back, and a person of IRC has left."""
        user, name = content.user, self._channels.features.fold(channel.name)
        if user.network != self._ctx.id:
            await self._puppets.enter(user, name, channel.flags.get("k", ""))
        elif user.id not in {sender, *channel.ranks}:
            channel.shown.discard(user.id)
            gone = Member(user=user, membership=Membership.LEAVE, reason=content.reason)
            await inbound.put(Happening(channel=name, sender=user.id, content=gone))

    def _standing_line(self, channel: Channel, nick: str, standing: Standing) -> bytes | None:
        modes = channel.ranks.get(self._channels.features.fold(nick))
        return standing_line(channel, nick, modes, standing) if modes is not None else None

    def _nick_of(self, user: NativeId) -> str | None:
        if user.network == self._ctx.id:
            return user.id
        puppet = self._puppets.find(user)
        return puppet.nick if puppet is not None else None

    def _name_of(self, person: NativeId, channel: str) -> str:
        view = self._ctx.get_view(channel)
        return view.name_of(person) if view is not None else display_of(person)


def standing_line(channel: Channel, nick: str, modes: frozenset[str], standing: Standing) -> bytes | None:
    """The change that gives a nick with ``modes`` a standing, None if it has it.

    Every rank from a moderator on is an operator. Voice is given and taken where the channel is moderated.
    """
    changes, count = "", 0
    leads = standing.role >= Role.MODERATOR
    if leads and role_of(modes) < Role.MODERATOR:
        changes, count = "+o", 1
    elif not leads and role_of(modes) >= Role.MODERATOR:
        taken = [letter for letter in "qaoh" if letter in modes]
        changes, count = "-" + "".join(taken), len(taken)
    if channel.is_moderated and not leads and standing.voice != ("v" in modes):
        changes, count = changes + ("+v" if standing.voice else "-v"), count + 1
    return format_line("MODE", channel.name, changes, *[nick] * count) if changes else None


def reason_of(errors: Sequence[Line]) -> str:
    """The words of the server for the first of its errors."""
    return plain_word(errors[0].params[-1], 200) if errors and errors[0].params else ""


def _in_words(content: Content) -> str:
    if isinstance(content, Member):
        return {Membership.BAN: "a ban", Membership.LEAVE: "a kick"}.get(content.membership, "an entry")
    return content.kind.value.replace("-", " ")
