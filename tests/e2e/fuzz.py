"""Mutations of what is valid, by a seed: somewhere between the attacks that have a name."""

from __future__ import annotations

import random
from typing import Any

import orjson

_ATOMS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**53, -(2**53), 2**63, 0.5, "", "\0", "@", "@a:b", "!", "$", "\u202e", "é" * 200,
    "x" * 300, "x" * 70_000, [], {}, [[]], {"": {}}, ["a", 1, None], {"a": [{"b": {}}]},
)  # fmt: skip
_TOKENS = (
    b"<", b">", b"/", b"'", b'"', b"&", b"&amp;", b"<a>", b"</a>", b"<a/>", b"<body>", b"xmlns=''", b"\xc2\xa0",
    b"]]>", b"&#x1F9DB;", b" ", b"\n", b"type='error'", b"=", b"id",
)  # fmt: skip


def mutated_json(value: Any, luck: random.Random) -> Any:
    """A copy with a few places replaced, taken out, doubled or wrapped."""
    copy = orjson.loads(orjson.dumps(value))
    for _ in range(luck.randint(1, 3)):
        copy = _mutate(copy, luck)
    return copy


def _mutate(value: Any, luck: random.Random) -> Any:
    if isinstance(value, dict) and value and luck.random() < 0.8:
        key = luck.choice(sorted(value))
        match luck.randrange(5):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {**value, key + luck.choice(["", "x", "\0"]): luck.choice(_ATOMS)}
            case _:
                return {**value, key: _mutate(value[key], luck)}
    if isinstance(value, list) and value and luck.random() < 0.8:
        at = luck.randrange(len(value))
        match luck.randrange(4):
            case 0:
                return value * luck.choice([0, 2, 30])
            case 1:
                return [*value[:at], *value[at + 1 :]]
            case _:
                return [*value[:at], _mutate(value[at], luck), *value[at + 1 :]]
    match luck.randrange(3):
        case 0:
            return [value]
        case 1:
            return {"x": value}
        case _:
            return luck.choice(_ATOMS)


def mutated_bytes(data: bytes, luck: random.Random) -> bytes:
    """A copy with a few bytes flipped, cut out, doubled or put in."""
    for _ in range(luck.randint(1, 4)):
        at = luck.randrange(len(data) + 1)
        to = min(len(data), at + luck.randint(1, 12))
        match luck.randrange(4):
            case 0:
                data = data[:at] + data[to:]
            case 1:
                data = data[:to] + data[at:]
            case 2:
                data = data[:at] + luck.choice(_TOKENS) + data[at:]
            case _:
                data = data[:at] + bytes([luck.randrange(256)]) + data[to:]
    return data
