"""How rows lie in MongoDB: names, keys in their order, documents. No I/O.

One collection for each declared collection of each scope. ``_id`` is the whole key as one string whose byte
order is the key's order, so that one index serves look-ups, ranges and ties; key parts and declared fields
stand beside it under their own names, and the body is binary under ``B``, because BSON would re-type numbers
and forbids some keys. Declared names are lower case, so that neither ``_id`` nor ``B`` is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hansa.store.base import Collection, Key, Row, StoreError, Value
from hansa.store.names import checked_names

Document = dict[str, Any]

#: Ends a key part. What follows a part in the order of strings begins with ``_PAST``.
_END, _PAST = "\x01", "\x02"
_LOW = re.compile("[\x00-\x02]")
_ESCAPES = str.maketrans({"\x00": "\x02\x02", "\x01": "\x02\x03", "\x02": "\x02\x04"})
#: Characters of a scope, and those that a name cannot have as they are.
_SCOPE, _OTHER = 64, re.compile(r"[^A-Za-z0-9_]")
_MIDDLE = 1 << 63


def encode_part(part: str | int) -> str:
    """A key part as text in the part's order: an integer as 16 digits, a string nearly as it is."""
    if isinstance(part, int):
        return f"{part + _MIDDLE:016x}"
    return part.translate(_ESCAPES) if _LOW.search(part) else part


def encode_key(key: Sequence[str | int]) -> str:
    """``_id`` of a key, or what the ``_id`` of every key with these leading parts begins with."""
    return "".join([encode_part(part) + _END for part in key])


def key_range(
    equal: Sequence[str | int], after: str | int | None, upto: str | int | None, *, reverse: bool
) -> Document:
    """Returns the comparison with ``_id`` for the range that ``Store.scan`` describes. Empty if there is no
    bound.
    """
    prefix = encode_key(equal)
    low = prefix or None
    high = prefix[:-1] + _PAST if prefix else None
    if reverse:
        if after is not None:
            high = prefix + encode_part(after)
        if upto is not None:
            low = prefix + encode_part(upto)
    else:
        if after is not None:
            low = prefix + encode_part(after) + _PAST
        if upto is not None:
            high = prefix + encode_part(upto) + _PAST
    return _without_none({"$gte": low, "$lt": high})


def _field_range(after: Value, upto: Value, *, reverse: bool) -> Document:
    """Returns the comparison of a field with a range. It never uses None, and never ``$lte``, whose last rows
    SecantusDB leaves out where the index continues behind the field: ``$lt`` of the next value is the same.
    """
    if reverse:
        return _without_none({"$gte": upto, "$lt": after})
    if upto == _MIDDLE - 1:
        return {"$gte": -_MIDDLE} if after is None else {"$gt": after}
    following = upto + 1 if isinstance(upto, int) else None if upto is None else upto + "\x00"
    return _without_none({"$gt": after, "$lt": following})


def _without_none(bounds: Document) -> Document:
    return {sign: bound for sign, bound in bounds.items() if bound is not None}


@dataclass(frozen=True, slots=True)
class MongoQuery:
    """A search in MongoDB's terms. ``nothing``: no row can match."""

    where: Document
    order: list[tuple[str, int]]
    nothing: bool = False


@dataclass(frozen=True, slots=True)
class MongoCollection:
    """One declared collection of one scope. ``name`` is that of the MongoDB collection."""

    collection: Collection
    name: str
    keys: tuple[str, ...]

    def document(self, key: Key, fields: Mapping[str, Value], body: bytes) -> Document:
        """A row as it is kept."""
        found: Document = {"_id": encode_key(key), **dict(zip(self.keys, key, strict=True))}
        found.update((name, fields.get(name)) for name in self.collection.fields)
        found["B"] = bytes(body)
        return found

    def row(self, document: Document) -> Row:
        """A kept row. A field that was declared after it was written is None."""
        return Row(
            key=tuple([document[name] for name in self.keys]),
            fields={name: document.get(name) for name in self.collection.fields},
            body=bytes(document["B"]),
        )

    def indexes(self) -> list[list[tuple[str, int]]]:
        """Returns the indexes that are needed besides ``_id``. Equal rows are in the order of the key."""
        declared = (i for i in self.collection.indexes if i != self.keys[: len(i)])
        return [[*((name, 1) for name in index), ("_id", 1)] for index in declared]

    def surplus(self, present: Mapping[str, Any]) -> list[str]:
        """Names of indexes that were made for it and are declared no more; ``present``: all that it has, as
        the driver tells them. Only Hansa's own end with ``_id``.
        """
        declared = [dict(index) for index in self.indexes()]
        made = {name: dict(index["key"]) for name, index in present.items()}
        own = {name: key for name, key in made.items() if len(key) > 1 and list(key)[-1] == "_id"}
        return sorted(name for name, key in own.items() if key not in declared)

    def search(
        self, index: tuple[str, ...], equal: Sequence[Value], after: Value, upto: Value, *, reverse: bool
    ) -> MongoQuery:
        """The arguments of ``Store.scan``."""
        way = -1 if reverse else 1
        order = index or self.keys
        if len(equal) >= len(order):
            after = upto = None
        if order == self.keys[: len(order)]:
            parts = [part for part in equal if part is not None]
            bounds = key_range(parts, after, upto, reverse=reverse)
            where: Document = {"_id": bounds} if bounds else {}
            return MongoQuery(where, [("_id", way)], nothing=len(parts) < len(equal))
        where = dict(zip(order, equal, strict=False))
        bounds = _field_range(after, upto, reverse=reverse)
        if bounds:
            where[order[len(equal)]] = bounds
        return MongoQuery(where, [*((name, way) for name in order), ("_id", way)])

    def counted(self, equal: Mapping[str, Value]) -> Document:
        """The condition of ``Store.count``."""
        leading = self.keys[: len(equal)]
        parts = [equal.get(name) for name in leading]
        known = [part for part in parts if part is not None]
        if equal and set(leading) == set(equal) and len(known) == len(parts):
            return {"_id": key_range(known, None, None, reverse=False)}
        return dict(equal)


def rows_of(scope: str, owner: str, collection: Collection) -> MongoCollection:
    """Where a declared collection lies. Raises StoreError for names that MongoDB could not tell apart."""
    keys = checked_names(owner, collection)
    if len(scope) > _SCOPE:
        raise StoreError(f"{scope[:_SCOPE]!r}... is not a name for a scope: at most {_SCOPE} characters")
    plain = _OTHER.sub(lambda found: f"-{ord(found.group()):x}-", scope)
    place = f"network.{plain}" if scope else "core"
    return MongoCollection(collection, f"{place}.{owner}.{collection.name}", keys)
