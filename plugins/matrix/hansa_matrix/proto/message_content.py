"""The content of messages, reactions, polls and calls, read from any JSON that a peer may send.

A field that is missing or of another type counts as absent. Every list is bounded.

SPEC: client-server API, "Instant Messaging", "Forming relationships between events", "Rich replies",
"Threading", "User and room mentions"; MSC3381 (polls), MSC3245 (voice messages).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from hansa import Attachment, NativeId, PollAnswer, PollStart, truncate_utf8
from hansa.model.media_types import parse_media_type, sanitise_name

from hansa_matrix.proto.ids import is_valid_event_id, is_valid_user_id
from hansa_matrix.proto.media import parse_mxc
from hansa_matrix.proto.state_content import string_field

#: People that one message can mention.
MAX_MENTIONS: Final = 10
#: Answers of a poll that are read, and bytes of an answer's id.
MAX_ANSWERS: Final = 20
_MAX_ANSWER_ID: Final = 255
#: Bytes of the key of a reaction.
MAX_KEY: Final = 1024
_MAX_URI: Final = 1024
#: The greatest number that JSON has exactly.
_MAX_NUMBER: Final = 2**53 - 1
REPLACE: Final = "m.replace"
ANNOTATION: Final = "m.annotation"
THREAD: Final = "m.thread"
REFERENCE: Final = "m.reference"
#: Types of the events of polls: as in the proposal, and with the prefix that released clients send.
POLL_STARTS: Final = frozenset({"m.poll.start", "org.matrix.msc3381.poll.start"})
POLL_VOTES: Final = frozenset({"m.poll.response", "org.matrix.msc3381.poll.response"})
POLL_ENDS: Final = frozenset({"m.poll.end", "org.matrix.msc3381.poll.end"})
#: Types by which a call is announced, and of the state that keeps who is in it.
CALLS: Final = frozenset({"m.call.invite", "m.call.notify", "org.matrix.msc4075.call.notify"})
CALL_MEMBERS: Final = frozenset({"m.call.member", "org.matrix.msc3401.call.member"})
#: The kinds of message that bring a file.
FILES: Final = frozenset({"m.image", "m.file", "m.audio", "m.video"})
_VOICE = ("org.matrix.msc3245.voice", "m.voice")


@dataclass(frozen=True, slots=True)
class Relation:
    """``m.relates_to`` of an event. ``kind`` and ``target`` are empty for a reply that is nothing else;
    ``reply_to`` is empty for an event that answers none. ``key`` is that of an annotation.
    """

    kind: str = ""
    target: str = ""
    reply_to: str = ""
    key: str = ""


_NO_RELATION: Final = Relation()


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _event(value: Any) -> str:
    return value if isinstance(value, str) and is_valid_event_id(value) else ""


def _number(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= _MAX_NUMBER else 0


def relation(content: Mapping[str, Any]) -> Relation:
    """The relation of an event to earlier ones."""
    said = content.get("m.relates_to")
    if not isinstance(said, Mapping):
        return _NO_RELATION
    kind, target = string_field(said, "rel_type") or "", _event(said.get("event_id"))
    reply_to = _event(_object(said.get("m.in_reply_to")).get("event_id"))
    if kind == THREAD and said.get("is_falling_back") is True:
        reply_to = ""  # it names an event for clients that know no threads
    if not target:
        kind = ""
    return Relation(
        kind=kind, target=target if kind else "", reply_to=reply_to, key=string_field(said, "key") or ""
    )


def new_content(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The content that an edit puts in the place of its target's."""
    new = content.get("m.new_content")
    return new if isinstance(new, Mapping) else None


