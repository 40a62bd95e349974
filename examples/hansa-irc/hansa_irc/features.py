"""The content that IRC can carry."""

from __future__ import annotations

from types import MappingProxyType

from hansa import Features, Kind, Level

_PARTLY = (Kind.MESSAGE, Kind.TOPIC, Kind.MEMBER, Kind.STANDING, Kind.JOIN_RULE)
_WORDS = (
    Kind.EDIT,
    Kind.REACTION,
    Kind.RETRACTION,
    Kind.NAME,
    Kind.UPGRADE,
    Kind.LOCATION,
    Kind.POLL_START,
    Kind.POLL_VOTE,
    Kind.POLL_END,
    Kind.CALL,
    Kind.ENCRYPTED,
    Kind.CUSTOM,
)

FEATURES = Features(
    levels=MappingProxyType(
        {
            **dict.fromkeys(_PARTLY, Level.PARTIAL),
            **dict.fromkeys(_WORDS, Level.FALLBACK),
        }
    ),
    max_text=4000,
    formatting=True,
)
