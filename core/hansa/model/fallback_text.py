"""The words in which content is told to people whose network cannot show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from hansa.model.content import (
    Attachment,
    Avatar,
    Call,
    Content,
    Custom,
    Edit,
    Encrypted,
    HistoryVisibility,
    JoinRule,
    Location,
    Member,
    Membership,
    Message,
    Name,
    PollEnd,
    PollStart,
    PollVote,
    Reaction,
    Report,
    Retraction,
    Standing,
    Topic,
    Upgrade,
)
from hansa.model.content import Kind as _Kind
from hansa.model.role import Role
from hansa.model.spans import Formatted, plain_text
from hansa.model.view import display_of

if TYPE_CHECKING:
    from hansa.model.events import Event

#: Characters of what is answered that a quote repeats, and of a reaction.
_MAX_QUOTE, _MAX_KEY = 120, 64


def _no_link(_: Attachment) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The surroundings of an event, for words about it. ``target`` is the event that it concerns, as its
    reader may see it, and ``target_name`` the name of who said that. ``link_of`` returns where a file can be
    read, empty if nowhere.
    """

    target: Event | None = None
    target_name: str = ""
    link_of: Callable[[Attachment], str] = _no_link


NOTHING_AROUND = Surroundings()

#: The phrase for a change of membership, after the person's name.
_BECAME = {
    Membership.JOIN: "is here",
    Membership.LEAVE: "is gone",
    Membership.INVITE: "is invited",
    Membership.KNOCK: "asks to be let in",
    Membership.BAN: "is banned",
}
_RANKS = {
    Role.NONE: "has no rank",
    Role.VISITOR: "is a visitor",
    Role.MEMBER: "is a member",
    Role.MODERATOR: "is a moderator",
    Role.OWNER: "is an owner",
}
_WHO_ENTERS = {
    "public": "everybody may enter",
    "invite": "only people who are invited may enter",
    "knock": "people may ask to be let in",
    "restricted": "members of certain rooms may enter",
}
_WHO_READS = {
    "world_readable": "everybody may read the history",
    "shared": "members may read the whole history",
    "invited": "members may read what was said since they were invited",
    "joined": "members may read what was said since they joined",
}
_SORTS = {"image": "picture", "video": "video", "audio": "audio"}
_NAMES = {
    _Kind.EDIT: "an edit",
    _Kind.LOCATION: "a location",
    _Kind.POLL_START: "a poll",
    _Kind.POLL_VOTE: "a vote",
}


def fallback_text(content: Content, around: Surroundings = NOTHING_AROUND) -> str:
    """``content`` in words; empty where there are none."""
    match content:
        case Message():
            return words_of_message(content, around)
        case Edit():
            return f"edited: {words_of_message(content.message, around)}"
        case Reaction():
            return f"[reacted with {content.key[:_MAX_KEY]}{_to_target(around)}]"
        case Retraction():
            return _retraction(content, around)
        case Member():
            why = f": {content.reason}" if content.reason else ""
            return f"[{content.name or content.user.id} {_BECAME[content.membership]}{why}]"
        case Standing():
            mute = "" if content.voice else ", without voice"
            return f"[{display_of(content.user)} {_RANKS[content.role]}{mute}]"
        case Name():
            return f"[the room is called: {content.text}]" if content.text else "[the room has no name]"
        case Topic():
            return f"[the topic is: {content.text}]" if content.text else "[the room has no topic]"
        case Avatar():
            return "[the room has a new picture]" if content.source else "[the room has no picture]"
        case JoinRule():
            return f"[{_WHO_ENTERS.get(content.rule, 'it changed who may enter')}]"
        case HistoryVisibility():
            return f"[{_WHO_READS.get(content.visibility, 'it changed who may read the history')}]"
        case Upgrade():
            return f"[the room continues in another one{_said(content.text)}]"
        case Report():
            return f"[reported a message{_said(content.reason)}]"
        case Location():
            return f"[location{_said(content.text)}] {content.uri}".rstrip()
        case PollStart():
            answers = "".join(f"\n{number}. {a.text}" for number, a in enumerate(content.answers, 1))
            return f"[poll: {content.question}]{answers}"
        case PollVote():
            return f"[voted: {_answers(content, around)}]"
        case PollEnd():
            return f"[the poll is over{_said(content.text)}]"
        case Call():
            return f"[calls the room{_said(content.text)}]"
        case Encrypted():
            return "[encrypted message, not readable here]"
        case Custom():
            return content.text
    assert_never(content)


def words_of_message(message: Message, around: Surroundings = NOTHING_AROUND) -> str:
    """A message with its formatting, its files and what it answers, in words."""
    text = plain_text(Formatted(text=message.text, spans=message.spans)) if message.spans else message.text
    return "\n".join(filter(None, [quote_of(message, around), text, *_files(message, around)]))


def quote_of(message: Message, around: Surroundings) -> str:
    """The line that says what a message answers: ``> words``. Empty if it answers nothing that is known."""
    if not message.reply_to or around.target is None:
        return ""
    words = excerpt_of(around.target.content)
    if not words:
        return ""
    return f"> {around.target_name}: {words}" if around.target_name else f"> {words}"


def files_of(message: Message, around: Surroundings) -> str:
    """A line for each file of a message: ``[picture balcony.png, 120 KB] LINK``."""
    return "\n".join(_files(message, around))


def excerpt_of(content: Content) -> str:
    """The first words of a content, in one line."""
    if isinstance(content, Edit):
        content = content.message
    if isinstance(content, Message):
        text = content.text or " ".join(file.name for file in content.attachments)
    else:
        text = fallback_text(content)
    line = " ".join(text[: 4 * _MAX_QUOTE].split())
    return line if len(line) <= _MAX_QUOTE else f"{line[: _MAX_QUOTE - 1].rstrip()}…"


def size_in_words(size: int) -> str:
    """A number of bytes for people: ``120 KB``."""
    if size < 1000:
        return f"{size} bytes"
    for unit in ("KB", "MB"):
        size = round(size / 1000)
        if size < 1000:
            return f"{size} {unit}"
    return f"{round(size / 1000)} GB"


def _files(message: Message, around: Surroundings) -> list[str]:
    return [_file(one, around) for one in message.attachments]


def _file(attachment: Attachment, around: Surroundings) -> str:
    sort = (
        "voice message" if attachment.voice else _SORTS.get(attachment.media_type.partition("/")[0], "file")
    )
    said = ", ".join(
        filter(None, [attachment.name, size_in_words(attachment.size) if attachment.size else ""])
    )
    return f"[{sort} {said}] {around.link_of(attachment)}".rstrip()


def _said(text: str) -> str:
    return f": {text}" if text else ""


def _to_target(around: Surroundings) -> str:
    words = excerpt_of(around.target.content) if around.target is not None else ""
    return f" to “{words}”" if words else ""


def _retraction(content: Retraction, around: Surroundings) -> str:
    if content.of is _Kind.REACTION:
        return ""
    what = _NAMES.get(content.of, "a message")
    whose = f" of {around.target_name}" if around.target_name else ""
    return f"[{what}{whose} was removed{_said(content.reason)}]"


def _answers(content: PollVote, around: Surroundings) -> str:
    target = around.target.content if around.target is not None else None
    offered = {a.id: a.text for a in target.answers} if isinstance(target, PollStart) else {}
    return ", ".join(offered.get(one, one) for one in content.answers) or "nothing"
