"""The EDUs between servers that the users of a room see.

SPEC: server-server API, "EDUs", "Typing Notifications", "Receipts". Only the well-formed part of an EDU is
read; the rest is ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from hansa_matrix.proto import ids

TYPING, RECEIPT, PRESENCE = "m.typing", "m.receipt", "m.presence"
PRESENCES = ("online", "unavailable", "offline")
#: Rooms and people of one receipts EDU that are read.
_MAX_ROOMS, _MAX_USERS = 100, 500
_MAX_TEXT = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class TypingEdu:
    """A user began or ceased to type in a room."""

    room_id: str
    user: str
    typing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptEdu:
    """A user has read up to an event; ``thread`` is empty for the room, ``main`` or a thread's root."""

    room_id: str
    user: str
    event_id: str
    ts: int
    thread: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PresenceEdu:
    """A user is online, away or offline; ``ago`` is when they were last active, in ms before now."""

    user: str
    presence: str
    last_active_ago: int = 0
    active: bool = False
    status: str = ""


def parse_typing(content: Mapping[str, Any], origin: str) -> TypingEdu | None:
    """The content of ``m.typing``; None if it is malformed or of another server's user."""
    room_id, user, typing = content.get("room_id"), content.get("user_id"), content.get("typing")
    if not ids.is_valid_room_id(room_id) or not _is_of_origin(user, origin) or not isinstance(typing, bool):
        return None
    return TypingEdu(room_id=str(room_id), user=str(user), typing=typing)


def parse_receipts(content: Mapping[str, Any], origin: str) -> Iterator[ReceiptEdu | None]:
    """The receipts that ``m.receipt`` holds of the server's own users, None for each that is malformed or of
    another's. Private ones never cross.
    """
    for room_id, kinds in islice(content.items(), _MAX_ROOMS):
        read = kinds.get("m.read") if isinstance(kinds, dict) and ids.is_valid_room_id(room_id) else None
        if not isinstance(read, dict):
            yield None
            continue
        for user, entry in islice(read.items(), _MAX_USERS):
            yield _parse_receipt(room_id, user, entry) if _is_of_origin(user, origin) else None


def _parse_receipt(room_id: str, user: str, entry: object) -> ReceiptEdu | None:
    if not isinstance(entry, dict):
        return None
    named, data = entry.get("event_ids"), entry.get("data")
    if not isinstance(named, list) or len(named) != 1 or not ids.is_valid_event_id(named[0]):
        return None
    fields = data if isinstance(data, dict) else {}
    ts, thread = fields.get("ts"), fields.get("thread_id", "")
    if type(ts) is not int or not 0 <= ts < 2**53 or not isinstance(thread, str) or len(thread) > _MAX_TEXT:
        return None
    return ReceiptEdu(room_id=room_id, user=user, event_id=named[0], ts=ts, thread=thread)


def parse_presence(content: Mapping[str, Any], origin: str) -> Iterator[PresenceEdu]:
    """Yields the presence of the server's own users in an ``m.presence``."""
    push = content.get("push")
    for one in islice(push, _MAX_USERS) if isinstance(push, list) else ():
        if not isinstance(one, dict) or not _is_of_origin(one.get("user_id"), origin):
            continue
        ago, status = one.get("last_active_ago", 0), one.get("status_msg")
        if one.get("presence") not in PRESENCES or type(ago) is not int or not 0 <= ago < 2**53:
            continue
        yield PresenceEdu(
            user=one["user_id"],
            presence=one["presence"],
            last_active_ago=ago,
            active=one.get("currently_active") is True,
            status=status[:_MAX_TEXT] if isinstance(status, str) else "",
        )


def presence_edu(*people: PresenceEdu) -> dict[str, Any]:
    """As it is sent."""
    return {"edu_type": PRESENCE, "content": {"push": [_presence_entry(one) for one in people]}}


def _presence_entry(one: PresenceEdu) -> dict[str, Any]:
    said: dict[str, Any] = {
        "user_id": one.user,
        "presence": one.presence,
        "last_active_ago": one.last_active_ago,
    }
    said |= {"currently_active": True} if one.active else {}
    said |= {"status_msg": one.status} if one.status else {}
    return said


def _is_of_origin(user: object, origin: str) -> bool:
    return isinstance(user, str) and ids.is_valid_user_id(user) and ids.domain_of(user) == origin


def typing_edu(typing: TypingEdu) -> dict[str, Any]:
    """As it is sent."""
    content = {"room_id": typing.room_id, "user_id": typing.user, "typing": typing.typing}
    return {"edu_type": TYPING, "content": content}


def receipt_edu(receipt: ReceiptEdu) -> dict[str, Any]:
    """As it is sent."""
    data = {"ts": receipt.ts} | ({"thread_id": receipt.thread} if receipt.thread else {})
    entry = {"event_ids": [receipt.event_id], "data": data}
    return {"edu_type": RECEIPT, "content": {receipt.room_id: {"m.read": {receipt.user: entry}}}}
