"""Collections as PostgreSQL tables: columns, values, statements that read. No I/O.

One table for each declared collection, with the scope as its first column. Text is compared byte by byte
(``COLLATE "C"``), which is the order of code points. Text of PostgreSQL holds no NUL, and an entry of its
indexes at most 2,704 bytes. So text is kept as ``text_value`` makes it: NUL is escaped, and of a text over
``_LONG`` bytes the column has the beginning and a digest, the column ``"L"`` the whole. Of such texts that
begin with the same ``_HEAD`` bytes the order is that of their digests.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hansa.store.base import Collection, Key, Row, Value
from hansa.store.names import checked_names

#: Bytes of a text that is kept as it is, and of the beginning of a longer one.
_LONG, _HEAD = 300, 200
_LOW = re.compile("[\x00\x01]")
_ESCAPES = str.maketrans({"\x00": "\x01\x01", "\x01": "\x01\x02"})
#: The separator between the beginning of a long text and its digest; no escaped text contains it.
_CUT = "\x01\x03"
_DIGEST = 64
_TYPES = {str: 'text COLLATE "C"', int: "bigint"}
#: Bytes of a name in PostgreSQL.
_NAMED = 63
#: Of a name that is cut, what stays before its digest.
_HEAD_OF_NAME = 50


def _escape_text(text: str) -> str:
    return text.translate(_ESCAPES) if _LOW.search(text) else text


def _unescape_text(text: str) -> str:
    """Returns the text before it was escaped."""
    if "\x01" not in text:
        return text
    return text.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01")


def _shorten_text(escaped: str) -> str:
    """A text for a column of a key or an index: itself, or its beginning and its digest."""
    if len(escaped) <= _LONG // 4:
        return escaped
    data = escaped.encode()
    if len(data) <= _LONG:
        return escaped
    head = data[:_HEAD].decode(errors="ignore")
    if (len(head) - len(head.rstrip("\x01"))) % 2:  # in the middle of what stands for one character
        head = head[:-1]
    return head + _CUT + hashlib.sha256(data).hexdigest()


def text_value(text: str) -> str:
    """A text as a column has it: in the same order, without NUL, at most ``_LONG`` bytes."""
    return _shorten_text(_escape_text(text))


def value(given: Value) -> Value:
    """A key part or a field as a column has it."""
    return text_value(given) if isinstance(given, str) else given


def fitted(name: str) -> str:
    """A name that PostgreSQL does not cut off."""
    if len(name) <= _NAMED:
        return name
    return f"{name[:_HEAD_OF_NAME]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"


@dataclass(slots=True)
class Values:
    """The arguments of the writing function, in its order."""

    codes: list[int] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    numbers: list[int | None] = field(default_factory=list)
    bodies: list[bytes | None] = field(default_factory=list)

    def add(self, given: Value, kind: type) -> None:
        """One key part or field."""
        if kind is int:
            self.numbers.append(given)  # type: ignore[arg-type]  # the declared type
        else:
            self.texts.append(None if given is None else text_value(given))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class PostgresTable:
    """One collection as SQL. ``number`` tells the tables of one store apart."""

    collection: Collection
    number: int
    name: str
    keys: tuple[str, ...]
    key_types: tuple[type, ...]
    fields: tuple[tuple[str, type], ...]
    columns: str
    #: SQL that was made before, by what it is for.
    _made: dict[object, str] = field(default_factory=dict)

    def key_values(self, into: Values, scope: str, key: Key) -> None:
        """A row's key."""
        into.texts.append(scope)
        for part, kind in zip(key, self.key_types, strict=True):
            into.add(part, kind)

    def row_values(
        self, into: Values, scope: str, key: Key, fields: Mapping[str, Value], body: bytes
    ) -> None:
        """A whole row; of an appended one the key is empty, and the function gives it."""
        into.texts.append(scope)
        texts = len(into.texts)
        for part, kind in zip(key, self.key_types, strict=bool(key)):
            into.add(part, kind)
        for name, kind in self.fields:
            into.add(fields.get(name), kind)
        into.bodies.append(bytes(body))
        for text in into.texts[texts:]:
            if text is not None and len(text) > _DIGEST and _CUT in text:
                into.bodies.append(self._whole_texts(key, fields))
                return
        into.bodies.append(None)

    def _whole_texts(self, key: Key, fields: Mapping[str, Value]) -> bytes:
        """All texts of a row that has a long one, in the order of its columns; escaped text holds no NUL."""
        given = (*key, *(fields.get(name) for name, _ in self.fields))
        return b"\0".join([_escape_text(text).encode() for text in given if isinstance(text, str)])

    def row(self, got: Sequence[object]) -> Row:
        """A row out of ``columns``."""
        *values, body, whole = got
        if whole is None:
            found = [_unescape_text(one) if isinstance(one, str) else one for one in values]
        else:
            texts = iter(bytes(whole).split(b"\0"))  # type: ignore[call-overload]
            found = [_unescape_text(next(texts).decode()) if isinstance(one, str) else one for one in values]
        count = len(self.keys)
        names = (name for name, _ in self.fields)
        key: Key = tuple(found[:count])  # type: ignore[arg-type]  # the columns' declared types
        fields: dict[str, Value] = dict(zip(names, found[count:], strict=True))  # type: ignore[arg-type]
        return Row(key=key, fields=fields, body=bytes(body))  # type: ignore[call-overload]

    def one(self) -> str:
        """The row of a scope ($1) and a key ($2 and on)."""
        where = " AND ".join(f'"{key}" = ${n}' for n, key in enumerate(self.keys, 2))
        return self._cached_sql("one", lambda: f"{self._select_sql()} WHERE scope = $1 AND {where}")

    def some(self) -> str:
        """The rows of a scope ($1) and of keys, an array for each part ($2 and on)."""

        def made() -> str:
            arrays = ", ".join(
                f"${n}::{'bigint' if kind is int else 'text'}[]" for n, kind in enumerate(self.key_types, 2)
            )
            named = ", ".join(f"k{n}" for n in range(len(self.keys)))
            on = " AND ".join(f'"{key}" = k{n}' for n, key in enumerate(self.keys))
            return (
                f"SELECT {self.columns} FROM unnest({arrays}) AS wanted({named}) "
                f'JOIN "{self.name}" ON scope = $1 AND {on}'
            )

        return self._cached_sql("some", made)

    def _select_sql(self) -> str:
        return f'SELECT {self.columns} FROM "{self.name}"'

    def _cached_sql(self, what: object, make: object) -> str:
        found = self._made.get(what)
        if found is None:
            found = self._made[what] = make()  # type: ignore[operator]
        return found

    def search(
        self,
        index: tuple[str, ...],
        equal: Sequence[Value],
        after: Value,
        upto: Value,
        *,
        reverse: bool,
    ) -> tuple[str, list[Value]]:
        """The arguments of ``Store.scan``: SQL, and what it takes behind scope ($1) and limit ($2)."""
        order = index or self.keys
        if len(equal) >= len(order):
            after = upto = None
        nothing = tuple(part is None for part in equal)
        what = (index, nothing, after is None, upto is None, reverse)
        given = [part for part in equal if part is not None]
        given += [bound for bound in (after, upto) if bound is not None]

        def made() -> str:
            parts, at = ["scope = $1"], 3
            for name, null in zip(order, nothing, strict=False):
                parts.append(f'"{name}" IS NULL' if null else f'"{name}" = ${at}')
                at += not null
            for bound, sign in ((after, "<" if reverse else ">"), (upto, ">=" if reverse else "<=")):
                if bound is not None:
                    parts.append(f'"{order[len(equal)]}" {sign} ${at}')
                    at += 1
            by = ", ".join(
                self._order_sql(name, reverse=reverse) for name in dict.fromkeys((*order, *self.keys))
            )
            return f"{self._select_sql()} WHERE {' AND '.join(parts)} ORDER BY {by} LIMIT $2"

        return self._cached_sql(what, made), [value(one) for one in given]

    def _order_sql(self, name: str, *, reverse: bool) -> str:
        """A column in an order. None comes first; key parts are never None."""
        if name in self.keys:
            return f'"{name}" DESC' if reverse else f'"{name}"'
        return f'"{name}" DESC NULLS LAST' if reverse else f'"{name}" NULLS FIRST'

    def following(self, *, first: bool) -> str:
        """Rows of a scope ($1), at most $2, by key: the first ones, or those behind a key ($3 and on)."""
        keys = ", ".join(f'"{key}"' for key in self.keys)
        marks = ", ".join(f"${n}" for n in range(3, 3 + len(self.keys)))
        behind = "" if first else f" AND ({keys}) > ({marks})"
        return f"{self._select_sql()} WHERE scope = $1{behind} ORDER BY {keys} LIMIT $2"

    def mark(self, key: Key) -> bytes:
        """A place in the order of ``following``, to be kept."""
        return b"\0".join([str(value(part)).encode() for part in key])

    def marked(self, mark: bytes) -> list[Value]:
        """Returns the arguments of ``following`` for a mark."""
        parts = zip(mark.decode().split("\0"), self.key_types, strict=True)
        return [int(part) if kind is int else part for part, kind in parts]

    def counted(self, equal: Mapping[str, Value]) -> tuple[str, list[Value]]:
        """The arguments of ``Store.count``: SQL, and what it takes behind the scope ($1)."""
        parts, given = ["scope = $1"], list[Value]()
        for name, wanted in equal.items():
            if wanted is None:
                parts.append(f'"{name}" IS NULL')
            else:
                given.append(value(wanted))
                parts.append(f'"{name}" = ${len(given) + 1}')
        return f'SELECT count(*) FROM "{self.name}" WHERE {" AND ".join(parts)}', given

    def missing(self, present: Mapping[str, set[str]], indexes: Mapping[str, str]) -> list[str]:
        """Returns the statements that make the table; ``present``: the columns of existing tables,
        ``indexes``: the tables of existing indexes.
        """
        made, there = list[str](), present.get(self.name)
        if there is None:
            parts = [f'"{k}" {_TYPES[t]} NOT NULL' for k, t in zip(self.keys, self.key_types, strict=True)]
            parts += [f'"{f}" {_TYPES[t]}' for f, t in self.fields]
            primary = ", ".join(["scope", *(f'"{key}"' for key in self.keys)])
            made.append(
                f'CREATE TABLE IF NOT EXISTS "{self.name}" (scope text COLLATE "C" NOT NULL, '
                f'{", ".join(parts)}, body bytea NOT NULL, "L" bytea, PRIMARY KEY ({primary}))'
            )
        else:
            made += [
                f'ALTER TABLE "{self.name}" ADD COLUMN IF NOT EXISTS "{name}" {_TYPES[kind]}'
                for name, kind in self.fields
                if name not in there
            ]
        for named, index in self._declared_indexes().items():
            if named in indexes:
                continue
            by = [self._order_sql(name, reverse=False) for name in dict.fromkeys((*index, *self.keys))]
            made.append(
                f'CREATE INDEX IF NOT EXISTS "{named}" ON "{self.name}" ({", ".join(["scope", *by])})'
            )
        return made

    def _declared_indexes(self) -> dict[str, tuple[str, ...]]:
        """Those that are declared, by name; what the key serves needs none."""
        return {
            fitted(f"{self.name}_by_{'_'.join(index)}"): index
            for index in self.collection.indexes
            if index != self.keys[: len(index)]
        }

    def surplus(self, indexes: Mapping[str, str]) -> list[str]:
        """Those of the indexes, each with its table, that were made for it and are declared no more."""
        begins, declared = f"{self.name}_by_"[:_HEAD_OF_NAME], self._declared_indexes()
        of_this = [name for name, on in indexes.items() if on == self.name and name not in declared]
        return sorted(name for name in of_this if name.startswith(begins))


def table(owner: str, collection: Collection, number: int) -> PostgresTable:
    """The table of a collection. Raises StoreError for a name that is none."""
    keys = checked_names(owner, collection)
    types: dict[str, type] = {"position": int} if collection.stream else dict(collection.key)
    return PostgresTable(
        collection=collection,
        number=number,
        name=fitted(f"{owner}_{collection.name}"),
        keys=keys,
        key_types=tuple(types[key] for key in keys),
        fields=tuple(collection.fields.items()),
        columns=", ".join([*(f'"{name}"' for name in (*keys, *collection.fields)), "body", '"L"']),
    )
