"""Commands that people write to the bridge in a chat, as text: what is one, and what it says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hansa.model.content import Content, Message, Style
from hansa.model.globs import Glob
from hansa.model.ref import NativeId

#: Characters and words of a command.
MAX_COMMAND, MAX_WORDS = 500, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSettings:
    """The ``[commands]`` table. ``operators`` may do everything; ``linkable`` are globs of the
    ``NETWORK:ADDRESS`` that owners of a room may link to it; ``logins`` are the networks on which people may
    log in.
    """

    enabled: bool = False
    prefix: str = "!hansa"
    operators: frozenset[NativeId] = field(default_factory=frozenset)
    linkable: tuple[str, ...] = ()
    logins: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCommand:
    """A command: its name in lower case, and the words after it."""

    name: str
    words: tuple[str, ...] = ()


def is_linkable(spec: str, globs: Iterable[str]) -> bool:
    """True if one of the globs covers a ``NETWORK:ADDRESS``. A wildcard stands for neither ``:`` nor ``@``:
    the glob of names on one server does not cover those on another.
    """
    return any(
        all(spec.count(mark) == glob.count(mark) for mark in ":@") and Glob(glob).matches(spec)
        for glob in globs
    )


def is_command(content: Content, prefix: str) -> bool:
    """True if a person addresses the bridge by ``prefix``. No answer to a message, no caption, no notice and
    no text that begins with formatting, such as a quote, does.
    """
    return (
        isinstance(content, Message)
        and content.text.startswith(prefix)
        and content.style is Style.TEXT
        and (len(content.text) == len(prefix) or content.text[len(prefix)].isspace())
        and not content.reply_to
        and not content.attachments
        and not any(span.start == 0 for span in content.spans)
    )


def read_command(text: str, prefix: str) -> ChatCommand | None:
    """The command in a text that may begin with ``prefix``; None for a text that is too long, has several
    lines or unprintable characters. A prefix alone is ``help``.
    """
    if len(text) > MAX_COMMAND or not text.strip().isprintable():
        return None
    words = text.split()
    if words and words[0] == prefix:
        del words[0]
    if len(words) > MAX_WORDS:
        return None
    name, *rest = words or ["help"]
    return ChatCommand(name=name.lower(), words=tuple(rest))
