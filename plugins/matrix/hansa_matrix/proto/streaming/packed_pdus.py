"""Events of a large answer while all of it has to be held: their bytes, parsed again where they are read.

What is parsed takes up to 30 times its bytes: 500 events of 60 KiB take 860 MiB as objects.
SPEC: server-server API, "Joining Rooms".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson
from hansa import WeightedLruCache

from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import pdu_from_wire
from hansa_matrix.proto.room_versions import RoomVersion

#: Events that are kept unpacked, however small they are.
_MAX_UNPACKED = 10_000


class _Packed(Mapping[str, Any]):
    """An event out of its canonical JSON, parsed with every access."""

    __slots__ = ("_wire",)

    def __init__(self, wire: bytes) -> None:
        self._wire = wire

    def _load_fields(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self._wire)
        return found

    def __getitem__(self, key: str) -> Any:
        return self._load_fields()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._load_fields())

    def __len__(self) -> int:
        return len(self._load_fields())


class _PackedContent(_Packed):
    __slots__ = ()

    def _load_fields(self) -> dict[str, Any]:
        found: dict[str, Any] = super()._load_fields()["content"]
        return found


def pack_pdu(pdu: Pdu) -> Pdu:
    """Returns the same event without its parsed form. A caller that reads much of it unpacks it first."""
    return replace(pdu, raw=_Packed(pdu.wire), content=_PackedContent(pdu.wire), signable=b"")


def unpack_pdu(pdu: Pdu, version: RoomVersion) -> Pdu:
    """An event that may be packed, as one that is not."""
    return pdu_from_wire(pdu.event_id, pdu.wire, version) if isinstance(pdu.raw, _Packed) else pdu


class Unpacking:
    """Unpacks events of which many cite the same few; those are kept, of at most ``most`` bytes together."""

    def __init__(self, version: RoomVersion, most: int = 512 * 1024) -> None:
        self._version = version
        self._kept: WeightedLruCache[str, Pdu] = WeightedLruCache(
            _MAX_UNPACKED, most, lambda pdu: len(pdu.wire)
        )

    def __call__(self, pdu: Pdu) -> Pdu:
        """``pdu``, the same object while it is kept."""
        kept = self._kept.get(pdu.event_id)
        if kept is None:
            kept = unpack_pdu(pdu, self._version)
            self._kept.put(pdu.event_id, kept)
        return kept
