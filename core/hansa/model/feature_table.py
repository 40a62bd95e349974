"""A table of what crosses between each two networks, made of what they declare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations

from hansa.model.content import Kind
from hansa.model.features import Features, Level

#: Each level in a word or two, as people read it.
WORDS: Mapping[Level, str] = {
    Level.FULL: "whole",
    Level.PARTIAL: "in part",
    Level.FALLBACK: "in words",
    Level.DROPPED: "not shown",
    Level.REJECTED: "refused",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossingLevels:
    """How the people of ``target`` see what the people of ``origin`` do. ``levels`` has each kind that
    ``origin`` has. ``losses`` says what is lost where the level is ``PARTIAL`` or a part is missing.
    """

    origin: str
    target: str
    levels: Mapping[Kind, Level]
    losses: Mapping[Kind, str]


def crossing_levels(networks: Mapping[str, Features]) -> list[CrossingLevels]:
    """One value for each ordered pair of networks."""
    return [
        CrossingLevels(
            origin=origin,
            target=target,
            levels={
                kind: networks[target].level(kind)
                for kind in Kind
                if networks[origin].level(kind) >= Level.PARTIAL
            },
            losses=_losses(networks[origin], networks[target]),
        )
        for origin, target in permutations(networks, 2)
    ]


def _losses(origin: Features, target: Features) -> dict[Kind, str]:
    found = {
        kind: text
        for kind, text in target.losses.items()
        if target.level(kind) is Level.PARTIAL and origin.level(kind) >= Level.PARTIAL
    }
    message = [
        words
        for words, said, shown in (
            ("formatting as plain text", origin.formatting, target.formatting),
            ("a reply as a quote", origin.replies, target.replies),
            ("a file as a link", origin.attachments, target.attachments),
        )
        if said and not shown
    ]
    if message:
        found[Kind.MESSAGE] = "; ".join(message)
    return found


def feature_rows(networks: Mapping[str, Features]) -> tuple[list[str], list[list[str]]]:
    """A heading and rows of text: a row for each kind, a column for each ordered pair of networks. A cell is
    empty where the first network has nothing of the kind.
    """
    pairs = crossing_levels(networks)
    rows = [
        [kind.value, *(_cell(pair, kind) for pair in pairs)]
        for kind in Kind
        if any(kind in pair.levels for pair in pairs)
    ]
    return ["", *(f"{pair.origin} → {pair.target}" for pair in pairs)], rows


def _cell(pair: CrossingLevels, kind: Kind) -> str:
    level = pair.levels.get(kind)
    if level is None:
        return ""
    lost = pair.losses.get(kind)
    return f"{WORDS[level]} ({lost})" if lost else WORDS[level]
