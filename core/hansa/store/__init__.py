"""Where everything durable is kept: SQLite, PostgreSQL or MongoDB behind one contract."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hansa.model.errors import ConfigError

if TYPE_CHECKING:
    from hansa.store.base import Store

#: ``USER:PASSWORD@`` may not hold ``/?#@`` unescaped, so that no part of a password is taken for a host.
_MONGO = re.compile(r"mongodb(\+srv)?://([^/?#@\s]+@)?[^/?#@\s]+/[A-Za-z0-9_-]{1,38}(\?\S*)?")
#: A host may be left out, or named by the option ``host``: the socket of this machine.
_POSTGRES = re.compile(r"postgres(ql)?://([^/?#@\s]+@)?[^/?#@\s]*/[A-Za-z0-9_-]{1,63}(\?\S*)?")


def check_url(url: str) -> str:
    """The kind of store a URL is for. Raises ConfigError, whose text holds nothing of the URL but its kind:
    the rest may be a password.
    """
    kind = url.partition(":")[0]
    if kind == "sqlite" and len(url) > len("sqlite:"):
        return "sqlite"
    if kind in {"mongodb", "mongodb+srv"}:
        if not _MONGO.fullmatch(url) or not _is_splittable(url):
            text = (
                f"is not like {kind}://USER:PASSWORD@HOST/DATABASE; the database is needed, "
                "and in a password write %40 for @, %2F for /"
            )
            raise ConfigError(text, path="store.url")
        return "mongodb"
    if kind in {"postgres", "postgresql"}:
        if not _POSTGRES.fullmatch(url) or not _is_splittable(url):
            text = (
                f"is not like {kind}://USER:PASSWORD@HOST/DATABASE; the database is needed, "
                "and in a password write %40 for @, %2F for /"
            )
            raise ConfigError(text, path="store.url")
        return "postgres"
    text = "is not a store: say sqlite:FILE, postgres://HOST/DATABASE or mongodb://HOST/DATABASE"
    raise ConfigError(text, path="store.url")


def _is_splittable(url: str) -> bool:
    """True if a URL can be split. The exception for a URL that cannot has the password in its text."""
    try:
        urlsplit(url)
    except ValueError:
        return False
    return True


def missing_driver(url: str) -> ConfigError | None:
    """Returns an error that names the package to install, if the driver of a URL's store is missing. Nothing
    is imported. Raises ConfigError.
    """
    match check_url(url):
        case "postgres" if find_spec("asyncpg") is None:
            return _missing_driver("PostgreSQL", "asyncpg", "postgres")
        case "mongodb" if find_spec("pymongo") is None:
            return _missing_driver("MongoDB", "pymongo", "mongo")
        case _:
            return None


def _missing_driver(database: str, driver: str, extra: str) -> ConfigError:
    return ConfigError(f"{database} needs {driver}: install hansa[{extra}]", path="store.url")


def open_store(url: str, folder: Path) -> Store:
    """The store of a URL: ``sqlite:PATH`` (relative to ``folder``), ``postgres://HOST/DATABASE`` or
    ``mongodb://HOST/DATABASE``.

    No I/O yet. Raises ConfigError.
    """
    kind = check_url(url)
    if kind == "sqlite":
        from hansa.store.sqlite import SqliteStore  # noqa: PLC0415  # only what is configured is imported

        return SqliteStore(folder / url.partition(":")[2])
    if kind == "postgres":
        try:
            from hansa.store.postgres import PostgresStore  # noqa: PLC0415  # likewise
        except ModuleNotFoundError as error:
            raise _missing_driver("PostgreSQL", str(error.name), "postgres") from error
        return PostgresStore(url)
    try:
        from hansa.store.mongo import MongoStore  # noqa: PLC0415  # likewise
    except ModuleNotFoundError as error:
        raise _missing_driver("MongoDB", str(error.name), "mongo") from error
    return MongoStore(url)
