"""What a hosted MUC asks its caller to do, and what it is told when that is done.

SPEC: XEP-0045 section 7.2.15 (the history that is asked for).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hansa import Content, Event, NativeId

from hansa_xmpp.proto.convert import SentIds
from hansa_xmpp.proto.render import Outgoing
from hansa_xmpp.proto.stanza import Stanza


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The history a client wants (XEP-0045 section 7.2.15); None where it did not say. ``since`` in ms,
    ``seconds`` before now. ``chars`` counts the characters of the stanzas.
    """

    stanzas: int | None = None
    chars: int | None = None
    seconds: int | None = None
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Stanzas to be sent."""

    stanzas: tuple[Outgoing, ...]


@dataclass(frozen=True, slots=True)
class Enter:
    """``user`` wants to come in on one more connection, under ``nick``."""

    stanza: Stanza
    user: NativeId
    nick: str
    history: Asked


@dataclass(frozen=True, slots=True)
class Rename:
    """``user``, who is here, wants ``nick``."""

    stanza: Stanza
    user: NativeId
    nick: str


@dataclass(frozen=True, slots=True)
class Say:
    """``user`` wants ``content`` to happen."""

    stanza: Stanza
    user: NativeId
    content: Content
    ids: SentIds = SentIds()  # noqa: RUF009  # frozen


@dataclass(frozen=True, slots=True)
class Gone:
    """A connection is out. ``last``: it was the person's last one here."""

    user: NativeId
    full: str
    last: bool


@dataclass(frozen=True, slots=True)
class Ignore:
    """Nothing is done about a stanza; ``why`` is one of a few words, to be counted."""

    why: str


@dataclass(frozen=True, slots=True)
class Renamed:
    """One of our own network's people has another nick, which they did not ask for."""

    user: NativeId
    nick: str


Command = Send | Enter | Rename | Say | Gone | Renamed | Ignore


@dataclass(frozen=True, slots=True)
class Past:
    """An event of the log that has words; ``body`` is XML already."""

    event: Event
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What somebody who comes in is shown: the log up to ``upto`` in ``history``, the subject."""

    upto: int
    history: Sequence[Past] = ()
    subject: str = ""
