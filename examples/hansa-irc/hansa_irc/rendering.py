"""The lines in which an event of another network is shown. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hansa import Formatted, Message, Style

from hansa_irc.formatting import divide_formatted, write_formatted
from hansa_irc.lines import format_line, room_for_text

#: Lines of one message. A room is not flooded, and what is left out is said.
MAX_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """The user that says something. ``source`` is how others see it, ``name`` the person that the bridge
    speaks for, empty where a puppet speaks for itself.
    """

    source: str
    name: str = ""


def render_message(message: Message, channel: str, speaker: Speaker) -> list[bytes]:
    """The lines of a message."""
    command = "NOTICE" if message.style is Style.NOTICE else "PRIVMSG"
    emote = message.style is Style.EMOTE
    before, behind = "", ""
    if speaker.name:
        before = f"* {speaker.name} " if emote else f"<{speaker.name}> "
    elif emote:
        before, behind = "\x01ACTION ", "\x01"
    room = room_for_text(speaker.source, command, channel) - len((before + behind).encode())
    pieces = [
        piece
        for line in write_formatted(Formatted(text=message.text, spans=message.spans))
        for piece in divide_formatted(line, room)
    ]
    if len(pieces) > MAX_LINES:
        missing = len(pieces) - MAX_LINES
        pieces = [*pieces[:MAX_LINES], f"[{missing} lines more are not shown here]"]
    return [format_line(command, channel, f"{before}{piece}{behind}") for piece in pieces]
