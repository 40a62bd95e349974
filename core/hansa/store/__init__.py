"""Where everything durable is kept: SQLite or MongoDB behind one contract."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hansa.pure.errors import ConfigError

if TYPE_CHECKING:
    from hansa.store.base import Store


def open_store(url: str, folder: Path) -> Store:
    """The store of a URL: ``sqlite:PATH`` (relative to ``folder``) or ``mongodb://...``. No I/O yet."""
    kind, _, rest = url.partition(":")
    if kind == "sqlite" and rest:
        from hansa.store.sqlite import SqliteStore  # noqa: PLC0415  # only what is configured is imported

        return SqliteStore(folder / rest)
    raise ConfigError(f"{kind}: is no store; say sqlite:FILE", path="store.url")
