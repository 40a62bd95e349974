"""The rules of content that concerns an earlier event: edits, reactions, retractions, votes, reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hansa.model.content import (
    Content,
    Custom,
    Edit,
    Kind,
    Member,
    Message,
    PollEnd,
    PollStart,
    PollVote,
    Retraction,
    Targeted,
    target_of,
)
from hansa.model.events import Event, Refusal, RefusalCode
from hansa.model.ref import NativeId
from hansa.model.role import Role
from hansa.model.view import RoomView

#: The kinds that people say, and that can be taken back.
_SAID = frozenset(
    {
        Kind.MESSAGE,
        Kind.EDIT,
        Kind.REACTION,
        Kind.LOCATION,
        Kind.POLL_START,
        Kind.POLL_VOTE,
        Kind.POLL_END,
        Kind.CALL,
        Kind.ENCRYPTED,
    }
)


def check_target(
    content: Targeted, target: Event | None, sender: NativeId, view: RoomView, *, decided: bool
) -> Refusal | None:
    """Returns why ``sender`` cannot say this about ``target``, None if they can. ``decided``: it comes from
    the room's authority, whose rules say who may retract what others said.
    """
    if target is None:
        return Refusal(code=RefusalCode.NOT_FOUND, text="the message that this is about is not known")
    match content:
        case Edit():
            return _check_edit(target, sender)
        case PollVote() | PollEnd():
            return _check_poll(content, target, sender, view)
        case Retraction() if not decided:
            return _check_retraction(target, sender, view)
        case _:
            return None


def with_known_target(content: Content, target: Event | None) -> Content:
    """``content`` as it enters the log: a reply to what is not known answers nothing, and a retraction says
    what it takes back.
    """
    match content:
        case Message() if content.reply_to and target is None:
            return replace(content, reply_to="")
        case Edit() if content.message.reply_to:
            return replace(content, message=replace(content.message, reply_to=""))
        case Retraction() if target is not None:
            return replace(content, of=target.content.kind, of_target=target_of(target.content))
        case _:
            return content


def named_events(content: Content) -> tuple[str, ...]:
    """The ids of events that a content names, that of its target first."""
    message = content.message if isinstance(content, Edit) else content
    thread = message.thread if isinstance(message, Message) else ""
    return tuple(dict.fromkeys(one for one in (target_of(content), thread) if one))


def with_event_ids(content: Content, ids: Mapping[str, str]) -> Content:
    """``content`` with ids of the core in the place of the native ids that are the keys of ``ids``."""
    match content:
        case Message():
            reply_to, thread = ids.get(content.reply_to, ""), ids.get(content.thread, "")
            return replace(content, reply_to=reply_to, thread=thread)
        case Edit():
            message = with_event_ids(content.message, ids)
            assert isinstance(message, Message)
            return replace(content, target=ids.get(content.target, ""), message=message)
        case _ if isinstance(content, Targeted):
            return replace(content, target=ids.get(content.target, ""))
        case _:
            return content


def without_target(content: Content) -> Content:
    """What stands in the log for content that concerns nothing that it may: its words are not shown."""
    return Custom(type=content.kind.value)


def _check_edit(target: Event, sender: NativeId) -> Refusal | None:
    if target.sender != sender:
        return Refusal(code=RefusalCode.FORBIDDEN, text="only who said it may edit it")
    if not isinstance(target.content, Message):
        return Refusal(code=RefusalCode.INVALID, text="only a message can be edited")
    return None


def _check_poll(
    content: PollVote | PollEnd, target: Event, sender: NativeId, view: RoomView
) -> Refusal | None:
    if not isinstance(target.content, PollStart):
        return Refusal(code=RefusalCode.INVALID, text="this is not about a poll")
    if isinstance(content, PollEnd) and target.sender != sender and not _is_moderator(sender, view):
        return Refusal(code=RefusalCode.FORBIDDEN, text="only who began the poll, or a moderator, may end it")
    return None


def _check_retraction(target: Event, sender: NativeId, view: RoomView) -> Refusal | None:
    if target.sender != sender and not _is_moderator(sender, view):
        return Refusal(code=RefusalCode.FORBIDDEN, text="only who said it, or a moderator, may retract it")
    if target.content.kind not in _SAID or isinstance(target.content, Member):
        return Refusal(code=RefusalCode.INVALID, text="this cannot be retracted")
    return None


def _is_moderator(user: NativeId, view: RoomView) -> bool:
    person = view.person(user)
    return person is not None and person.role >= Role.MODERATOR
