"""The people, servers and texts of a crossing: the same three questions for every member of the union.

The answers follow from the names of its fields, so that a policy judges a new kind of crossing by the rules
it has already. ``ROLES`` has every field of every kind; a test fails for one that it lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final, assert_never

from hansa.model.content import (
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
from hansa.model.crossing import Crossing, EphemeralIn, EphemeralOut, EventIn, EventOut
from hansa.model.readable_text import readings
from hansa.model.ref import NativeId
from hansa.model.spans import SpanKind

SERVER: Final = "server"
PERSON: Final = "person"
TEXT: Final = "text"
OTHER: Final = "other"

#: The role of each field: a server's name (or several), a person (or several), a string to read (or several),
#: or
#: neither of them.
ROLES: Final = {
    "server": SERVER,
    "servers": SERVER,
    "user_server": SERVER,
    "sender_server": SERVER,
    "user": PERSON,
    "users": PERSON,
    "sender": PERSON,
    "invited": PERSON,
    "texts": TEXT,
    "name": TEXT,
    "type": TEXT,
    "address": TEXT,
    "account": TEXT,
    # Ids, and what is looked at through the link, the view, the content and the facts.
    "network": OTHER,
    "room": OTHER,
    "media": OTHER,
    "version": OTHER,
    "kind": OTHER,
    "size": OTHER,
    "outbound": OTHER,
    "federated": OTHER,
    "immutable": OTHER,
    "again": OTHER,
    "link": OTHER,
    "view": OTHER,
    "content": OTHER,
    "facts": OTHER,
    # An operator is not kept from naming a thing.
    "command": OTHER,
    "arguments": OTHER,
}

#: The weight of a question without texts, and of an empty string.
_ASKING, _STRING = 64, 8


def peers_of(crossing: Crossing) -> frozenset[str]:
    """The names of the servers concerned: who speaks, and who would get it. Every server with a user in a
    room, on any network, gets what leaves for it.
    """
    match crossing:
        case EventIn():
            return frozenset({crossing.facts.sender_server})
        case EventOut():
            servers, more = crossing.view.servers(), crossing.facts.room_servers
            return servers if more <= servers else servers | more
        case EphemeralOut():
            return crossing.view.servers()
        case _:
            return frozenset(_parts_of(crossing, SERVER))


def people_of(crossing: Crossing) -> tuple[NativeId, ...]:
    """The users concerned. An outbound crossing names no users: it was judged by its users where it came
    in.
    """
    match crossing:
        case EventIn():
            about = crossing.facts.people
            if isinstance(crossing.content, Member | Standing) and crossing.content.user != crossing.sender:
                about = (crossing.content.user, *about)
            return (crossing.sender, *about)
        case EventOut() | EphemeralOut():
            return ()
        case _:
            return tuple(_parts_of(crossing, PERSON))


def texts_of(crossing: Crossing) -> tuple[str, ...]:
    """Every string in it that a person may read, and what is read of those that hold markup. An ``EventOut``
    was judged by its texts where it came in.
    """
    match crossing:
        case EventIn():
            return readings(words_of(crossing.content) + crossing.facts.texts)
        case EventOut():
            return ()
        case _:
            return readings(_parts_of(crossing, TEXT))


def weight_of(crossing: Crossing) -> int:
    """About how much there is to read in it: characters, and some for each string and for the asking."""
    match crossing:
        case EventIn():
            texts: Sequence[str] = words_of(crossing.content) + crossing.facts.texts
        case EventOut():
            texts = ()
        case _:
            texts = _parts_of(crossing, TEXT)
    return _ASKING + _STRING * len(texts) + sum(map(len, texts))


def named_by(crossing: Crossing) -> int:
    """The characters of the names in a question that is about names; those of a room are known by now."""
    if isinstance(crossing, EventIn | EventOut | EphemeralIn | EphemeralOut):
        return 0
    people: list[NativeId] = _parts_of(crossing, PERSON)
    servers: list[str] = _parts_of(crossing, SERVER)
    return sum(map(len, servers)) + sum(len(user.id) for user in people)


def source_of(crossing: Crossing) -> tuple[str, str]:
    """Returns the server and the person that cause a question, as far as they are named."""
    if isinstance(crossing, EventIn):
        return crossing.facts.sender_server, str(crossing.sender)
    names = ("sender_server", "user_server", "server")
    server = next((getattr(crossing, name) for name in names if hasattr(crossing, name)), "")
    person = getattr(crossing, "sender", None) or getattr(crossing, "user", None)
    return server, str(person or "")


def words_of(content: Content) -> tuple[str, ...]:
    """The strings of a content that a person may read."""
    match content:
        case Message():
            return _words_of_message(content)
        case Edit():
            return _words_of_message(content.message)
        case Reaction():
            return (content.key,)
        case Name() | Topic() | Custom() | Upgrade() | PollEnd() | Call():
            return (content.text,)
        case Member():
            return (content.name or "", content.reason)
        case Retraction() | Report():
            return (content.reason,)
        case Location():
            return (content.text, content.uri)
        case PollStart():
            return (content.question, *(answer.text for answer in content.answers))
        case PollVote():
            return content.answers
        case JoinRule():
            return (content.rule,)
        case HistoryVisibility():
            return (content.visibility,)
        case Encrypted() | Avatar() | Standing():
            return ()
    assert_never(content)


def _words_of_message(message: Message) -> tuple[str, ...]:
    if not message.spans and not message.attachments and not message.language:
        return (message.text,)
    values = (span.value for span in message.spans if span.value and span.kind is not SpanKind.LIST_ITEM)
    files = (word for one in message.attachments for word in (one.name, one.media_type))
    return (message.text, *dict.fromkeys((*values, *files, *filter(None, [message.language]))))


def _parts_of(crossing: Crossing, role: str) -> list[Any]:
    found: list[Any] = []
    for field in fields(crossing):
        if ROLES.get(field.name) == role:
            value = getattr(crossing, field.name)
            found += value if isinstance(value, tuple | frozenset) else [value]
    return found
