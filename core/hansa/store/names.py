"""Names of what is declared, which every database takes as they are."""

from __future__ import annotations

import re

from hansa.store.base import Collection, StoreError
from hansa.store.memory import key_names

_NAME = re.compile(r"[a-z][a-z_]*")


def checked_names(owner: str, collection: Collection) -> tuple[str, ...]:
    """The names of a collection's key parts. Raises StoreError where the owner, the collection, a key part or
    a field has a name that a database could take for something else.
    """
    keys = key_names(collection)
    for name in (owner, collection.name, *keys, *collection.fields):
        if not _NAME.fullmatch(name):
            raise StoreError(f"{name!r} is not a name for a collection or field: [a-z_]+")
    for name in {"scope", "body"} & {*keys, *collection.fields}:
        raise StoreError(f"{collection.name}: no key part or field may be called {name!r}")
    return keys
