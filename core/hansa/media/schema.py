"""The collections of the media service. Its rows and its files have the scope ``media``."""

from __future__ import annotations

from hansa.store.base import Collection, Schema

SCHEMA = Schema(
    owner="media",
    version=1,
    collections=(
        # The body has name, type, pixels, size and owner.
        Collection(
            name="file",
            key={"id": str},
            fields={"digest": str, "stored": int},
            indexes=(("digest",), ("stored",)),
        ),
        # An event that names a file.
        Collection(name="reference", key={"file": str, "event": str}, indexes=(("event",),)),
        Collection(name="usage", key={"owner": str}),
        # Bytes that are being removed: who gives them a file and who removes them meet here.
        Collection(name="removal", key={"digest": str}, fields={"begun": int}, indexes=(("begun",),)),
        Collection(name="name_key", key={"name": str}),
        Collection(name="link_key", key={"number": int}, fields={"made": int}),
    ),
)
