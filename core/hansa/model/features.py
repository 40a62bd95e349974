"""The content that a network can show, and the readable form of content that it cannot show."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from types import MappingProxyType

from hansa.model.content import Content, Edit, Kind, Message, Style, attachments_of, target_of
from hansa.model.fallback_text import NOTHING_AROUND, Surroundings, fallback_text, files_of, quote_of
from hansa.model.spans import Formatted, Span, arrange_spans, plain_text


class Level(IntEnum):
    """How well a network carries a kind."""

    #: The sender is told that it cannot cross.
    REJECTED = 0
    #: Nobody is told; counted.
    DROPPED = 1
    #: Carried as a readable message.
    FALLBACK = 2
    #: Carried with losses.
    PARTIAL = 3
    FULL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Per kind a level; a kind not named is DROPPED. ``max_text`` bounds a message in UTF-8 bytes: a longer
    one comes in parts. Without ``formatting`` a message comes without spans, and its text marks quotes and
    says where links lead. Without ``replies`` its text begins with a quote of what it answers, and without
    ``attachments`` it ends with their names and links. ``losses`` says of a PARTIAL kind what is lost.
    """

    levels: Mapping[Kind, Level] = field(default_factory=lambda: MappingProxyType({}))
    max_text: int = 32_768
    formatting: bool = False
    replies: bool = False
    attachments: bool = False
    losses: Mapping[Kind, str] = field(default_factory=lambda: MappingProxyType({}))

    def level(self, kind: Kind) -> Level:
        """The level of one kind."""
        return self.levels.get(kind, Level.DROPPED)


#: Kinds that a network without ``features`` gets in words.
_IN_WORDS = (
    Kind.EDIT,
    Kind.RETRACTION,
    Kind.UPGRADE,
    Kind.LOCATION,
    Kind.POLL_START,
    Kind.POLL_END,
    Kind.CALL,
    Kind.ENCRYPTED,
)
#: The features of a network without ``features``: text.
PLAIN = Features(
    levels=MappingProxyType({Kind.MESSAGE: Level.FULL, **dict.fromkeys(_IN_WORDS, Level.FALLBACK)})
)
#: A message comes in so many parts at most; the last says how much is missing.
MAX_PARTS = 20
#: Bytes of the words that say how much is missing.
_MAX_NOTE = 64


def truncate_utf8(text: str, limit: int) -> str:
    """``text`` within ``limit`` UTF-8 bytes, marked where it was cut."""
    raw = text.encode()
    if len(raw) <= limit:
        return text
    return raw[: max(0, limit - 3)].decode(errors="ignore") + "…"


def degrade(content: Content, features: Features, around: Surroundings = NOTHING_AROUND) -> Content | None:
    """``content`` as the network can carry it; None where it is dropped or rejected, or has no words."""
    level = features.level(content.kind)
    if level >= Level.PARTIAL:
        if isinstance(content, Message):
            return _fit_message(content, features, around)
        if isinstance(content, Edit):
            return replace(content, message=_fit_message(content.message, features, around))
        return content
    if level is not Level.FALLBACK:
        return None
    text = fallback_text(content, around)
    return Message(text=text, style=Style.NOTICE) if text else None


def needs_surroundings(content: Content, features: Features) -> bool:
    """True if ``degrade`` makes something else of a content where it knows what is around it."""
    concerns = bool(target_of(content) or attachments_of(content))
    return concerns and features.level(content.kind) >= Level.FALLBACK


def split_content(content: Content, features: Features) -> tuple[Content, ...]:
    """``content`` in parts that the network takes, which say all of it between them: a message that is too
    long is divided at the end of a line, of a word, or between two characters, in this order. An edit is one
    part, as what it replaces is; one that is too long says how many characters are missing.
    """
    if isinstance(content, Edit):
        return (replace(content, message=_shorten(content.message, features.max_text)),)
    if not isinstance(content, Message) or len(content.text) * 4 <= features.max_text:
        return (content,)
    bounds = list(_divide(content.text, features.max_text))
    if len(bounds) == 1:
        return (content,)
    parts = [_part(content, start, end) for start, end in bounds[:MAX_PARTS]]
    parts[0] = replace(parts[0], reply_to=content.reply_to, thread=content.thread)
    parts[-1] = replace(parts[-1], attachments=content.attachments)
    if len(bounds) > MAX_PARTS:
        missing = len(content.text) - bounds[MAX_PARTS - 1][1]
        parts.append(Message(text=f"[{missing} characters more are not shown here]", style=Style.NOTICE))
    return tuple(parts)


def _shorten(message: Message, limit: int) -> Message:
    if len(message.text) * 4 <= limit or len(message.text.encode()) <= limit:
        return message
    start, end = next(_divide(message.text, max(1, limit - _MAX_NOTE)))
    note = f"… [{len(message.text) - end} characters more are not shown here]"
    kept = _part(message, start, end)
    return replace(message, text=kept.text + note, spans=kept.spans)


def _fit_message(message: Message, features: Features, around: Surroundings) -> Message:
    if message.spans and not features.formatting:
        formatted = Formatted(text=message.text, spans=message.spans)
        message = replace(message, text=plain_text(formatted), spans=())
    if message.attachments and not features.attachments:
        text = "\n".join(filter(None, [message.text, files_of(message, around)]))
        message = replace(message, text=text, attachments=())
    if message.reply_to and not features.replies:
        quote = quote_of(message, around)
        message = replace(_behind(quote, message) if quote else message, reply_to="")
    return message


def _behind(quote: str, message: Message) -> Message:
    """A message that begins with the quote of what it answers."""
    by = len(quote) + 1
    spans = tuple(replace(span, start=span.start + by, end=span.end + by) for span in message.spans)
    return replace(message, text=f"{quote}\n{message.text}", spans=spans)


def _part(message: Message, start: int, end: int) -> Message:
    spans = (
        replace(span, start=max(span.start, start) - start, end=min(span.end, end) - start)
        for span in message.spans
        if span.start < end and span.end > start
    )
    said = arrange_spans(message.text[start:end].rstrip("\n"), tuple[Span, ...](spans))
    return replace(message, text=said.text, spans=said.spans, reply_to="", thread="", attachments=())


def _divide(text: str, limit: int) -> Iterator[tuple[int, int]]:
    """The bounds of parts of at most ``limit`` UTF-8 bytes."""
    start = 0
    while start < len(text):
        end = start + len(text[start : start + limit].encode()[:limit].decode(errors="ignore"))
        end = max(end, start + 1)
        if end < len(text):
            line, word = text.rfind("\n", start, end), text.rfind(" ", start, end)
            end = next(
                (at + 1 for at in (line, word) if at >= start + (end - start) // 2), _whole(text, start, end)
            )
        yield start, end
        start = end


def _whole(text: str, start: int, end: int) -> int:
    """``end``, or a little before it, so that it divides no character that is made of several."""
    at = end
    while at > max(start + 1, end - 32) and (_joins(text[at]) or text[at - 1] == "\u200d"):
        at -= 1
    return at


def _joins(character: str) -> bool:
    return (
        bool(unicodedata.combining(character))
        or character in "\u200d\ufe0e\ufe0f"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
    )