def mentioned_users(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The ids of the people that a message mentions, ``MAX_MENTIONS`` at most."""
    listed = _object(content.get("m.mentions")).get("user_ids")
    if not listed or not isinstance(listed, list):
        return ()
    named = dict.fromkeys(one for one in listed if is_valid_user_id(one))
    return tuple(islice(named, MAX_MENTIONS))


def without_reply_fallback(body: str) -> str:
    """The body of a reply without the quoted lines that older clients put before it; as it is where
    nothing else stands in it.
    """
    if not body.startswith(("> <@", "> * <@")):
        return body
    lines = body.split("\n")
    quoted = next((number for number, line in enumerate(lines) if not line.startswith(">")), len(lines))
    if quoted < len(lines) and not lines[quoted]:
        quoted += 1
    return "\n".join(lines[quoted:]) or body


def attachment(content: Mapping[str, Any], network: str) -> Attachment:
    """The file of a message. ``network`` is the id of the Matrix network, which keeps the bytes; an encrypted
    file has no source.
    """
    info = _object(content.get("info"))
    name = string_field(content, "filename") or string_field(content, "body") or ""
    return Attachment(
        name=truncate_utf8(sanitise_name(name.split("\n", 1)[0]), 255) or "file",
        media_type=parse_media_type(info.get("mimetype")),
        size=_number(info.get("size")),
        width=_number(info.get("w")),
        height=_number(info.get("h")),
        duration=_number(info.get("duration")),
        source=file_id(string_field(content, "url"), network),
        thumbnail=file_id(string_field(info, "thumbnail_url"), network),
        voice=any(isinstance(content.get(name), Mapping) for name in _VOICE),
    )


def file_id(url: str | None, network: str) -> NativeId | None:
    """The id of a file by its ``mxc:`` URI, None for any other address."""
    return NativeId(network, url) if url and parse_mxc(url) is not None else None


def has_caption(content: Mapping[str, Any]) -> bool:
    """True if the body of a message with a file is a caption, and not the file's name."""
    name = string_field(content, "filename")
    return name is not None and name != string_field(content, "body")


def geo_uri(content: Mapping[str, Any]) -> str:
    """The place of a message of the kind ``m.location``, as a geo URI (RFC 5870); empty if it names none."""
    uri = string_field(content, "geo_uri") or ""
    return uri if uri.startswith("geo:") and len(uri.encode(errors="replace")) <= _MAX_URI else ""


def _plain_text(content: Mapping[str, Any]) -> str:
    """The plain text of a part of a poll, in any of its forms."""
    said = content.get("m.text")
    if isinstance(said, list):
        for one in said:
            part = _object(one)
            if (body := string_field(part, "body")) and part.get("mimetype", "text/plain") == "text/plain":
                return body
    for name in ("m.text", "org.matrix.msc1767.text", "body"):
        if text := string_field(content, name):
            return text
    return ""


def _answer(given: Any) -> PollAnswer | None:
    one = _object(given)
    name = string_field(one, "m.id") or string_field(one, "id") or ""
    if not name or len(name.encode(errors="replace")) > _MAX_ANSWER_ID:
        return None
    return PollAnswer(id=name, text=truncate_utf8(_plain_text(one), 1024))


def poll_start(content: Mapping[str, Any]) -> PollStart | None:
    """The question and answers of a poll, None where there are none of them."""
    poll = next((content[name] for name in ("m.poll", *sorted(POLL_STARTS)) if name in content), None)
    listed = _object(poll).get("answers")
    if not isinstance(poll, Mapping) or not isinstance(listed, list):
        return None
    read = (_answer(one) for one in listed[:MAX_ANSWERS])
    answers = {one.id: one for one in read if one is not None}
    if not answers:
        return None
    question = _plain_text(_object(poll.get("question"))) or _plain_text(content)
    kind = string_field(poll, "kind") or ""
    return PollStart(
        question=truncate_utf8(question, 4096),
        answers=tuple(answers.values()),
        max_selections=min(max(1, _number(poll.get("max_selections"))), len(answers)),
        disclosed=not kind.endswith("undisclosed"),
    )


def poll_selections(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The ids of the answers that a vote names, ``MAX_ANSWERS`` at most."""
    listed: Any = content.get("m.selections")
    for name in POLL_VOTES:
        listed = _object(content.get(name)).get("answers") if listed is None else listed
    if not isinstance(listed, list):
        return ()
    chosen = (one for one in listed[:MAX_ANSWERS] if isinstance(one, str))
    return tuple(dict.fromkeys(one for one in chosen if len(one.encode(errors="replace")) <= _MAX_ANSWER_ID))


def poll_end_text(content: Mapping[str, Any]) -> str:
    """What the end of a poll says of its result."""
    return truncate_utf8(_plain_text(content), 4096)


def starts_call(type_: str, content: Mapping[str, Any]) -> bool:
    """True if an event announces a call, or that a person is the first to say that they are in it: a client
    repeats such a state with the time of its beginning.
    """
    return type_ in CALLS or (type_ in CALL_MEMBERS and bool(content) and "created_ts" not in content)


def is_video_call(content: Mapping[str, Any]) -> bool:
    """True if the offer of a call has pictures."""
    sdp = string_field(_object(content.get("offer")), "sdp")
    return sdp is not None and "m=video" in sdp
